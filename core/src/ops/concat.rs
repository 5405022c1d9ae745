//! Concatenation along an axis, and stacking along a new one.

use std::borrow::Cow;

use smallvec::smallvec;

use super::Primitive;
use super::cut::{Cut, Cuts};
use super::movement::Movement;
use crate::compile::fuse::Lower;
use crate::compile::world::Vjp;
use crate::error::{Error, Problem};
use crate::precision;
use crate::program::kernel::Layout;
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;

/// The inputs one after another along `axis`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Concat {
    axis: usize,
}

impl Concat {
    /// Along `axis`.
    pub fn new(axis: usize) -> Concat {
        Concat { axis }
    }

    fn part(&self, rank: usize, start: usize) -> Cuts {
        let mut cuts: Cuts = smallvec![Cut::WHOLE; rank];
        cuts[self.axis] = Cut::fixed(start);
        cuts
    }
}

impl Primitive for Concat {
    fn name(&self) -> Cow<'static, str> {
        format!("cat {}", self.axis).into()
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let mut start = 0;
        for i in 0..cx.inputs.len() {
            let ty = cx.world.ty[cx.inputs[i].index()].clone();
            let length = ty.shape[self.axis];
            if cx.wants(i) {
                let cuts = self.part(ty.shape.len(), start);
                let value = cx.world.push(Movement::Slice(cuts), &[cx.cotangent], ty);
                cx.contribute(i, value);
            }
            start += length;
        }
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let whole = Layout::contiguous(&cx.ty().shape);
        let mut start = 0;
        for i in 0..cx.arity() {
            let expr = cx.movable(i);
            let length = expr.space[self.axis];
            let part = self.part(expr.space.len(), start);
            cx.store_part(expr, whole.slice(&part));
            start += length;
        }
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        let mut out = Array::fill(ty, 0.0);
        let mut start = 0;
        for input in inputs {
            input.scatter_into(&mut out, |from, to| {
                to.copy_from_slice(from);
                to[self.axis] += start;
            });
            start += input.shape[self.axis];
        }
        Ok(out)
    }
}

impl Tensor {
    /// Joins tensors along an axis; all other extents must agree.
    #[track_caller]
    pub fn cat<T: AsRef<Tensor>>(tensors: &[T], axis: isize) -> Tensor {
        let site = Site::here();
        let tensors: Vec<&Tensor> = tensors.iter().map(AsRef::as_ref).collect();
        if let Some(wide) = precision::promoted(&tensors) {
            return Tensor::cat(&wide, axis);
        }
        let made = (|| {
            let first = tensors.first().ok_or_else(|| Problem::Argument("no tensors to join".into()))?;
            let axis = first.shape().axis(axis)?;
            let mut shape = first.shape().clone();
            shape.0[axis] = 0;
            for t in &tensors {
                if t.dtype() != first.dtype() {
                    return Err(Problem::DTypes { left: first.dtype(), right: t.dtype() });
                }
                let fits =
                    t.ndim() == first.ndim() && (0..t.ndim()).all(|a| a == axis || t.shape()[a] == first.shape()[a]);
                if !fits {
                    let shapes = vec![first.shape().clone(), t.shape().clone()];
                    let rule = format!("all extents but that of axis {axis} must agree").into();
                    return Err(Problem::Shapes { shapes, rule });
                }
                shape.0[axis] = shape.0[axis].saturating_add(t.shape()[axis]);
            }
            Ok((axis, TensorType { shape, ..first.ty().clone() }))
        })();
        match made {
            Ok((axis, ty)) => Tensor::record_at(Concat { axis }, &tensors, ty, site),
            Err(problem) => {
                let ty = tensors.first().map_or_else(TensorType::scalar_f32, |t| t.ty().clone());
                Tensor::mistake_in(&tensors, Error::new("cat", problem, site), ty)
            }
        }
    }

    /// Joins tensors of one shape along a new axis.
    #[track_caller]
    pub fn stack<T: AsRef<Tensor>>(tensors: &[T], axis: isize) -> Tensor {
        let lifted: Vec<Tensor> = tensors.iter().map(|t| t.as_ref().unsqueeze(axis)).collect();
        Tensor::cat(&lifted, axis)
    }
}
