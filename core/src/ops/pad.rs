//! Padding: the operand placed among zeros. Also the transpose of a slice.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use super::cut::{Cut, Cuts};
use super::source::constant_fn;
use super::{Op, Primitive};
use crate::compile::fuse::{Expr, Lower};
use crate::compile::world::{Id, Vjp, World};
use crate::error::{Error, Problem};
use crate::program::kernel::{Dims, Layout};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// Element `i` of each axis goes to where a slice by the cut would take it from; the rest is filled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pad {
    cuts: Cuts,
    /// The bits of the value around.
    fill: u64,
}

impl Pad {
    pub fn zeros(cuts: Cuts) -> Pad {
        Pad::with(cuts, 0.0)
    }

    pub fn with(cuts: Cuts, value: f64) -> Pad {
        Pad { cuts, fill: value.to_bits() }
    }
}

/// A value that is zeros but for one part.
pub(crate) struct Part {
    pub axis: usize,
    pub start: usize,
    pub value: Id,
}

/// The pad that a node is, if it is one.
pub(super) fn as_pad(op: &Op) -> Option<&Pad> {
    match op {
        Op::Pad(pad) => Some(pad),
        _ => None,
    }
}

/// The part of `id` that is not zeros, if there is one along one axis and the shapes say where.
pub(crate) fn as_part(world: &World, id: Id) -> Option<Part> {
    let pad = as_pad(&world.op[id.index()])?;
    let value = world.inputs[id.index()][0];
    let (whole, part) = (world.shape(id), world.shape(value));
    let mut cut = (0..whole.len()).filter(|&axis| whole[axis] != part[axis]);
    let (axis, None) = (cut.next()?, cut.next()) else { return None };
    (pad.fill == 0.0f64.to_bits()).then_some(Part { axis, start: pad.cuts[axis].plain()?, value })
}

/// How an axis lies among zeros.
pub(super) struct Frame {
    /// Zeros before its first element.
    pub before: usize,
    /// From element to element.
    pub step: usize,
}

impl Pad {
    /// How the last axes lie among zeros, if nothing else is filled; `lead` axes come before them.
    pub(super) fn frames(&self, world: &World, node: Id, lead: usize) -> Option<SmallVec<[Frame; 3]>> {
        let (whole, part) = (world.shape(node), world.shape(world.inputs[node.index()][0]));
        if self.fill != 0.0f64.to_bits() || whole.len() < lead || whole[..lead] != part[..lead] {
            return None;
        }
        self.cuts[lead..].iter().map(|cut| Some(Frame { before: cut.fixed_start()?, step: cut.step })).collect()
    }
}

/// `value` among zeros, as a slice by the cuts would have taken it from `ty`; what was zeros already is placed with it,
/// if each axis is cut but once.
pub(super) fn among_zeros(world: &mut World, value: Id, cuts: &Cuts, ty: TensorType) -> Id {
    let (mut cuts, mut value) = (cuts.clone(), value);
    if world.bound[value.index()].is_none()
        && let Some(pad) = as_pad(&world.op[value.index()]).cloned()
        && pad.fill == 0.0f64.to_bits()
    {
        let inner = world.inputs[value.index()][0];
        let shapes = || ty.shape.iter().zip(&world.shape(value)[..]).zip(&world.shape(inner)[..]);
        if shapes().all(|((outer, middle), inner)| outer == middle || middle == inner) {
            let own = shapes().map(|((outer, middle), _)| outer == middle).collect::<SmallVec<[bool; 6]>>();
            cuts.iter_mut().zip(pad.cuts).zip(own).filter(|(_, own)| *own).for_each(|((cut, inner), _)| *cut = inner);
            value = inner;
        }
    }
    world.push(Pad::zeros(cuts), &[value], ty)
}

impl Primitive for Pad {
    fn name(&self) -> Cow<'static, str> {
        format!("pad {:?}", self.cuts).into()
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let ty = cx.world.ty[cx.inputs[0].index()].clone();
        let value = cx.world.slice(cx.cotangent, self.cuts.clone(), ty);
        cx.contribute(0, value);
    }

    /// Less is filled, if all of the operand is still there.
    fn sliced(&self, world: &mut World, node: Id, cuts: &Cuts, shape: &Shape) -> Option<Id> {
        let input = world.inputs[node.index()][0];
        let mut narrower = self.clone();
        for (axis, (own, cut)) in narrower.cuts.iter_mut().zip(cuts).enumerate() {
            let start = own.fixed_start()?.checked_sub(cut.plain()?)?;
            let end = start + world.shape(input)[axis].saturating_sub(1) * own.step;
            if end >= shape[axis] {
                return None;
            }
            *own = Cut { step: own.step, ..Cut::fixed(start) };
        }
        if world.shape(input) == shape {
            return Some(input);
        }
        let ty = world.with_shape(node, shape.clone());
        Some(world.push(narrower, &[input], ty))
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let dims = Dims::from_slice(&ty.shape);
        let whole = Layout::contiguous(&dims);
        let zeros = Expr::new(dims, constant_fn(ty.dtype, f64::from_bits(self.fill)), Vec::new());
        let expr = cx.movable(0);
        cx.store_part(zeros, whole.clone());
        cx.store_part(expr, whole.slice(&self.cuts));
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, arguments: &[u64]) -> Result<Array, Problem> {
        let mut out = Array::fill(ty, f64::from_bits(self.fill));
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
        Tensor::record_at(Pad::zeros(cuts), &[self], ty, site)
    }
}
