//! Modules that map a tensor to a tensor, and the backward side of one in isolation.

use tapeflow_core::{Gradients, Tensor};

use super::Module;
use crate::error::Result;

/// Something that maps a tensor to a tensor.
///
/// Recording cannot fail: a mistake flows to the first `?` after it.
pub trait Forward {
    /// Records the forward pass.
    fn forward(&self, x: &Tensor) -> Tensor;

    /// The backward side in isolation: from a cotangent of the output to those of the input and of the parameters.
    ///
    /// # Shapes
    /// `cotangent` has the shape of `forward(x)`; the input's cotangent has the shape of `x`.
    /// # Errors
    /// A mistake in the forward pass; a cotangent of another shape; an operation on the way that has no derivative.
    #[track_caller]
    fn vjp(&self, x: &Tensor, cotangent: &Tensor) -> Result<Vjp> {
        let (mut inputs, output, parameters) = isolate(&[x], cotangent, |inputs| self.forward(&inputs[0]))?;
        Ok(Vjp { output, input: inputs.swap_remove(0), parameters })
    }
}

/// What [`Forward::vjp`] gives.
#[derive(Debug)]
pub struct Vjp {
    /// The output of the forward pass.
    pub output: Tensor,
    /// The cotangent of the input; zeros if the output does not depend on it.
    pub input: Tensor,
    /// The gradients of the module's parameters.
    pub parameters: Gradients,
}

/// A module that maps a tensor to a tensor and may be used from any thread: what [`Sequential`](crate::Sequential)
/// holds.
pub trait Layer: Module + Forward + Send + Sync {}

impl<L: Module + Forward + Send + Sync + ?Sized> Layer for L {}

/// Runs `forward` on leaves of its own in the place of `inputs`, and its backward side from `cotangent`: the inputs'
/// cotangents, the output, and the gradients of all parameters reached. Inputs that cannot have a cotangent, or are not
/// reached, get zeros.
#[track_caller]
pub(crate) fn isolate(
    inputs: &[&Tensor],
    cotangent: &Tensor,
    forward: impl FnOnce(&[Tensor]) -> Tensor,
) -> Result<(Vec<Tensor>, Tensor, Gradients)> {
    let leaf = |x: &&Tensor| if x.dtype().is_float() { x.with_grad() } else { Ok(x.detach()) };
    let leaves = inputs.iter().map(leaf).collect::<Result<Vec<Tensor>, _>>()?;
    let output = forward(&leaves);
    let mut gradients = output.backward_with(cotangent)?;
    let cotangents = leaves.iter().map(|x| gradients.take(x).unwrap_or_else(|| x.zeros_like())).collect();
    Ok((cotangents, output.detach(), gradients))
}
