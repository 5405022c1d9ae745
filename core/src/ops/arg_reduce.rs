//! argmax and argmin.

use std::borrow::Cow;

use tapeflow_ir::DType;

use super::{Flow, Primitive};
use crate::compile::fuse::Lower;
use crate::error::{Error, Problem};
use crate::program::kernel::{self, Kernel};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// The index of the first extreme along the last axis, which is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ArgReduce {
    max: bool,
}

impl Primitive for ArgReduce {
    fn name(&self) -> Cow<'static, str> {
        if self.max { "argmax".into() } else { "argmin".into() }
    }

    /// The index depends on the values, but by steps: a cotangent that reaches it is a mistake of the caller.
    fn flow(&self, _: usize, _: &[&TensorType]) -> Flow {
        Flow::Severed
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn widens(&self, _: bool) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.input_ty(0).clone();
        let length = ty.shape[ty.shape.len() - 1];
        let rows = ty.shape.numel() / length;
        let read = cx.stored(0);
        cx.emit(Kernel::ArgReduce(kernel::ArgReduce { dtype: ty.dtype, max: self.max, rows, length }), vec![read]);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].arg_reduce(self.max, ty))
    }
}

impl Tensor {
    #[track_caller]
    fn arg_reduce(&self, name: &'static str, max: bool, axis: isize, keepdim: bool) -> Tensor {
        let site = Site::here();
        let ty = TensorType { dtype: DType::I64, ..self.ty().clone() };
        let checked = self.shape().axis(axis).and_then(|axis| match self.shape()[axis] {
            0 => {
                Err(Problem::Argument(format!("axis {axis} of {} has no elements to choose from", self.shape()).into()))
            }
            _ => Ok(axis),
        });
        let axis = match checked {
            Ok(axis) => axis,
            Err(problem) => return Tensor::mistake_in(&[self], Error::new(name, problem, site), ty),
        };
        let last = if axis + 1 == self.ndim() { self.clone() } else { self.transpose(axis as isize, -1) };
        let shape = Shape::from(&last.shape()[..self.ndim() - 1]);
        let found = Tensor::record_at(ArgReduce { max }, &[&last], TensorType { shape, ..ty }, site);
        let kept = found.unsqueeze(-1);
        let kept = if axis + 1 == self.ndim() { kept } else { kept.transpose(axis as isize, -1) };
        if keepdim { kept } else { kept.squeeze(axis as isize) }
    }

    /// The index (i64) of the largest element along `axis`, the first of equals; a NaN counts as largest, as in NumPy.
    #[track_caller]
    pub fn argmax(&self, axis: isize, keepdim: bool) -> Tensor {
        self.arg_reduce("argmax", true, axis, keepdim)
    }

    /// The index (i64) of the smallest element along `axis`, the first of equals; a NaN counts as smallest.
    #[track_caller]
    pub fn argmin(&self, axis: isize, keepdim: bool) -> Tensor {
        self.arg_reduce("argmin", false, axis, keepdim)
    }
}
