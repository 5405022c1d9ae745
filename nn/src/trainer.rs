//! The training loop, as thin as it can be: batch, loss, gradients, clip, step.
//!
//! Owns the order of these and the learning rate of each step; what is printed, evaluated and saved is the caller's,
//! who is called after every step and may end the run.

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
    /// The first of a batch that could not be made, a mistake in the loss, a failure of the step, or an error of
    /// `after`.
    pub fn run<B>(
        &self,
        model: &impl Module,
        optimizer: &mut dyn Optimizer,
        batches: impl IntoIterator<Item = Result<B>>,
        loss: impl Fn(&B) -> Tensor,
        mut after: impl FnMut(&Step) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.run_with(model, optimizer, batches, loss, |step, _| after(step))
    }

    /// As [`run`](Trainer::run), for an `after` that looks at the optimizer too, such as one that saves checkpoints.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_with<B>(
        &self,
        model: &impl Module,
        optimizer: &mut dyn Optimizer,
        batches: impl IntoIterator<Item = Result<B>>,
        loss: impl Fn(&B) -> Tensor,
        mut after: impl FnMut(&Step, &dyn Optimizer) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        for (step, batch) in self.steps.clone().zip(batches) {
            let batch = batch?;
            let loss = model.train(|| loss(&batch));
            let scale = optimizer.loss_scale();
            let mut gradients = if scale == 1.0 { loss.backward()? } else { (&loss * scale).backward()? };
            if self.grad_clip > 0.0 && self.grad_clip.is_finite() {
                gradients = gradients.clip_norm(self.grad_clip * scale).0;
            }
            let learning_rate = self.schedule.at(step);
            optimizer.set_learning_rate(learning_rate);
            optimizer.step(gradients)?;
            if after(&Step { step, learning_rate, loss }, optimizer)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::module::Forward;
    use crate::schedule::WarmupCosine;
    use crate::{Linear, Sgd};

    fn run(steps: Range<u64>, grad_clip: f64, stop_at: u64) -> Result<(Vec<f32>, Vec<f64>, u64)> {
        let model = Linear::from_tensors(Tensor::from_vec(vec![3.0f32, -2.0], [1, 2]), None)?;
        let mut optimizer = Sgd::new(&model);
        let schedule = WarmupCosine { learning_rate: 0.4, min_lr: 0.1, warmup_steps: 2, decay_steps: 20 };
        let trainer = Trainer { steps: steps.clone(), schedule: &schedule, grad_clip };
        let batches = steps.map(|step| match step {
            30 => Err(Error::Configuration("no batch".into())),
            _ => Ok(Tensor::from_vec(vec![1.0f32, 0.0, 0.0, 1.0], [2, 2])),
        });
        let (mut losses, mut rates) = (Vec::new(), Vec::new());
        trainer.run(
            &model,
            &mut optimizer,
            batches,
            |x| model.forward(x).square().mean(),
            |step| {
                losses.push(step.loss.item::<f32>()?);
                rates.push(step.learning_rate);
                Ok(if step.step == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            },
        )?;
        Ok((losses, rates, optimizer.steps()))
    }

    #[test]
    fn the_loss_falls_at_the_schedules_rates_until_it_is_told_to_stop() -> Result<()> {
        let (losses, rates, taken) = run(0..20, 0.0, 9)?;
        assert_eq!((losses.len(), taken), (10, 10));
        assert_eq!(losses[0], 6.5);
        assert!(losses.windows(2).all(|w| w[1] < w[0]) && losses[9] < 0.1, "{losses:?}");
        let schedule = WarmupCosine { learning_rate: 0.4, min_lr: 0.1, warmup_steps: 2, decay_steps: 20 };
        assert_eq!(rates, (0..10).map(|s| schedule.at(s)).collect::<Vec<f64>>());
        Ok(())
    }

    #[test]
    fn clipping_bounds_how_far_a_step_goes() -> Result<()> {
        // A step of at most rate · clip: the loss barely moves.
        let (losses, ..) = run(0..3, 1e-3, 9)?;
        assert!((losses[2] - 6.5).abs() < 0.01 && losses[2] < 6.5, "{losses:?}");
        Ok(())
    }

    #[test]
    fn a_batch_that_cannot_be_made_ends_the_run_with_its_error() {
        assert!(run(28..40, 0.0, 99).unwrap_err().to_string().contains("no batch"));
    }
}
