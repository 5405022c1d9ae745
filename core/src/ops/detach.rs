//! `detach`: the operand with no derivative.

use std::borrow::Cow;

use super::{Flow, Primitive};
use crate::compile::fuse::Lower;
use crate::error::Problem;
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tensor::Tensor;

/// The operand; no cotangent passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Detach;

impl Primitive for Detach {
    fn name(&self) -> Cow<'static, str> {
        "detach".into()
    }

    fn flow(&self, _: usize, _: &[&TensorType]) -> Flow {
        Flow::Stops
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let expr = cx.expr(0)?;
        cx.defer(expr);
        Ok(())
    }

    fn is_view(&self) -> bool {
        true
    }

    fn evaluate(&self, inputs: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].clone())
    }
}

impl Tensor {
    /// The same values, through which no gradient flows.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::{Tensor, grad};
    /// let x = Tensor::scalar(3.0f32);
    /// let y = &x * &x.detach();
    /// assert_eq!(grad(&y, &[&x])?[0].item::<f32>()?, 3.0); // not 6
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn detach(&self) -> Tensor {
        Tensor::record(Detach, &[self], self.ty().clone())
    }
}
