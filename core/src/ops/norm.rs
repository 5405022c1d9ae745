//! Layer normalisation. Ba, Kiros & Hinton 2016, arXiv:1607.06450.

use tapeflow_macros::kernel;

use super::kernel::map;
use crate::row::Row;
use crate::tensor::Tensor;

#[kernel]
fn layer_norm(x: Row, weight: Row, eps: f32) -> Row {
    let d = x - x.mean();
    let deviation = ((d * d).mean() + eps).sqrt();
    d * (1.0 / deviation) * weight
}

#[kernel]
fn layer_norm_bias(x: Row, weight: Row, bias: Row, eps: f32) -> Row {
    layer_norm(x, weight, eps) + bias
}

impl Tensor {
    /// Normalises each row over its last axis, then scales and shifts.
    ///
    /// # Shapes
    /// `x: (…, C)`, `weight, bias: (C,)` → `(…, C)`
    /// # Formula
    /// `y = (x − μ) / √(σ² + ε) · w + b`, σ² biased. Ba, Kiros & Hinton 2016, arXiv:1607.06450.
    /// # Numerics
    /// `eps` has the units of x².
    /// # Errors
    /// Shape mismatch (with all shapes) if `weight` or `bias` do not broadcast to `x`.
    #[track_caller]
    pub fn layer_norm(&self, weight: &Tensor, bias: Option<&Tensor>, eps: f64) -> Tensor {
        let eps = self.number(eps);
        let [out] = match bias {
            Some(bias) => map(layer_norm_bias::TEMPLATE, &[self, weight, bias, &eps]),
            None => map(layer_norm::TEMPLATE, &[self, weight, &eps]),
        };
        out
    }
}
