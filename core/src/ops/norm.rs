//! Layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450), root-mean-square normalisation (Zhang & Sennrich
//! 2019, arXiv:1910.07467) and group normalisation (Wu & He 2018, arXiv:1803.08494).

use tapeflow_macros::kernel;

use super::kernel::map;
use crate::error::{Error, Problem};
use crate::row::Row;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

#[kernel]
fn standardize(x: Row, eps: f32) -> Row {
    let d = x - x.mean();
    let deviation = ((d * d).mean() + eps).sqrt();
    d * (1.0 / deviation)
}

#[kernel]
fn layer_norm(x: Row, weight: Row, eps: f32) -> Row {
    standardize(x, eps) * weight
}

#[kernel]
fn layer_norm_bias(x: Row, weight: Row, bias: Row, eps: f32) -> Row {
    layer_norm(x, weight, eps) + bias
}

#[kernel]
fn rms_norm(x: Row, weight: Row, eps: f32) -> Row {
    let scale = ((x * x).mean() + eps).sqrt();
    x * (1.0 / scale) * weight
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

    /// Divides each row by its root mean square over its last axis, then scales.
    ///
    /// # Shapes
    /// `x: (…, C)`, `weight: (C,)` → `(…, C)`
    /// # Formula
    /// `y = x / √(mean(x²) + ε) · w`. Zhang & Sennrich 2019, arXiv:1910.07467.
    /// # Numerics
    /// `eps` has the units of x².
    /// # Errors
    /// Shape mismatch (with both shapes) if `weight` does not broadcast to `x`.
    /// # Example
    /// ```
    /// # use tapeflow_core::{DType, Tensor};
    /// let x = Tensor::from_vec(vec![1.0f64, 7.0], [1, 2]);
    /// let y = x.rms_norm(&Tensor::ones([2], DType::F64), 0.0).to_vec::<f64>()?;
    /// assert!((y[0] - 0.2).abs() < 1e-15 && (y[1] - 1.4).abs() < 1e-15);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn rms_norm(&self, weight: &Tensor, eps: f64) -> Tensor {
        let [out] = map(rms_norm::TEMPLATE, &[self, weight, &self.number(eps)]);
        out
    }

    /// Normalises the channels of each item in groups, over all of a group's elements.
    ///
    /// # Shapes
    /// `x: (N, C, …)` → `(N, C, …)`
    /// # Formula
    /// `y = (x − μ) / √(σ² + ε)`, μ and biased σ² over the C / groups channels of a group and all that follows. Wu & He
    /// 2018, arXiv:1803.08494.
    /// # Errors
    /// Fewer than two axes, integers, groups that do not divide the channels.
    #[track_caller]
    pub fn group_norm(&self, groups: usize, eps: f64) -> Tensor {
        let site = Site::here();
        let shape = self.shape().clone();
        let mistake = |problem| Tensor::mistake_in(&[self], Error::new("group_norm", problem, site), self.ty().clone());
        if shape.len() < 2 || groups == 0 || !shape[1].is_multiple_of(groups) {
            let rule = format!("(items, channels, …) is needed, and {groups} groups must divide the channels").into();
            return mistake(Problem::Shapes { shapes: vec![shape], rule });
        }
        if !self.dtype().is_float() {
            return mistake(Problem::DType { found: self.dtype(), wanted: "a float".into() });
        }
        let length = shape[1] / groups * shape[2..].iter().product::<usize>();
        let rows = self.reshape_known(Shape::from([shape[0], groups, length]), site);
        let [out] = map(standardize::TEMPLATE, &[&rows, &self.number(eps)]);
        out.reshape_known(shape, site)
    }
}
