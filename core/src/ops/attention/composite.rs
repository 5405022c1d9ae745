//! Attention by products and a softmax, its matrix of weights in memory: for devices and dtypes without a kernel of
//! their own, and as the function whose second derivatives are those of the one-pass form.

use tapeflow_ir::DType;
use tapeflow_macros::kernel;

use super::Operands;
use crate::compile::world::{Id, World};
use crate::ops::arithmetic::templates;
use crate::ops::kernel::KernelOp;
use crate::ops::matmul::Matmul;
use crate::ops::softmax::SOFTMAX;
use crate::ops::source::Iota;
use crate::program::kernel::Mask;
use crate::tape::TensorType;
use crate::tensor::shape::Shape;

/// Scaled scores; −∞ for keys in the future.
#[kernel]
fn causal_scores(x: f32, key: i64, query: i64, scale: f32) -> f32 {
    if key <= query { x * scale } else { f32::NEG_INFINITY }
}

#[kernel]
fn scaled_scores(x: f32, scale: f32) -> f32 {
    x * scale
}

/// The result, of type `ty`.
pub(super) fn composite(world: &mut World, operands: &Operands, ty: &TensorType) -> Id {
    let &Operands { q, k, v, first, mask } = operands;
    let rank = ty.shape.len();
    let (t, s, d) = (ty.shape[rank - 2], world.shape(k)[rank - 2], world.shape(q)[rank - 1]);
    let of = |dtype: DType, shape: &[usize]| TensorType { dtype, shape: Shape::from(shape), device: ty.device };
    let square = of(ty.dtype, &[&ty.shape[..rank - 2], &[t, s]].concat());
    let turned = world.transpose(k);
    let scores = world.push(Matmul, &[q, turned], square.clone());
    let scale = world.constant(1.0 / (d.max(1) as f64).sqrt(), of(ty.dtype.computed(), &[]));
    let scores = if mask == Mask::None {
        world.push(KernelOp::template(scaled_scores::TEMPLATE, 0), &[scores, scale], square.clone())
    } else {
        let key = world.push(Iota { axis: 0 }, &[], of(DType::I64, &[s]));
        let query = world.push(Iota { axis: 0 }, &[], of(DType::I64, &[t]));
        let query = world.reshape(query, Shape::from([t, 1]));
        let (shift, shape) = match first {
            Some(first) => {
                let per_row = [&ty.shape[..1], &vec![1; rank - 1]].concat();
                let shape = [&ty.shape[..1], &vec![1; rank - 3][..], &[t, 1]].concat();
                (world.reshape(first, Shape::from(&per_row[..])), shape)
            }
            None => (world.constant(s as f64 - t as f64, of(DType::I64, &[])), vec![t, 1]),
        };
        let query = world.push(KernelOp::template(templates::ADD, 0), &[query, shift], of(DType::I64, &shape));
        let operands = [scores, key, query, scale];
        world.push(KernelOp::template(causal_scores::TEMPLATE, 0), &operands, square.clone())
    };
    let weights = world.push(KernelOp::template(SOFTMAX, 0), &[scores], square);
    world.push(Matmul, &[weights, v], ty.clone())
}
