//! Sorting: the order of elements along an axis, and what is picked by it.

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

/// For each rank along the last axis the index of the element that has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ArgSort {
    descending: bool,
}

impl Primitive for ArgSort {
    fn name(&self) -> Cow<'static, str> {
        if self.descending { "argsort descending".into() } else { "argsort".into() }
    }

    /// As an index, the order depends on the values by steps.
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
        let length = ty.shape.last().copied().unwrap_or(1);
        let rows = ty.shape.numel() / length.max(1);
        let read = cx.stored(0);
        let sort = kernel::ArgSort { dtype: ty.dtype, descending: self.descending, rows, length };
        cx.emit(Kernel::ArgSort(sort), vec![read]);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].arg_sort(self.descending, ty))
    }
}

impl Tensor {
    /// The indices (i64) that sort `axis`: equal elements keep their order, a NaN counts as largest, as in NumPy.
    #[track_caller]
    pub fn argsort(&self, axis: isize, descending: bool) -> Tensor {
        let site = Site::here();
        let ty = TensorType { dtype: DType::I64, ..self.ty().clone() };
        let axis = match self.shape().axis(axis) {
            Ok(axis) => axis,
            Err(problem) => return Tensor::mistake_in(&[self], Error::new("argsort", problem, site), ty),
        };
        let order = |x: &Tensor| {
            let ty = TensorType { dtype: DType::I64, ..x.ty().clone() };
            Tensor::record_at(ArgSort { descending }, &[&x.detach()], ty, site)
        };
        match axis + 1 == self.ndim() {
            true => order(self),
            false => order(&self.transpose(axis as isize, -1)).transpose(axis as isize, -1),
        }
    }

    /// The elements of `axis` in order, and the indices (i64) they had; PyTorch's `sort` with `stable`.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// let (values, indices) = Tensor::from_vec(vec![2.0f32, 3.0, 1.0], [3]).sort(0, true);
    /// assert_eq!(values.to_vec::<f32>()?, [3.0, 2.0, 1.0]);
    /// assert_eq!(indices.to_vec::<i64>()?, [1, 0, 2]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn sort(&self, axis: isize, descending: bool) -> (Tensor, Tensor) {
        let indices = self.argsort(axis, descending);
        (self.gather(axis, &indices), indices)
    }

    /// The `k` largest (or smallest) elements of `axis` in order, and the indices (i64) they had.
    ///
    /// # Errors
    /// A `k` beyond the axis.
    #[track_caller]
    pub fn topk(&self, k: usize, axis: isize, largest: bool) -> (Tensor, Tensor) {
        let site = Site::here();
        let beyond = self.shape().axis(axis).and_then(|a| match self.shape()[a] {
            extent if k > extent => {
                let why = format!("the {k} first of axis {a} of {} are asked for, which has {extent}", self.shape());
                Err(Problem::Argument(why.into()))
            }
            _ => Ok(()),
        });
        if let Err(problem) = beyond {
            let mistake = |ty| Tensor::mistake_in(&[self], Error::new("topk", problem.clone(), site), ty);
            let ty = TensorType { dtype: DType::I64, ..self.ty().clone() };
            return (mistake(self.ty().clone()), mistake(ty));
        }
        let indices = self.argsort(axis, largest).slice(axis, ..k);
        (self.gather(axis, &indices), indices)
    }
}
