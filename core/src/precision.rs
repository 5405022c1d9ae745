//! Mixed precision: which operations run in half precision while it is asked for, and what they do with their operands.
//! Owns the choice, which is PyTorch's autocast's; what is recorded are conversions like any other, so gradients,
//! fusion and keys know nothing of it.
//!
//! Contractions (`matmul`, convolutions, all made of them) take f32 as half precision and give it. What sums, divides
//! or raises (reductions, row kernels, losses, `exp`, `log`, `pow` and their kin) is computed in f32 and gives f32.
//! Other operations follow their operands, the wider of two dtypes first. f64 stays what it is.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use tapeflow_ir::{DType, Hole, Template, TemplateInput};

use crate::tensor::Tensor;

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// In what contractions are computed: set for a part of a program by [`Precision::scope`].
///
/// Parameters stay f32 (they are the master weights), and so do their gradients; activations take half the memory.
/// With f16, scale the loss, so that small gradients do not vanish.
///
/// # Numerics
/// Products of half precision are summed in f32 and rounded once. On x86-64 with AVX512-BF16
/// (`TAPEFLOW_ISA=avx512bf16`, the best path of such a machine) bf16 goes through its instruction, which adds the
/// products of two neighbouring terms at a time and takes numbers below 2⁻¹²⁶ in magnitude for zero, operands and sums
/// alike; every other path computes exactly what it would of the operands in f32.
///
/// # Example
/// ```
/// use tapeflow_core::{DType, Parameter, Precision, Tensor};
/// let weight = Parameter::new(Tensor::ones([3, 2], DType::F32))?;
/// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [1, 3]);
/// let y = Precision::Bf16.scope(|| x.matmul(&weight.tensor()));
/// assert_eq!(y.dtype(), DType::BF16);
/// let gradients = y.cast(DType::F32).sum().backward()?;
/// assert_eq!(gradients.get(&weight).map(|g| g.dtype()), Some(DType::F32));
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As the operands are.
    #[default]
    F32,
    /// f16: more digits, a short range.
    F16,
    /// bf16: the range of f32, few digits.
    Bf16,
}

impl Precision {
    /// This thread's.
    pub fn current() -> Precision {
        CURRENT.get()
    }

    /// Runs `f`, which records with this precision on this thread. Gradients need not be asked for inside.
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> T {
        struct Restore(Precision);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        f()
    }

    /// What contractions are computed in.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::Bf16 => DType::BF16,
        }
    }

    /// An operand as contractions take it: f32 and half precision become [`Precision::dtype`], unless this is
    /// [`Precision::F32`], which changes nothing. For layers that add to a product what must not widen it.
    #[track_caller]
    pub fn operand(self, x: &Tensor) -> Tensor {
        match self != Precision::F32 && x.dtype().computed() == DType::F32 {
            true => x.cast(self.dtype()),
            false => x.clone(),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dtype().name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Precision, String> {
        let all = [Precision::F32, Precision::F16, Precision::Bf16];
        let found = all.into_iter().find(|p| p.dtype().name() == text);
        found.ok_or_else(|| format!("`{text}` is no precision: f32, bf16 or f16"))
    }
}

/// Functions of single elements that are computed in f32 and give f32.
const WIDE: [&str; 8] = ["exp", "expm1", "log", "log1p", "pow", "recip", "rsqrt", "softplus"];

fn is_active() -> bool {
    CURRENT.get() != Precision::F32
}

/// An operand of what must be computed and given in f32.
#[track_caller]
pub(crate) fn wide(x: &Tensor) -> Cow<'_, Tensor> {
    match is_active() && x.dtype().is_half() {
        true => Cow::Owned(x.cast(DType::F32)),
        false => Cow::Borrowed(x),
    }
}

/// The operands of a kernel, if they are not taken as they are.
#[track_caller]
pub(crate) fn kernel_operands(template: &Template, inputs: &[&Tensor]) -> Option<Vec<Tensor>> {
    if !is_active() || !inputs.iter().any(|t| t.dtype().is_half()) {
        return None;
    }
    let is_wide = |(t, p): (&&Tensor, &TemplateInput)| p.ty == Hole::Kernel && t.dtype() == DType::F32 && t.ndim() > 0;
    let mixed = inputs.iter().zip(template.inputs).any(is_wide);
    // A conversion is asked for by name.
    let widens = template.row || WIDE.contains(&template.name) || mixed;
    (widens && template.name != "cast").then(|| inputs.iter().map(|t| wide(t).into_owned()).collect())
}

/// The operands as f32, if they are both f32 and of half precision.
#[track_caller]
pub(crate) fn promoted(inputs: &[&Tensor]) -> Option<Vec<Tensor>> {
    let mixed =
        is_active() && inputs.iter().any(|t| t.dtype().is_half()) && inputs.iter().any(|t| t.dtype() == DType::F32);
    mixed.then(|| inputs.iter().map(|t| wide(t).into_owned()).collect())
}
