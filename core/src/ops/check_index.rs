//! The index itself, known to be in range: what compares with an index instead of gathering must check it first.

use std::borrow::Cow;

use super::{Flow, Primitive};
use crate::compile::fuse::Lower;
use crate::error::Problem;
use crate::program::kernel::{CheckIndex as Check, Kernel};
use crate::reference::Array;
use crate::tape::TensorType;

/// Identity; the run fails if an element lies outside `-extent..extent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CheckIndex {
    pub extent: usize,
}

impl Primitive for CheckIndex {
    fn name(&self) -> Cow<'static, str> {
        format!("check index < {}", self.extent).into()
    }

    fn flow(&self, _: usize, _: &[&TensorType]) -> Flow {
        Flow::Stops
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let check = Check { dtype: ty.dtype, count: ty.shape.numel(), extent: self.extent };
        let read = cx.stored(0);
        cx.emit_check(Kernel::CheckIndex(check), vec![read]);
        let expr = cx.expr(0)?;
        cx.defer(expr);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        inputs[0].check_index(self.extent)?;
        Ok(inputs[0].clone())
    }
}
