//! Group normalisation with a learned scale and shift per channel.

use tapeflow_core::{Parameter, Tensor};

use crate::Module;
use crate::error::Result;
use crate::init;
use crate::module::Forward;

/// Normalises channels in groups within each item, then scales and shifts each channel; the formula stands with
/// [`Tensor::group_norm`].
///
/// # Shapes
/// `x: (N, channels, …)` → the same
#[derive(Clone, Debug, Module)]
pub struct GroupNorm {
    /// `(channels,)`, begins as ones.
    pub weight: Option<Parameter>,
    /// `(channels,)`, begins as zeros.
    pub bias: Option<Parameter>,
    /// How many groups.
    #[module(skip)]
    pub groups: usize,
    /// Added to the variance, in units of x².
    #[module(skip)]
    pub eps: f64,
}

impl GroupNorm {
    /// So many groups of so many channels, with ε = 1e-5, weight and bias, as in PyTorch.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(groups: usize, channels: usize) -> Result<Self> {
        Ok(GroupNorm {
            weight: Some(Parameter::new(init::ones([channels]))?),
            bias: Some(Parameter::new(init::zeros([channels]))?),
            groups,
            eps: 1e-5,
        })
    }

    /// With another ε.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Keeps weight and bias, or takes them away.
    pub fn affine(mut self, wanted: bool) -> Self {
        self.weight = self.weight.filter(|_| wanted);
        self.bias = self.bias.filter(|_| wanted);
        self
    }
}

impl Forward for GroupNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut along = vec![1isize; x.ndim().max(2)];
        along[1] = -1;
        let per_channel = |p: &Parameter| p.tensor().reshape(&along[..]);
        let channels = [&self.weight, &self.bias].into_iter().flatten().map(|p| p.tensor().numel()).next();
        if let Some(channels) = channels.filter(|channels| x.ndim() < 2 || x.shape()[1] != *channels) {
            return Tensor::refuse("GroupNorm", &[x], format!("(items, {channels}, …) is needed"));
        }
        let mut y = x.group_norm(self.groups, self.eps);
        if let Some(weight) = &self.weight {
            y = y * per_channel(weight);
        }
        match &self.bias {
            Some(bias) => y + per_channel(bias),
            None => y,
        }
    }
}
