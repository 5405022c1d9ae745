//! Running sums along an axis.

use std::borrow::Cow;

use super::Primitive;
use super::flip::Flip;
use crate::compile::fuse::Lower;
use crate::compile::world::Vjp;
use crate::error::{Error, Problem};
use crate::program::kernel::{self, Kernel};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;

/// Sums up to and including each element of the last axis, added in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CumSum;

impl Primitive for CumSum {
    fn name(&self) -> Cow<'static, str> {
        "cumsum".into()
    }

    /// The cotangents' sums from the other end.
    fn vjp(&self, cx: &mut Vjp<'_>) {
        let ty = cx.world.ty[cx.cotangent.index()].clone();
        let last = Flip::of(ty.shape.len() - 1);
        let turned = cx.world.push(last.clone(), &[cx.cotangent], ty.clone());
        let summed = cx.world.push(CumSum, &[turned], ty.clone());
        let value = cx.world.push(last, &[summed], ty);
        cx.contribute(0, value);
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn widens(&self, _: bool) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let length = ty.shape.last().copied().unwrap_or(1);
        let rows = ty.shape.numel() / length.max(1);
        let read = cx.stored(0);
        cx.emit(Kernel::CumSum(kernel::CumSum { dtype: ty.dtype, rows, length }), vec![read]);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].cum_sum(ty))
    }
}

impl Tensor {
    /// Sums up to and including each element of `axis`, added in order; integers wrap.
    ///
    /// # Errors
    /// Of bools: `cast` them.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// assert_eq!(Tensor::from_vec(vec![1, 2, 3], [3]).cumsum(0).to_vec::<i32>()?, [1, 3, 6]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn cumsum(&self, axis: isize) -> Tensor {
        let site = Site::here();
        let ty = self.ty().clone();
        let checked = self.shape().axis(axis).and_then(|axis| match ty.dtype.is_float() || ty.dtype.is_int() {
            true => Ok(axis),
            false => Err(Problem::DType { found: ty.dtype, wanted: "numbers".into() }),
        });
        match checked {
            Ok(axis) if axis + 1 == self.ndim() => Tensor::record_at(CumSum, &[self], ty, site),
            Ok(axis) => {
                let turned = self.transpose(axis as isize, -1);
                let ty = turned.ty().clone();
                Tensor::record_at(CumSum, &[&turned], ty, site).transpose(axis as isize, -1)
            }
            Err(problem) => Tensor::mistake_in(&[self], Error::new("cumsum", problem, site), ty),
        }
    }
}
