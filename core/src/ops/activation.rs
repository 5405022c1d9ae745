//! Activations. Each is one scalar function; its derivatives come from the derivative table.

use tapeflow_macros::kernel;

use super::Op;
use super::kernel::{KernelOp, map};
use crate::row::erf;
use crate::tensor::Tensor;

/// So that NaN stays NaN.
#[kernel]
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// Whether an operation is ReLU: it rounds nothing, and a larger element never becomes the smaller one.
pub(crate) fn is_relu(op: &Op) -> bool {
    matches!(op, Op::Kernel(kernel) if kernel.is(relu::TEMPLATE))
}

/// Whether a kernel's derivative at its result is that at its operand: ReLU's depends on where it is above zero, and
/// both are, or both are NaN, or neither.
pub(super) fn goes_by_result(kernel: &KernelOp) -> bool {
    kernel.is(relu::TEMPLATE)
}

/// Of two forms the one that cannot overflow.
#[kernel]
fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    let s = 1.0 / (1.0 + e);
    if x >= 0.0 { s } else { e * s }
}

/// `√(2/π)`; `FRAC_2_SQRT_PI · FRAC_1_SQRT_2` as the standard library names its factors.
#[kernel]
fn gelu(x: f32) -> f32 {
    let k = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    0.5 * x * (1.0 + (k * (x + 0.044715 * x * x * x)).tanh())
}

#[kernel]
fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

#[kernel]
fn erf_of(x: f32) -> f32 {
    erf(x)
}

