//! Stochastic gradient descent with momentum, as PyTorch computes it.

use smallvec::smallvec;
use tapeflow_core::Gradients;
use tapeflow_macros::kernel;

use super::roster::{Present, Roster, shared_methods};
use crate::error::Result;
use crate::module::Module;

/// Without momentum.
#[kernel]
fn plain(p: f32, g: f32, decay: f32, rate: f32) -> f32 {
    p - rate * (g + decay * p)
}

/// With momentum: `b` is the velocity, `share` what a gradient adds to it.
#[kernel]
fn momentum(p: f32, g: f32, b: f32, decay: f32, mu: f32, share: f32, rate: f32) -> (f32, f32) {
    let b = mu * b + share * (g + decay * p);
    (p - rate * b, b)
}

/// With Nesterov's momentum.
#[kernel]
fn nesterov(p: f32, g: f32, b: f32, decay: f32, mu: f32, share: f32, rate: f32) -> (f32, f32) {
    let g = g + decay * p;
    let b = mu * b + share * g;
    (p - rate * (g + mu * b), b)
}

/// Stochastic gradient descent, with momentum (plain or Nesterov's) and weight decay if wanted.
///
/// # Formula
/// `g ← g + λ p`; `b ← μ b + (1 − τ) g`, at the first step `b ← g`; then `p ← p − η b`, or with Nesterov
/// `p ← p − η (g + μ b)`. Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning",
/// in PyTorch's form. Defaults: η 1e-3, μ, τ, λ 0.
///
/// ```
/// use tapeflow_nn::{Forward, Linear, Optimizer, Sgd, Tensor, DType};
/// let layer = Linear::new(2, 1)?.bias(false);
/// let before = layer.weight.tensor();
/// let mut optimizer = Sgd::new(&layer).learning_rate(0.5);
/// optimizer.step(layer.forward(&Tensor::ones([1, 2], DType::F32)).sum().backward()?)?;
/// let moved = (layer.weight.tensor() - before).to_vec::<f32>()?;
/// assert!(moved.iter().all(|d| (d + 0.5).abs() < 1e-6));
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct Sgd {
    roster: Roster,
    momentum: f64,
    dampening: f64,
    nesterov: bool,
}

impl Sgd {
    /// Over the parameters of a module, without momentum and weight decay.
    pub fn new(module: &(impl Module + ?Sized)) -> Self {
        Sgd { roster: Roster::new(module, &[], 1e-3, 0.0), momentum: 0.0, dampening: 0.0, nesterov: false }
    }

    /// With momentum μ.
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        // Without momentum there is no velocity to keep.
        self.roster.names = if momentum == 0.0 { &[] } else { &["momentum_buffer"] };
        self
    }

    /// With dampening τ: gradients after the first enter the velocity scaled by 1 − τ.
    pub fn dampening(mut self, dampening: f64) -> Self {
        self.dampening = dampening;
        self
    }

    /// With Nesterov's form of momentum, or without.
    pub fn nesterov(mut self, nesterov: bool) -> Self {
        self.nesterov = nesterov;
        self
    }

    fn take_step(&mut self, gradients: Gradients) -> Result<()> {
        let (mu, dampening, with_nesterov) = (self.momentum, self.dampening, self.nesterov);
        self.roster.step(
            gradients,
            move |s| [s.weight_decay, mu, if s.step == 1 { 1.0 } else { 1.0 - dampening }, s.learning_rate],
            |Present { parameter: p, gradient: g, state, scalars: [decay, m, share, rate] }| {
                let Some(b) = state.first() else {
                    return (plain::map(p, g, decay, rate), smallvec![]);
                };
                let (p, b) = if with_nesterov {
                    nesterov::map(p, g, b, decay, m, share, rate)
                } else {
                    momentum::map(p, g, b, decay, m, share, rate)
                };
                (p, smallvec![b])
            },
        )
    }
}

shared_methods!(Sgd);
