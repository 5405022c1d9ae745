//! The operand, once another value is there: what recomputation is built on.

use std::borrow::Cow;

use super::{Flow, Primitive};
use crate::compile::fuse::{Expr, ExprSource, Lower};
use crate::compile::world::Vjp;
use crate::error::Problem;
use crate::program::kernel::Dims;
use crate::reference::Array;
use crate::tape::TensorType;

/// Input 0; what depends on it is another node than what depends on input 0 itself, and comes after input 1.
///
/// It costs nothing: input 0 lies in memory and is read there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Barrier;

impl Primitive for Barrier {
    fn name(&self) -> Cow<'static, str> {
        "barrier".into()
    }

    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        if input == 0 { Flow::Carries } else { Flow::Stops }
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let cotangent = cx.cotangent;
        cx.contribute(0, cotangent);
    }

    /// What it was made of must not be needed instead of it.
    fn reads_memory(&self) -> bool {
        true
    }

    fn is_view(&self) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let (id, layout) = cx.strided(0);
        cx.defer(Expr::source(ty.dtype, Dims::from_slice(&ty.shape), ExprSource::Node { id, layout }));
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].clone())
    }
}
