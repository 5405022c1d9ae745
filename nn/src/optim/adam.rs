//! Adam (Kingma & Ba 2015, arXiv:1412.6980) and AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), as PyTorch computes
//! them: bias corrections on the host, ε outside the root.

// The kernel's arguments are the rule's quantities, each by its name.
#![allow(clippy::too_many_arguments)]

use smallvec::smallvec;
use tapeflow_core::Gradients;
use tapeflow_macros::kernel;

use super::roster::{Present, Roster, Settings, shared_methods};
use crate::error::Result;
use crate::module::Module;

/// The update of both; Adam adds `decay · p` to the gradient, AdamW multiplies p by `keep`.
///
/// # Formula
/// `g' = g + decay · p`; `m' = m + (g' − m)(1 − β₁)`; `v' = β₂ v + (1 − β₂) g'²`;
/// `p' = keep · p − rate · m' / (√v' / root + ε)` with `rate = η / (1 − β₁ᵗ)` and `root = √(1 − β₂ᵗ)`.
#[kernel]
fn adam(
    p: f32,
    g: f32,
    m: f32,
    v: f32,
    decay: f32,
    keep: f32,
    one_less_beta1: f32,
    beta2: f32,
    one_less_beta2: f32,
    rate: f32,
    root: f32,
    eps: f32,
) -> (f32, f32, f32) {
    let g = g + decay * p;
    let m = m + (g - m) * one_less_beta1;
    let v = v * beta2 + one_less_beta2 * g * g;
    let p = keep * p - rate * m / (v.sqrt() / root + eps);
    (p, m, v)
}

/// The numbers of [`adam`]'s scalars, in their order.
fn scalars(settings: &Settings, betas: (f64, f64), eps: f64, decoupled: bool) -> [f64; 8] {
    let Settings { learning_rate, weight_decay, step, .. } = *settings;
    let (beta1, beta2) = betas;
    // Steps beyond i32 would have corrections of exactly 1 anyway.
    let exponent = i32::try_from(step).unwrap_or(i32::MAX);
    let (decay, keep) = if decoupled { (0.0, 1.0 - learning_rate * weight_decay) } else { (weight_decay, 1.0) };
    let rate = learning_rate / (1.0 - beta1.powi(exponent));
    let root = (1.0 - beta2.powi(exponent)).sqrt();
    [decay, keep, 1.0 - beta1, beta2, 1.0 - beta2, rate, root, eps]
}

macro_rules! adams {
    ($($(#[$doc:meta])* $name:ident weight_decay $weight_decay:literal decoupled $decoupled:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            roster: Roster,
            betas: (f64, f64),
            eps: f64,
        }

        impl $name {
            /// Over the parameters of a module, with PyTorch's defaults.
            pub fn new(module: &(impl Module + ?Sized)) -> Self {
                let roster = Roster::new(module, &["exp_avg", "exp_avg_sq"], 1e-3, $weight_decay);
                $name { roster, betas: (0.9, 0.999), eps: 1e-8 }
            }

            /// With these decay rates of the two averages.
            pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
                self.betas = (beta1, beta2);
                self
            }

            /// With this ε, in the units of the gradient.
            pub fn eps(mut self, eps: f64) -> Self {
                self.eps = eps;
                self
            }

            fn take_step(&mut self, gradients: Gradients) -> Result<()> {
                let (betas, eps) = (self.betas, self.eps);
                self.roster.step(
                    gradients,
                    move |settings| scalars(settings, betas, eps, $decoupled),
                    |Present { parameter, gradient, state, scalars: [a, b, c, d, e, f, g, h] }| {
                        let (p, m, v) = adam::map(parameter, gradient, &state[0], &state[1], a, b, c, d, e, f, g, h);
                        (p, smallvec![m, v])
                    },
                )
            }
        }

        shared_methods!($name);
    )*};
}

adams! {
    /// Adam; weight decay, if any, is added to the gradient (L2).
    ///
    /// # Formula
    /// `p ← p − η / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)`, with `m` and `v` the moving averages of g and g²
    /// (Kingma & Ba 2015, arXiv:1412.6980). Defaults: η 1e-3, β 0.9 and 0.999, ε 1e-8, no weight decay.
    Adam weight_decay 0.0 decoupled false;
    /// AdamW: Adam with weight decay apart from the gradient.
    ///
    /// # Formula
    /// `p ← (1 − η λ) p`, then as [`Adam`] (Loshchilov & Hutter 2019, arXiv:1711.05101). Defaults: η 1e-3, β 0.9 and
    /// 0.999, ε 1e-8, λ 0.01.
    ///
    /// ```
    /// use tapeflow_nn::{AdamW, Forward, Linear, Optimizer, Tensor, DType};
    /// let layer = Linear::new(3, 1)?;
    /// let mut optimizer = AdamW::new(&layer).learning_rate(0.1).group("bias", |g| g.weight_decay(0.0));
    /// let loss = layer.forward(&Tensor::ones([4, 3], DType::F32)).square().mean();
    /// optimizer.step(loss.backward()?)?;
    /// assert_eq!(optimizer.steps(), 1);
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    AdamW weight_decay 0.01 decoupled true;
}
