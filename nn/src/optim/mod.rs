//! Optimizers: from gradients to new versions of the parameters.
//!
//! Each rule is one `#[kernel]`, applied to every parameter in the same step; what all rules share (groups, state by
//! name, the transaction) stands in `roster`. A step either replaces every parameter and all state, or, if it fails,
//! nothing.

mod adam;
mod loss_scaler;
mod roster;
mod sgd;
#[cfg(test)]
mod tests;

pub use adam::{Adam, AdamW};
pub use loss_scaler::LossScaler;
pub use roster::Group;
pub use sgd::Sgd;

use tapeflow_core::{Gradients, Tensor};

use crate::error::Result;

/// Something that turns gradients into new versions of the parameters it was given.
pub trait Optimizer {
    /// Takes one step. Parameters without a gradient, frozen ones among them, stay as they are; gradients of parameters
    /// that are not this optimizer's are passed over.
    ///
    /// # Errors
    /// Any mistake or failure of the forward or backward pass or of the step itself; parameters, state and step count
    /// are then as they were before.
    fn step(&mut self, gradients: Gradients) -> Result<()>;

    /// By what the loss is multiplied before its gradients are asked for, which a step divides by again; see
    /// [`LossScaler`].
    fn loss_scale(&self) -> f64 {
        1.0
    }

    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate of the next steps, as a schedule gives it.
    fn set_learning_rate(&mut self, learning_rate: f64);

    /// The state by name, `h.0.ln_1.weight.exp_avg`, for the parameters that were updated so far.
    fn state(&self) -> Vec<(String, Tensor)>;

    /// How many steps were taken.
    fn steps(&self) -> u64;

    /// Everything that the next steps depend on but settings: the [`state`](Optimizer::state), for each parameter that
    /// was updated its number of steps, `h.0.ln_1.weight.step`, and the number of all steps, `steps`.
    fn state_dict(&self) -> Vec<(String, Tensor)>;

    /// Goes on from a [`state_dict`](Optimizer::state_dict); all of it, or nothing. `source_name` is what an error
    /// calls the state.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`](crate::Error::CheckpointMismatch) listing every name that is missing, unexpected,
    /// or of another shape or dtype.
    fn load_state_dict(&mut self, state: Vec<(String, Tensor)>, source_name: &str) -> Result<()>;
}
