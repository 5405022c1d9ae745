//! Attention in one pass, and its cotangents in another: nodes that have one flat result each, seen through views.
//! Owns what lies where in these; the second derivatives are those of the composite form. Dao 2023, arXiv:2307.08691.

use std::borrow::Cow;

use smallvec::SmallVec;
use tapeflow_ir::DType;

use super::{Operands, composite, converted};
use crate::compile::differentiate::reverse;
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Ids, Vjp, World};
use crate::error::Problem;
use crate::ops::cut::Cut;
use crate::ops::movement::Movement;
use crate::ops::{Flow, Op, Primitive};
use crate::program::kernel::{self, Dims, Kernel, Mask};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tensor::shape::Shape;

const ON_HOST: &str = "invariant: only the CPU has attention in one pass";

/// Inputs q, k, v, and with [`Mask::Cached`] the places; the result is that of [`kernel::Attention`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OnePass {
    mask: Mask,
}

/// Inputs q, k, v in f32, the result of [`OnePass`], the cotangent of y, and with [`Mask::Cached`] the places; the
/// result is that of [`kernel::AttentionVjp`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OnePassVjp {
    mask: Mask,
}

/// y in f32, of operands in f32 or half precision.
pub(super) fn one_pass(world: &mut World, operands: &Operands) -> Id {
    let &Operands { q, k, v, first, mask } = operands;
    let shape = result(world, q, v);
    let lines: usize = shape[..shape.len() - 1].iter().product();
    let inputs: Ids = [q, k, v].into_iter().chain(first).collect();
    let ty = TensorType { dtype: DType::F32, ..world.with_shape(q, Shape::from([shape.numel() + lines])) };
    let flat = world.push(OnePass { mask }, &inputs, ty);
    part(world, flat, 0, &shape)
}

/// The shape of y.
fn result(world: &World, q: Id, v: Id) -> Shape {
    let mut shape = world.shape(q).clone();
    let last = shape.len() - 1;
    shape.0[last] = world.shape(v)[last];
    shape
}

/// What lies in `flat` from `start` on in the order (B, lines, H, elements), as `(B, H, lines, elements)`.
fn part(world: &mut World, flat: Id, start: usize, shape: &Shape) -> Id {
    let ty = world.with_shape(flat, Shape::from([shape.numel()]));
    let slice = world.slice(flat, smallvec::smallvec![Cut::fixed(start)], ty);
    let rank = shape.len();
    let mut axes: SmallVec<[usize; 6]> = (0..rank).collect();
    if rank == 2 {
        return world.reshape(slice, shape.clone());
    }
    axes.swap(rank - 3, rank - 2);
    let laid: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    let laid = world.reshape(slice, Shape::from(laid));
    world.permute(laid, axes)
}

/// The cotangent of y, of `shape`, in that of the flat result: what [`part`] is the transpose of, undone where it is
/// nothing but that, so that nothing is laid out anew.
fn cotangent(world: &mut World, flat: Id, shape: &Shape) -> Id {
    let ty = world.with_shape(flat, Shape::from([shape.numel()]));
    let slice = world.slice(flat, smallvec::smallvec![Cut::fixed(0)], ty);
    let viewed = |id: Id, op: &Op| (world.op[id.index()] == *op).then(|| world.inputs[id.index()][0]);
    let laid = viewed(slice, &Op::Movement(Movement::Reshape));
    let given = match shape.len() {
        2 => laid,
        rank => {
            let mut axes: SmallVec<[usize; 6]> = (0..rank).collect();
            axes.swap(rank - 3, rank - 2);
            laid.and_then(|laid| viewed(laid, &Op::Movement(Movement::Permute(axes))))
        }
    };
    match given.filter(|&id| world.shape(id) == shape) {
        Some(given) => given,
        None => part(world, flat, 0, shape),
    }
}

/// q, k and v as parts of the flat cotangents: where each starts, and its shape.
fn parts(world: &World, inputs: &[Id]) -> [(usize, Shape); 3] {
    let [q, k, v] = [0, 1, 2].map(|i| world.shape(inputs[i]).clone());
    let (second, third) = (q.numel(), q.numel() + k.numel());
    [(0, q), (second, k), (third, v)]
}

