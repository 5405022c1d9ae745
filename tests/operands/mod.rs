//! Operands for the cases of the registry: values in every dtype, extents for the letters of a shape, and the forms in
//! which a tensor can lie in memory. Owns no test.

use tapeflow::registry::{Class, OpCase, Operand};
use tapeflow::{DType, Tensor};

pub use crate::elements::{floats, tensor};

/// How an operand's elements lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Contiguous,
    /// Stored with its axes in reverse order.
    Transposed,
    /// Its first axis stored once and repeated.
    ExpandedFirst,
    /// Its last axis stored once and repeated.
    ExpandedLast,
    /// Every second element, from the second on, of the first axis, and all but the first of the last (if that is
    /// another).
    Sliced,
}

impl Form {
    pub const ALL: [Form; 5] =
        [Form::Contiguous, Form::Transposed, Form::ExpandedFirst, Form::ExpandedLast, Form::Sliced];

    /// The shape of what is stored.
    pub fn stored(self, shape: &[usize]) -> Vec<usize> {
        let mut stored = shape.to_vec();
        match self {
            Form::Contiguous => {}
            Form::Transposed => stored.reverse(),
            Form::ExpandedFirst => stored.iter_mut().take(1).for_each(|d| *d = 1),
            Form::ExpandedLast => stored.iter_mut().rev().take(1).for_each(|d| *d = 1),
            Form::Sliced => {
                stored.iter_mut().take(1).for_each(|d| *d = 2 * *d + 1);
                stored.iter_mut().skip(1).last().into_iter().for_each(|d| *d += 1);
            }
        }
        stored
    }

    /// The operand, of what is stored.
    pub fn view(self, stored: &Tensor, shape: &[usize]) -> Tensor {
        match self {
            Form::Contiguous => stored.clone(),
            Form::Transposed => stored.permute((0..shape.len()).rev().collect::<Vec<_>>()),
            Form::ExpandedFirst | Form::ExpandedLast => stored.expand(shape),
            Form::Sliced => match shape.len() {
                0 => stored.clone(),
                1 => stored.slice_step(0, 1.., 2),
                _ => stored.slice_step(0, 1.., 2).slice(-1, 1..),
            },
        }
    }
}

/// What the letters of shapes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extents {
    /// 2 to 6, all different.
    Small,
    /// Long enough for several vectors and a remainder; the first letters only, so that the product stays moderate.
    Large,
    /// This letter is 1, or 0 where that is allowed, the others are small.
    With(char, usize),
}

impl Extents {
    pub fn of(self, letter: char) -> usize {
        let at = (letter.to_ascii_lowercase() as u8 - b'a') as usize;
        match self {
            Extents::With(l, extent) if l.eq_ignore_ascii_case(&letter) => extent,
            Extents::Large => [5, 67, 35, 3, 2][at.min(4)],
            _ => 2 + at,
        }
    }

    /// Those that the case allows: small, large, and each letter once as 1 and once as 0.
    pub fn of_case(case: &OpCase) -> Vec<Extents> {
        let mut letters: Vec<char> = case.operands.iter().flat_map(|o| o.shape.chars()).collect();
        letters.retain(|c| c.is_alphabetic());
        letters.sort_unstable();
        letters.dedup();
        let needed = |c: char| letters.contains(&c.to_ascii_uppercase());
        let ones = letters.iter().map(|&c| Extents::With(c, 1));
        let zeros = letters.iter().filter(|c| !needed(**c)).map(|&c| Extents::With(c, 0));
        [Extents::Small, Extents::Large].into_iter().chain(ones).chain(zeros).collect()
    }
}

/// The extents of an operand.
pub fn shape_of(operand: &Operand, extents: Extents) -> Vec<usize> {
    operand.extents(|letter| extents.of(letter))
}

/// Values for what is stored of an operand.
pub fn values(operand: &Operand, stored: &[usize], dtype: DType, extents: Extents, seed: u64) -> Vec<f64> {
    let bound = if let Class::Index(letter) = operand.class { extents.of(letter) } else { 0 };
    operand.values(stored.iter().product(), dtype, bound, seed)
}
