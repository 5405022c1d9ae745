//! The NaN finder: with `TAPEFLOW_CHECK=nan`, or inside [`check_nan`], programs keep every float they compute and look
//! at all of them after the run, in the order of the graph.
//!
//! Owns which values are looked at and what is said of the first bad one. Fusing changes no bit, so what is found is
//! what a run without the check computes.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use smallvec::SmallVec;
use tapeflow_ir::DType;
use tapeflow_ir::half::{bf16_to_f32, f16_to_f32};

use super::world::{Id, World};
use crate::buffer::Buffer;
use crate::capture;
use crate::error::Problem;
use crate::program::Failure;

thread_local! {
    static CHECK: Cell<bool> = const { Cell::new(false) };
}

/// Looks for NaN in everything that `f` computes on this thread: the first operation with a NaN in its result that none
/// of its operands had is an error, which says where it was recorded and in which module. Updates are not made then.
///
/// `TAPEFLOW_CHECK=nan` does the same for a whole process. Steps that are captured are not looked at. All intermediate
/// values are kept until the end of their program, which takes time and memory.
///
/// # Example
/// ```
/// # use tapeflow_core::{Tensor, check_nan};
/// let x = Tensor::from_vec(vec![1.0f32, -1.0], [2]);
/// let error = check_nan(|| (x.log() + 1.0).to_vec::<f32>()).unwrap_err();
/// assert!(error.to_string().starts_with("log: the result holds NaN in 1 of 2 elements, first at [1]"));
/// ```
pub fn check_nan<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            CHECK.set(self.0);
        }
    }
    let _restore = Restore(CHECK.replace(true));
    f()
}

/// Whether what this thread computes is looked at for NaN at the moment; see [`check_nan`].
pub fn is_checking_nan() -> bool {
    // A setting that is none is an error of what is computed next.
    is_wanted().unwrap_or(true)
}

/// Whether programs are to be checked at the moment.
pub(super) fn is_wanted() -> Result<bool, Problem> {
    static ALWAYS: LazyLock<Result<bool, String>> = LazyLock::new(|| match std::env::var("TAPEFLOW_CHECK") {
        Ok(value) if value == "nan" => Ok(true),
        Ok(value) if !value.is_empty() => Err(format!("TAPEFLOW_CHECK={value:?} is not a check (nan)")),
        _ => Ok(false),
    });
    let always = ALWAYS.clone().map_err(Problem::Setting)?;
    Ok((always || CHECK.get()) && !capture::is_capturing())
}

/// Where a value lies after a run.
#[derive(Clone, Copy, Debug)]
enum Lies {
    Input(usize),
    Output(usize),
}

/// A value that is looked at.
#[derive(Debug)]
pub(crate) struct Checked {
    lies: Lies,
    dtype: DType,
    shape: Vec<usize>,
    /// The canonical number of the recorded node.
    origin: u32,
    /// Whether the node's vjp made it.
    in_backward: bool,
    /// The operands among the values that are looked at.
    operands: SmallVec<[usize; 4]>,
}

/// The values to look at, in order, and those among them that must be made outputs behind the first `outputs`.
/// `recorded`: how many nodes there were before the gradients.
pub(super) fn checked(world: &World, roots: &[Id], recorded: usize) -> (Vec<Checked>, Vec<Id>) {
    let (mut all, mut kept): (Vec<Checked>, Vec<Id>) = (Vec::new(), Vec::new());
    let mut number: Vec<SmallVec<[usize; 4]>> = vec![SmallVec::new(); world.len()];
    for id in world.topological(roots, false) {
        let i = id.index();
        let bound = world.bound[i];
        // What only moves elements stands for what it moves; what is no float for the floats it was made of.
        let operands: SmallVec<[usize; 4]> = match bound {
            None => world.inputs[i].iter().flat_map(|x| number[x.index()].iter().copied()).collect(),
            Some(_) => SmallVec::new(),
        };
        let is_view = bound.is_none() && world.op[i].primitive().is_some_and(|p| p.is_view());
        let ty = &world.ty[i];
        if is_view || !ty.dtype.is_float() {
            number[i] = operands;
            continue;
        }
        let lies = match bound {
            Some(input) => Lies::Input(input as usize),
            None => {
                kept.push(id);
                Lies::Output(roots.len() + kept.len() - 1)
            }
        };
        number[i] = SmallVec::from_slice(&[all.len()]);
        let (dtype, shape, origin) = (ty.dtype, ty.shape.to_vec(), world.origin[i]);
        all.push(Checked { lies, dtype, shape, origin, in_backward: i >= recorded, operands });
    }
    (all, kept)
}

/// What is in a value.
#[derive(Clone, Copy, Default)]
struct Found {
    nan: usize,
    first: usize,
    infinite: bool,
}

/// Reports the first value with a NaN that no operand has.
pub(super) fn look(checks: &[Checked], inputs: &[Arc<Buffer>], outputs: &[Arc<Buffer>]) -> Result<(), Failure> {
    let mut found: Vec<Found> = Vec::with_capacity(checks.len());
    for check in checks {
        let buffer = match check.lies {
            Lies::Input(i) => &inputs[i],
            Lies::Output(k) => &outputs[k],
        };
        // SAFETY: the run has written its outputs whole, and has ended; inputs are not taken over when it is checked.
        let bytes = unsafe { buffer.read() }.map_err(|problem| Failure { origin: check.origin, problem })?;
        let count = check.shape.iter().product();
        let here = match check.dtype {
            DType::F64 => scan(bytes.as_chunks().0, count, |b| f64::from_le_bytes(*b)),
            DType::F16 => scan(bytes.as_chunks().0, count, |b| f16_to_f32(u16::from_le_bytes(*b)).into()),
            DType::BF16 => scan(bytes.as_chunks().0, count, |b| bf16_to_f32(u16::from_le_bytes(*b)).into()),
            _ => scan(bytes.as_chunks().0, count, |b| f64::from(f32::from_le_bytes(*b))),
        };
        found.push(here);
        if here.nan == 0 || check.operands.iter().any(|&o| found[o].nan > 0) {
            continue;
        }
        let place = match (check.lies, check.in_backward) {
            (Lies::Input(_), _) => "the value it was given",
            (Lies::Output(_), true) => "its derivative",
            (Lies::Output(_), false) => "the result",
        };
        let hint = if check.operands.iter().any(|&o| found[o].infinite) { ": an operand holds ∞" } else { "" };
        let mut index = vec![0; check.shape.len()];
        let mut rest = here.first;
        for (at, extent) in index.iter_mut().zip(&check.shape).rev() {
            (*at, rest) = (rest % extent, rest / extent);
        }
        let problem = Problem::NotANumber { place, count: here.nan, elements: count, first: index, hint };
        return Err(Failure { origin: check.origin, problem });
    }
    Ok(())
}

fn scan<const N: usize>(elements: &[[u8; N]], count: usize, value: impl Fn(&[u8; N]) -> f64) -> Found {
    let mut found = Found::default();
    for (i, element) in elements.iter().take(count).enumerate() {
        let value = value(element);
        if value.is_nan() {
            if found.nan == 0 {
                found.first = i;
            }
            found.nan += 1;
        }
        found.infinite |= value.is_infinite();
    }
    found
}
