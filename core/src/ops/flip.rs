//! Reversal of axes: a view with negative strides.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::Primitive;
use crate::compile::fuse::Lower;
use crate::compile::world::Vjp;
use crate::error::{Error, Problem};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::IntoAxes;

/// The elements of these axes in reverse order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flip {
    axes: SmallVec<[usize; 6]>,
}

impl Flip {
    pub fn of(axis: usize) -> Flip {
        Flip { axes: smallvec::smallvec![axis] }
    }
}

impl Primitive for Flip {
    fn name(&self) -> Cow<'static, str> {
        format!("flip {:?}", &self.axes[..]).into()
    }

    fn is_view(&self) -> bool {
        true
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let ty = cx.world.ty[cx.cotangent.index()].clone();
        let value = cx.world.push(self.clone(), &[cx.cotangent], ty);
        cx.contribute(0, value);
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let expr = cx.movable(0).flip(&self.axes);
        cx.defer(expr);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].gather_from(ty, |to, from| {
            from.copy_from_slice(to);
            self.axes.iter().for_each(|&a| from[a] = ty.shape[a] - 1 - to[a]);
        }))
    }
}

impl Tensor {
    /// The elements of `axes` in reverse order (`..`: of all axes); a view.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// let x = Tensor::from_vec(vec![1, 2, 3, 4], [2, 2]);
    /// assert_eq!(x.flip(1).to_vec::<i32>()?, [2, 1, 4, 3]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn flip(&self, axes: impl IntoAxes) -> Tensor {
        let site = Site::here();
        let made = match axes.into_axes() {
            None => Ok((0..self.ndim()).collect()),
            Some(written) => written.iter().map(|&a| self.shape().axis(a)).collect::<Result<SmallVec<_>, _>>(),
        };
        match made {
            Ok(mut axes) => {
                axes.sort_unstable();
                axes.dedup();
                Tensor::record_at(Flip { axes }, &[self], self.ty().clone(), site)
            }
            Err(problem) => Tensor::mistake_in(&[self], Error::new("flip", problem, site), self.ty().clone()),
        }
    }
}
