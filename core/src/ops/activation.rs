//! Activations. Each is one scalar function; its derivatives come from the derivative table.

use tapeflow_macros::kernel;

use super::kernel::map;
use crate::tensor::Tensor;

#[kernel]
fn relu(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
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

impl Tensor {
    /// `max(x, 0)`; its derivative at 0 is 0.
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
}
