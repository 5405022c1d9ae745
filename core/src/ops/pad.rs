//! Padding: the operand placed among zeros. Also the transpose of a slice.

use std::borrow::Cow;

use smallvec::smallvec;

use super::Primitive;
use super::movement::{Cut, Cuts, Movement};
use super::source::constant_fn;
use crate::compile::fuse::{Expr, Lower};
use crate::compile::world::Vjp;
use crate::error::{Error, Problem};
use crate::program::kernel::{Dims, Layout};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// Element `i` of each axis goes to where a slice by the cut would take it from; the rest is zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pad {
    pub cuts: Cuts,
}

impl Primitive for Pad {
    fn name(&self) -> Cow<'static, str> {
        format!("pad {:?}", self.cuts).into()
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let ty = cx.world.ty[cx.inputs[0].index()].clone();
        let value = cx.world.push(Movement::Slice(self.cuts.clone()), &[cx.cotangent], ty);
        cx.contribute(0, value);
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let dims = Dims::from_slice(&ty.shape);
        let whole = Layout::contiguous(&dims);
        let zeros = Expr::new(dims, constant_fn(ty.dtype, 0.0), Vec::new());
        let expr = cx.movable(0);
        cx.store_part(zeros, whole.clone());
        cx.store_part(expr, whole.slice(&self.cuts));
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, arguments: &[u64]) -> Result<Array, Problem> {
        let mut out = Array::fill(ty, 0.0);
        inputs[0].scatter_into(&mut out, |from, to| {
            for (a, cut) in self.cuts.iter().enumerate() {
                to[a] = cut.place(from[a], arguments);
            }
        });
        Ok(out)
    }
}

impl Tensor {
    /// Adds zeros around: one `(before, after)` per axis, as NumPy's `pad` with constant 0.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0], [2]).pad(&[(1, 2)]);
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 1.0, 2.0, 0.0, 0.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn pad(&self, widths: &[(usize, usize)]) -> Tensor {
        let site = Site::here();
        if widths.len() != self.ndim() {
            let rule = format!("one pair per axis is needed, not {}", widths.len()).into();
            let problem = Problem::Shapes { shapes: vec![self.shape().clone()], rule };
            return Tensor::mistake_in(&[self], Error::new("pad", problem, site), self.ty().clone());
        }
        let mut cuts: Cuts = smallvec![Cut::WHOLE; self.ndim()];
        let mut dims = self.shape().0.clone();
        for (axis, &(before, after)) in widths.iter().enumerate() {
            cuts[axis] = Cut::fixed(before);
            dims[axis] = dims[axis].saturating_add(before).saturating_add(after);
        }
        let ty = TensorType { shape: Shape(dims), ..self.ty().clone() };
        Tensor::record_at(Pad { cuts }, &[self], ty, site)
    }
}
