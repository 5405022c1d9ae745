//! Root-mean-square normalisation over the last axis, with a learned scale.

use tapeflow_core::{DType, Parameter, Tensor};

use crate::Module;
use crate::error::Result;
use crate::init;
use crate::module::Forward;

/// Divides each row by its root mean square over the last axis, then scales; the formula stands with
/// [`Tensor::rms_norm`]. PyTorch's `RMSNorm`.
///
/// # Shapes
/// `x: (…, width)` → `(…, width)`
///
/// ```
/// use tapeflow_nn::{Forward, RmsNorm, Tensor};
/// let norm = RmsNorm::new(2)?;
/// let y = norm.forward(&Tensor::from_vec(vec![3.0f32, -3.0], [1, 2])).to_vec::<f32>()?;
/// assert!((y[0] - 1.0).abs() < 1e-6 && (y[1] + 1.0).abs() < 1e-6);
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct RmsNorm {
    /// `(width,)`, begins as ones.
    pub weight: Parameter,
    /// Added to the mean square; as in PyTorch the smallest step from 1 in the dtype of `x` if `None`.
    #[module(skip)]
    pub eps: Option<f64>,
}

impl RmsNorm {
    /// Over rows of `width` values.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(width: usize) -> Result<Self> {
        Ok(RmsNorm { weight: Parameter::new(init::ones([width]))?, eps: None })
    }

    /// With an ε of one's own.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = Some(eps);
        self
    }
}

impl Forward for RmsNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let step = if x.dtype() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
        x.rms_norm(&self.weight.tensor(), self.eps.unwrap_or(step))
    }
}
