//! Loss scaling: keeps gradients in the short range of f16. Micikevicius et al. 2018, arXiv:1710.03740.
//!
//! Owns the factor, how it follows the gradients, and that a step with an infinite gradient changes nothing. Numbers
//! and rules are those of PyTorch's `GradScaler`.

use tapeflow_core::{DType, Gradients, Tensor};

use super::Optimizer;
use crate::error::{Error, Result};

/// An optimizer for losses that are scaled: the loss times a factor, so that no gradient is too small for f16; the
/// gradients by the factor again before the step.
///
/// A step with a gradient that is no finite number is skipped: parameters and state stay as they are, and the factor is
/// halved. After 2000 good steps in a row it is doubled. It begins at 65536.
///
/// # Example
/// ```
/// use tapeflow_nn::{AdamW, DType, Forward, Linear, LossScaler, Optimizer, Precision, Tensor};
/// let model = Linear::new(3, 1)?;
/// let mut optimizer = LossScaler::new(AdamW::new(&model)).initial_scale(1024.0);
/// let loss = Precision::F16.scope(|| model.forward(&Tensor::ones([4, 3], DType::F32)).square().mean());
/// optimizer.step(optimizer.scale(&loss).backward()?)?;
/// assert_eq!((optimizer.loss_scale(), optimizer.steps(), optimizer.skipped()), (1024.0, 1, 0));
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct LossScaler<O> {
    optimizer: O,
    scale: f64,
    growth_interval: u64,
    /// Good steps since the factor last changed.
    good: u64,
    skipped: u64,
}

const SCALE: &str = "loss_scale";
const GOOD: &str = "good_steps";
/// Beyond this, losses themselves would soon be infinite.
const LARGEST: f64 = (1u64 << 60) as f64;

impl<O: Optimizer> LossScaler<O> {
    /// Around an optimizer, beginning with the factor 65536.
    pub fn new(optimizer: O) -> Self {
        LossScaler { optimizer, scale: 65536.0, growth_interval: 2000, good: 0, skipped: 0 }
    }

    /// With another factor to begin with; a power of two loses no digit.
    pub fn initial_scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// With another number of good steps in a row after which the factor is doubled.
    pub fn growth_interval(mut self, steps: u64) -> Self {
        self.growth_interval = steps;
        self
    }

    /// The loss times the factor, to ask the gradients of.
    #[track_caller]
    pub fn scale(&self, loss: &Tensor) -> Tensor {
        loss * self.scale
    }

    /// How many steps were skipped since this was made.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The optimizer itself.
    pub fn inner(&self) -> &O {
        &self.optimizer
    }
}

/// Whether every element is a finite number. Computes the gradients, which stay.
fn are_finite(gradients: &Gradients) -> Result<bool> {
    // 0 · x is 0 of every finite number, and NaN of others.
    let probe = |(_, g): (String, &Tensor)| {
        let wide = if g.dtype() == DType::F64 { g.clone() } else { g.cast(DType::F32) };
        (wide * 0.0).sum().cast(DType::F32)
    };
    let probes: Vec<Tensor> = gradients.iter().map(probe).collect();
    let Some(first) = probes.first() else { return Ok(true) };
    let together: Vec<Tensor> = probes.iter().map(|p| p.to(first.device()).reshape([1])).collect();
    Ok(Tensor::cat(&together, 0).sum().item::<f32>()? == 0.0)
}

impl<O: Optimizer> Optimizer for LossScaler<O> {
    /// Takes one step with the gradients of the scaled loss, or skips it.
    fn step(&mut self, gradients: Gradients) -> Result<()> {
        let gradients = gradients.scale(1.0 / self.scale);
        if !are_finite(&gradients)? {
            (self.scale, self.good, self.skipped) = (self.scale / 2.0, 0, self.skipped + 1);
            return Ok(());
        }
        self.optimizer.step(gradients)?;
        self.good += 1;
        if self.good >= self.growth_interval {
            (self.scale, self.good) = ((self.scale * 2.0).min(LARGEST), 0);
        }
        Ok(())
    }

    fn loss_scale(&self) -> f64 {
        self.scale
    }

    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.optimizer.set_learning_rate(learning_rate);
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.optimizer.state()
    }

    fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// The optimizer's, with `loss_scale` and `good_steps`.
    fn state_dict(&self) -> Vec<(String, Tensor)> {
        let own = [(SCALE, Tensor::scalar(self.scale)), (GOOD, Tensor::scalar(self.good as i64))];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.optimizer.state_dict().into_iter().chain(own).collect()
    }

    fn load_state_dict(&mut self, mut state: Vec<(String, Tensor)>, source_name: &str) -> Result<()> {
        let mut take = |name: &str, dtype: DType| {
            let at = state.iter().position(|(other, t)| other == name && t.dtype() == dtype && t.numel() == 1);
            at.map(|at| state.swap_remove(at).1).ok_or_else(|| Error::CheckpointMismatch {
                source_name: source_name.to_owned(),
                missing: vec![name.to_owned()],
                unexpected: Vec::new(),
                unlike: Vec::new(),
            })
        };
        let scale = take(SCALE, DType::F64)?.item::<f64>()?;
        let good = take(GOOD, DType::I64)?.item::<i64>()?;
        self.optimizer.load_state_dict(state, source_name)?;
        (self.scale, self.good) = (scale, good.max(0) as u64);
        Ok(())
    }
}