#[kernel]
fn gelu_erf(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[kernel]
fn leaky_relu(x: f32, slope: f32) -> f32 {
    if x > 0.0 { x } else { slope * x }
}

#[kernel]
fn elu(x: f32, alpha: f32) -> f32 {
    if x > 0.0 { x } else { alpha * x.exp_m1() }
}

#[kernel]
#[allow(clippy::excessive_precision)] // Constants are rounded to the kernel's dtype, which may be f64.
fn selu(x: f32) -> f32 {
    1.0507009873554805 * elu(x, 1.6732632423543772)
}

/// The larger of two equals shares its derivative, so that the derivative at 0 is ½.
#[kernel]
pub(super) fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[kernel]
fn log_sigmoid(x: f32) -> f32 {
    -softplus(-x)
}

#[kernel]
fn mish(x: f32) -> f32 {
    x * softplus(x).tanh()
}

#[kernel]
#[allow(clippy::excessive_precision)] // As above.
fn hardsigmoid(x: f32) -> f32 {
    let y = x + 3.0;
    let y = if y <= 0.0 { 0.0 } else { y };
    let y = if y >= 6.0 { 6.0 } else { y };
    y * 0.16666666666666666
}

#[kernel]
fn hardswish(x: f32) -> f32 {
    x * hardsigmoid(x)
}

impl Tensor {
    /// `max(x, 0)`; its derivative at 0 is 0, and NaN stays NaN.
    #[track_caller]
    pub fn relu(&self) -> Tensor {
        let [out] = map(relu::TEMPLATE, &[self]);
        out
    }

    /// `σ(x) = 1 / (1 + e⁻ˣ)`
    #[track_caller]
    pub fn sigmoid(&self) -> Tensor {
        let [out] = map(sigmoid::TEMPLATE, &[self]);
        out
    }

    /// GELU, tanh form.
    ///
    /// # Formula
    /// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`. Hendrycks & Gimpel 2016, arXiv:1606.08415.
    #[track_caller]
    pub fn gelu(&self) -> Tensor {
        let [out] = map(gelu::TEMPLATE, &[self]);
        out
    }

    /// SiLU (swish): `x · σ(x)`. Elfwing et al. 2017, arXiv:1702.03118.
    #[track_caller]
    pub fn silu(&self) -> Tensor {
        let [out] = map(silu::TEMPLATE, &[self]);
        out
    }

    /// The error function, `2/√π ∫₀ˣ e^{−t²} dt`.
    #[track_caller]
    pub fn erf(&self) -> Tensor {
        let [out] = map(erf_of::TEMPLATE, &[self]);
        out
    }

    /// GELU, the form with the error function, which is PyTorch's default.
    ///
    /// # Formula
    /// `½ x (1 + erf(x / √2))`. Hendrycks & Gimpel 2016, arXiv:1606.08415.
    #[track_caller]
    pub fn gelu_erf(&self) -> Tensor {
        let [out] = map(gelu_erf::TEMPLATE, &[self]);
        out
    }

    /// `x` where it is positive, `slope · x` elsewhere (PyTorch's default slope is 0.01). Maas, Hannun & Ng 2013.
    #[track_caller]
    pub fn leaky_relu(&self, slope: f64) -> Tensor {
        let [out] = map(leaky_relu::TEMPLATE, &[self, &self.number(slope)]);
        out
    }

    /// `x` where it is positive, `α (eˣ − 1)` elsewhere. Clevert, Unterthiner & Hochreiter 2015, arXiv:1511.07289.
    #[track_caller]
    pub fn elu(&self, alpha: f64) -> Tensor {
        let [out] = map(elu::TEMPLATE, &[self, &self.number(alpha)]);
        out
    }

    /// `λ elu(x, α)` with the λ and α that keep mean 0 and variance 1. Klambauer et al. 2017, arXiv:1706.02515.
    #[track_caller]
    pub fn selu(&self) -> Tensor {
        let [out] = map(selu::TEMPLATE, &[self]);
        out
    }

    /// `ln(1 + eˣ)`, without overflow.
    #[track_caller]
    pub fn softplus(&self) -> Tensor {
        let [out] = map(softplus::TEMPLATE, &[self]);
        out
    }

    /// `ln σ(x)`, without overflow.
    #[track_caller]
    pub fn log_sigmoid(&self) -> Tensor {
        let [out] = map(log_sigmoid::TEMPLATE, &[self]);
        out
    }

    /// `x · tanh(ln(1 + eˣ))`. Misra 2019, arXiv:1908.08681.
    #[track_caller]
    pub fn mish(&self) -> Tensor {
        let [out] = map(mish::TEMPLATE, &[self]);
        out
    }

    /// `min(max(x + 3, 0), 6) / 6`. Howard et al. 2019, arXiv:1905.02244.
    #[track_caller]
    pub fn hardsigmoid(&self) -> Tensor {
        let [out] = map(hardsigmoid::TEMPLATE, &[self]);
        out
    }

    /// `x · hardsigmoid(x)`. Howard et al. 2019, arXiv:1905.02244.
    #[track_caller]
    pub fn hardswish(&self) -> Tensor {
        let [out] = map(hardswish::TEMPLATE, &[self]);
        out
    }
}

#[cfg(test)]
mod tests {
    use crate::{Tensor, grad_with};

    /// Of a sum, where ReLU's derivative goes by its result, and of what lies in memory, where it goes by its operand.
    #[test]
    fn the_derivative_of_relu_at_its_result_is_that_at_its_operand() -> Result<(), crate::Error> {
        let values = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.5, -1.5, f32::MIN_POSITIVE];
        let cotangent = Tensor::from_vec((1..9).map(|i| i as f32).collect(), [8]);
        let zeros = Tensor::from_vec(vec![0.0f32; 8], [8]);
        let x = Tensor::from_vec(values, [8]).with_grad()?;
        let gradient = |y: &Tensor| grad_with(y, Some(&cotangent), &[&x])?[0].to_vec::<f32>();
        let (by_operand, by_result) = (gradient(&x.relu())?, gradient(&(&x + &zeros).relu())?);
        assert_eq!(by_operand, by_result);
        assert_eq!(by_result, [1.0, 2.0, 0.0, 0.0, 0.0, 6.0, 0.0, 8.0]);
        // Nothing of it is lost on the way to a second derivative.
        let cube = |y: Tensor| (&y * &y * &y).sum();
        let second = |of: &dyn Fn() -> Tensor| {
            let first = &grad_with(&cube(of()), None, &[&x])?[0];
            grad_with(&first.slice(0, 3..).sum(), None, &[&x])?[0].slice(0, 3..).to_vec::<f32>()
        };
        assert_eq!(second(&|| x.relu())?, second(&|| (&x + &zeros).relu())?);
        Ok(())
    }
}
