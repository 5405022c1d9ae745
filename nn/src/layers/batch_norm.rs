//! Batch normalisation. Ioffe & Szegedy 2015, arXiv:1502.03167; conventions as PyTorch's.

use tapeflow_core::{Parameter, Tensor, is_training, no_grad};

use crate::Module;
use crate::error::Result;
use crate::init;
use crate::module::{Buffer, Forward};

/// What batch normalisation over any number of axes has.
#[derive(Clone, Debug)]
struct Statistics {
    mean: Tensor,
    var: Tensor,
}

/// Mean and biased variance of each channel, with all axes kept.
fn of_batch(x: &Tensor) -> Statistics {
    let axes: Vec<isize> = (0..x.ndim() as isize).filter(|&axis| axis != 1).collect();
    let (var, mean) = x.var_mean_dim(&axes[..], 0, true);
    Statistics { mean, var }
}

macro_rules! batch_norms {
    ($($(#[$doc:meta])* $name:ident $allowed:pat, $wanted:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            /// `(channels,)`, begins as ones.
            pub weight: Option<Parameter>,
            /// `(channels,)`, begins as zeros.
            pub bias: Option<Parameter>,
            /// `(channels,)`: a running mean of the batches' means.
            pub running_mean: Buffer,
            /// `(channels,)`: a running mean of the batches' unbiased variances.
            pub running_var: Buffer,
            /// Added to the variance, in units of x².
            #[module(skip)]
            pub eps: f64,
            /// The weight of the newest batch in the running statistics.
            #[module(skip)]
            pub momentum: f64,
        }

        impl $name {
            /// Over so many channels, with ε = 1e-5, momentum 0.1, weight and bias, as in PyTorch.
            ///
            /// # Errors
            /// If there is no memory for it.
            pub fn new(channels: usize) -> Result<Self> {
                Ok($name {
                    weight: Some(Parameter::new(init::ones([channels]))?),
                    bias: Some(Parameter::new(init::zeros([channels]))?),
                    running_mean: Buffer::new(init::zeros([channels]))?,
                    running_var: Buffer::new(init::ones([channels]))?,
                    eps: 1e-5,
                    momentum: 0.1,
                })
            }

            /// With another ε.
            pub fn eps(mut self, eps: f64) -> Self {
                self.eps = eps;
                self
            }

            /// With another weight of the newest batch in the running statistics.
            pub fn momentum(mut self, momentum: f64) -> Self {
                self.momentum = momentum;
                self
            }

            /// Keeps weight and bias, or takes them away.
            pub fn affine(mut self, wanted: bool) -> Self {
                self.weight = self.weight.filter(|_| wanted);
                self.bias = self.bias.filter(|_| wanted);
                self
            }

            /// Stages the running statistics of a batch for the step that it belongs to.
            fn follow(&self, x: &Tensor, batch: &Statistics) -> Result<()> {
                no_grad(|| {
                    let count = x.numel() as f64 / x.shape()[1].max(1) as f64;
                    let unbiased = count / (count - 1.0).max(1.0);
                    let moved = |running: &Buffer, of_batch: &Tensor, scale: f64| {
                        let newest = of_batch.detach().reshape([-1]) * (scale * self.momentum);
                        running.stage(&(running.tensor() * (1.0 - self.momentum) + newest))
                    };
                    moved(&self.running_mean, &batch.mean, 1.0)?;
                    moved(&self.running_var, &batch.var, unbiased)
                })
            }
        }

        impl Forward for $name {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                let channels = self.running_mean.tensor().shape()[0];
                let fits = matches!(x.ndim(), $allowed) && x.shape()[1] == channels;
                if !fits {
                    let wanted = format!($wanted, channels);
                    return Tensor::refuse(stringify!($name), &[x], wanted);
                }
                let mut along = vec![1isize; x.ndim()];
                along[1] = -1;
                let per_channel = |t: Tensor| t.reshape(&along[..]);
                let Statistics { mean, var } = if is_training() {
                    let batch = of_batch(x);
                    if let Err(problem) = self.follow(x, &batch) {
                        return Tensor::refuse(stringify!($name), &[x], problem.to_string());
                    }
                    batch
                } else {
                    let (mean, var) = (self.running_mean.tensor(), self.running_var.tensor());
                    Statistics { mean: per_channel(mean), var: per_channel(var) }
                };
                let mut scale = (var + self.eps).rsqrt();
                if let Some(weight) = &self.weight {
                    scale = scale * per_channel(weight.tensor());
                }
                let y = (x - mean) * scale;
                match &self.bias {
                    Some(bias) => y + per_channel(bias.tensor()),
                    None => y,
                }
            }
        }
    )*};
}

batch_norms! {
    /// Normalises each channel over the batch while training, and by running statistics in evaluation.
    ///
    /// # Shapes
    /// `x: (N, channels)` or `(N, channels, L)` → the same
    /// # Formula
    /// See [`BatchNorm2d`].
    BatchNorm1d 2..=3, "(items, {0}) or (items, {0}, length) is needed";
    /// Normalises each channel over the batch while training, and by running statistics in evaluation.
    ///
    /// # Shapes
    /// `x: (N, channels, H, W)` → the same
    /// # Formula
    /// `y = (x − μ) / √(σ² + ε) · w + b` with μ and biased σ² of the channel over the batch. The running statistics are
    /// `(1 − m) · running + m · batch`, the variance there unbiased; they change with the optimizer's step. Ioffe &
    /// Szegedy 2015, arXiv:1502.03167.
    ///
    /// ```
    /// use tapeflow_nn::{BatchNorm2d, Forward, ModuleExt, Tensor};
    /// let (norm, x) = (BatchNorm2d::new(3)?, Tensor::randn([8, 3, 5, 5]) * 4.0 + 1.0);
    /// assert!(norm.train(|| norm.forward(&x)).mean().item::<f32>()?.abs() < 1e-5);
    /// let mean = norm.running_mean.tensor().mean().item::<f32>()?;
    /// assert!(0.0 < mean && mean < 0.3);
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    BatchNorm2d 4, "(items, {0}, height, width) is needed";
}
