//! Layer normalisation over the last axis, with a learned scale and, if wanted, a learned shift.

use tapeflow_core::{Parameter, Tensor};

use crate::Module;
use crate::error::Result;
use crate::init;
use crate::module::Forward;

/// Normalises each row over its last axis, then scales and shifts; the formula stands with [`Tensor::layer_norm`].
///
/// # Shapes
/// `x: (…, width)` → `(…, width)`
#[derive(Clone, Debug, Module)]
pub struct LayerNorm {
    /// `(width,)`, begins as ones.
    pub weight: Parameter,
    /// `(width,)`, begins as zeros.
    pub bias: Option<Parameter>,
    /// Added to the variance, in units of x².
    #[module(skip)]
    pub eps: f64,
}

impl LayerNorm {
    /// Over rows of `width` values, with a bias, and ε = 1e-5 as in PyTorch.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(width: usize) -> Result<Self> {
        Ok(LayerNorm {
            weight: Parameter::new(init::ones([width]))?,
            bias: Some(Parameter::new(init::zeros([width]))?),
            eps: 1e-5,
        })
    }

    /// Keeps the bias, or takes it away.
    pub fn bias(mut self, wanted: bool) -> Self {
        self.bias = self.bias.filter(|_| wanted);
        self
    }

    /// With another ε.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }
}

impl Forward for LayerNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let bias = self.bias.as_ref().map(Parameter::tensor);
        x.layer_norm(&self.weight.tensor(), bias.as_ref(), self.eps)
    }
}
