//! The list of operations, which generic tests walk: for each operation a user can call one or several cases, with what
//! its operands must be like. Owns the list and the operands' values; knows no test and no device.

mod cases;
mod images;

use crate::{DType, Generator, Tensor};

/// The dtypes an operand may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A float; the same as that of all operands that are not `Bool` or `Index`.
    Float,
    /// A float or an integer; the same as that of all operands that are not `Bool` or `Index`.
    Number,
    /// Any dtype; the same as that of all operands that are not `Bool` or `Index`.
    Any,
    /// A bool, whatever the others are.
    Bool,
    /// i32, u32 or i64, an index into an axis whose extent has this letter.
    Index(char),
}

/// Where an operand's float values lie, so that the case is defined and smooth around them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Domain {
    /// Uniform in an interval.
    Between(f64, f64),
    /// Between −3 and 3, at least 0.2 away from every integer and so from kinks and jumps at integers.
    BetweenIntegers,
    /// Multiples of 0.1 plus an offset, each once: no two are nearer than 0.1, and none to those with another offset
    /// than the offsets' difference.
    Apart(f64),
    /// −1, 0 and 1: many are equal.
    Ties,
}

/// One operand of a case.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// One character per axis. A lower-case letter stands for any extent, an upper-case one for any but 0, each the
    /// same in all operands; a digit is that extent.
    pub shape: &'static str,
    /// Its dtypes.
    pub class: Class,
    /// Its values, if they are floats.
    pub domain: Domain,
    /// Whether axes may be left out or be 1, as NumPy broadcasts.
    pub broadcasts: bool,
    /// Whether a cotangent reaches it.
    pub differentiable: bool,
}

/// How far two devices may differ in a case's floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accuracy {
    /// Not a bit.
    Exact,
    /// So many units in the last place.
    Ulps(f64),
    /// So many units in the last place of the sum of the magnitudes of all terms, which are about 1.
    Sums(f64),
}

/// A way to call an operation, its attributes fixed.
#[derive(Clone, Debug)]
pub struct OpCase {
    /// The operation: the name of the method or function.
    pub op: &'static str,
    /// The case: the operation's name and what its attributes are.
    pub name: &'static str,
    /// What it is called with.
    pub operands: Vec<Operand>,
    /// The call.
    pub apply: fn(&[Tensor]) -> Tensor,
    /// What devices must agree on.
    pub accuracy: Accuracy,
}

/// Every operation, in the order of the files in `ops`.
pub fn ops() -> &'static [OpCase] {
    &cases::CASES
}

impl OpCase {
    /// The dtypes that the operands that share one may have; empty if none do.
    pub fn dtypes(&self) -> Vec<DType> {
        let allowed = |class: Class, dtype: DType| match class {
            Class::Float => dtype.is_float(),
            Class::Number => dtype != DType::Bool,
            Class::Any | Class::Bool | Class::Index(_) => true,
        };
        let shares = |o: &&Operand| matches!(o.class, Class::Float | Class::Number | Class::Any);
        let sharing: Vec<&Operand> = self.operands.iter().filter(shares).collect();
        let fits = |d: &DType| !sharing.is_empty() && sharing.iter().all(|o| allowed(o.class, *d));
        DType::ALL.into_iter().filter(fits).collect()
    }
}

impl Operand {
    /// The extents, given the letters'.
    pub fn extents(&self, extent_of: impl Fn(char) -> usize) -> Vec<usize> {
        self.shape.chars().map(|c| c.to_digit(10).map_or_else(|| extent_of(c), |d| d as usize)).collect()
    }

    /// The dtype, given the one that operands share.
    pub fn dtype(&self, shared: DType, index: DType) -> DType {
        match self.class {
            Class::Float | Class::Number | Class::Any => shared,
            Class::Bool => DType::Bool,
            Class::Index(_) => index,
        }
    }

    /// `n` values that `dtype` can hold, a function of the seed; `bound` is the extent that an index is for.
    pub fn values(&self, n: usize, dtype: DType, bound: usize, seed: u64) -> Vec<f64> {
        let generator = Generator::new(seed);
        let uniform = |low: f64, high: f64| low + (high - low) * f64::from(generator.next_f32());
        let whole = |low: i64, high: i64| (low + generator.below((high - low) as usize) as i64) as f64;
        if let Class::Index(_) = self.class {
            let low = if dtype == DType::U32 { 0 } else { -(bound as i64) };
            return (0..n).map(|_| whole(low, bound as i64)).collect();
        }
        match (dtype, self.domain) {
            (DType::Bool, _) => (0..n).map(|_| whole(0, 2)).collect(),
            (DType::U8 | DType::U32, _) => (0..n).map(|_| whole(0, 6)).collect(),
            (DType::I32 | DType::I64, _) => (0..n).map(|_| whole(-4, 5)).collect(),
            (_, Domain::Between(low, high)) => (0..n).map(|_| uniform(low, high)).collect(),
            (_, Domain::BetweenIntegers) => (0..n).map(|_| whole(-3, 3) + uniform(0.2, 0.8)).collect(),
            (_, Domain::Ties) => (0..n).map(|_| whole(-1, 2)).collect(),
            (_, Domain::Apart(offset)) => {
                let mut steps: Vec<usize> = (0..n).collect();
                for i in (1..n).rev() {
                    steps.swap(i, generator.below(i + 1));
                }
                steps.into_iter().map(|s| (s as f64 - (n / 2) as f64) * 0.1 + offset).collect()
            }
        }
    }
}
