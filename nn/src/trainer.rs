//! The training loop, as thin as it can be: batch, loss, gradients, clip, step.
//!
//! Owns the order of these and the learning rate of each step; what is printed, evaluated and saved is the caller's, who is
//! called after every step and may end the run.

use std::ops::{ControlFlow, Range};

use tapeflow_core::Tensor;

use crate::error::Result;
use crate::module::{Module, ModuleExt};
use crate::optim::Optimizer;
use crate::schedule::Schedule;

/// How to train: which steps, at which rates, with which bound on the gradient.
pub struct Trainer<'a> {
    /// The steps to take, counted from 0; a continued run begins later.
    pub steps: Range<u64>,
    /// The learning rate of each step.
    pub schedule: &'a dyn Schedule,
    /// The largest global norm of the gradients; none if it is not finite or not positive.
    pub grad_clip: f64,
}

/// What one step did.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which step, counted from 0.
    pub step: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// The loss of its batch, before the update.
    pub loss: Tensor,
}

impl Trainer<'_> {
    /// Takes the steps: one batch each, `loss` in training mode, and `after` when the step is taken.
    ///
    /// # Errors
    /// The first of a batch that could not be made, a mistake in the loss, a failure of the step, or an error of `after`.
    pub fn run<B>(
        &self,
        model: &impl Module,
        optimizer: &mut dyn Optimizer,
        batches: impl IntoIterator<Item = Result<B>>,
        loss: impl Fn(&B) -> Tensor,
        mut after: impl FnMut(&Step) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        for (step, batch) in self.steps.clone().zip(batches) {
            let batch = batch?;
            let loss = model.train(|| loss(&batch));
            let mut gradients = loss.backward()?;
            if self.grad_clip > 0.0 && self.grad_clip.is_finite() {
                gradients = gradients.clip_norm(self.grad_clip).0;
            }
            let learning_rate = self.schedule.at(step);
            optimizer.set_learning_rate(learning_rate);
            optimizer.step(gradients)?;
            if after(&Step { step, learning_rate, loss })?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