impl Primitive for OnePass {
    fn name(&self) -> Cow<'static, str> {
        super::Attention { mask: self.mask }.name()
    }

    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        if input < 3 { Flow::Carries } else { Flow::Stops }
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let inputs = cx.inputs.clone();
        let shape = result(cx.world, inputs[0], inputs[2]);
        let cotangent = cotangent(cx.world, cx.cotangent, &shape);
        let parts = parts(cx.world, &inputs);
        let elements = parts.iter().map(|(_, shape)| shape.numel()).sum();
        let ty = TensorType { dtype: DType::F32, ..cx.world.with_shape(inputs[0], Shape::from([elements])) };
        let (given, places) = inputs.split_at(3);
        let wide: Ids = given.iter().map(|&x| converted(cx.world, x, DType::F32)).collect();
        let all: Ids = wide.into_iter().chain([cx.node, cotangent]).chain(places.iter().copied()).collect();
        let flat = cx.world.push(OnePassVjp { mask: self.mask }, &all, ty);
        for (i, (start, shape)) in parts.iter().enumerate() {
            if cx.wants(i) {
                let value = part(cx.world, flat, *start, shape);
                let value = converted(cx.world, value, cx.world.dtype(given[i]));
                cx.contribute(i, value);
            }
        }
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let (kernel, mut reads) = described(cx, self.mask);
        if self.mask == Mask::Cached {
            reads.push(cx.stored(3));
        }
        cx.emit(Kernel::Attention(kernel), reads);
        Ok(())
    }

    fn evaluate(&self, _: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Err(Problem::Argument(ON_HOST.into()))
    }
}

/// The kernel of this node's first three inputs, and where they lie.
fn described(cx: &mut Lower<'_>, mask: Mask) -> (kernel::Attention, Vec<Id>) {
    let [(q, q_layout), (k, k_layout), (v, v_layout)] = [0, 1, 2].map(|i| cx.strided(i));
    let (shape, values) = (cx.input_ty(0).shape.clone(), cx.input_ty(2).shape.clone());
    let rank = shape.len();
    let kernel = kernel::Attention {
        dtype: cx.input_ty(0).dtype,
        batch: Dims::from_slice(&shape[..rank - 2]),
        queries: shape[rank - 2],
        keys: values[rank - 2],
        depth: shape[rank - 1],
        width: values[rank - 1],
        mask,
        q: q_layout,
        k: k_layout,
        v: v_layout,
    };
    (kernel, vec![q, k, v])
}

impl Primitive for OnePassVjp {
    fn name(&self) -> Cow<'static, str> {
        format!("{} vjp", super::Attention { mask: self.mask }.name()).into()
    }

    /// The result of the forward pass is no operand of its own, but what follows from the others.
    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        if matches!(input, 0 | 1 | 2 | 4) { Flow::Carries } else { Flow::Stops }
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    /// Those of the composite form's cotangents.
    fn vjp(&self, cx: &mut Vjp<'_>) {
        let given = [cx.inputs[0], cx.inputs[1], cx.inputs[2], cx.inputs[4]];
        // Under names of their own: what they were made of is none of this rule's business.
        let named = given.map(|x| {
            let ty = cx.world.ty[x.index()].clone();
            cx.world.push(Movement::Reshape, &[x], ty)
        });
        let [q, k, v, cotangent] = named;
        let operands = Operands { q, k, v, first: cx.inputs.get(5).copied(), mask: self.mask };
        let ty = TensorType { dtype: DType::F32, ..cx.world.ty[cotangent.index()].clone() };
        let y = composite::composite(cx.world, &operands, &ty);
        let parts = parts(cx.world, &cx.inputs);
        let outcome = reverse(cx.world, y, cotangent, &[q, k, v]).and_then(|firsts| {
            for (first, (start, shape)) in firsts.into_iter().zip(&parts) {
                let seed = part(cx.world, cx.cotangent, *start, shape);
                let seconds = reverse(cx.world, first, seed, &named)?;
                for (i, second) in [0, 1, 2, 4].into_iter().zip(seconds) {
                    cx.contribute(i, second);
                }
            }
            Ok(())
        });
        cx.problem = outcome.err().map(|(_, problem)| problem);
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let (of, mut reads) = described(cx, self.mask);
        reads.push(cx.stored(3));
        let (id, cotangent) = cx.strided(4);
        reads.push(id);
        if self.mask == Mask::Cached {
            reads.push(cx.stored(5));
        }
        cx.emit(Kernel::AttentionVjp(kernel::AttentionVjp { of, cotangent }), reads);
        Ok(())
    }

    fn evaluate(&self, _: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Err(Problem::Argument(ON_HOST.into()))
    }
}
