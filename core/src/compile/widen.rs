//! The widen pass: half precision is for storage, so an operation that computes in a way of its own (a reduction, a
//! running sum) gets its operands as f32, and its result is rounded once.
//!
//! Owns those conversions, which are nodes like any other and fuse with their neighbours. Scalar and row functions have
//! theirs inside, and contractions read half precision themselves where the device can.

use super::world::{Id, Ids, World};
use crate::device::Kind;
use crate::ops::cast;
use crate::ops::kernel::KernelOp;
use crate::tape::TensorType;
use tapeflow_ir::DType;

/// The world with conversions around what `roots` need and cannot compute in half precision, and its roots.
pub(crate) fn widen(world: World, roots: Vec<Id>) -> (World, Vec<Id>) {
    let widened = widened(&world, &roots);
    if !widened.contains(&true) {
        return (world, roots);
    }
    world.rebuilt(&roots, |new, op, inputs, ty, i| {
        if !widened[i] {
            return None;
        }
        let inputs: Ids = inputs.iter().map(|&input| converted(new, input, DType::F32)).collect();
        let wide = if ty.dtype.is_half() { DType::F32 } else { ty.dtype };
        let result = new.push(op.clone(), &inputs, TensorType { dtype: wide, ..ty.clone() });
        Some(if ty.dtype.is_half() { converted(new, result, ty.dtype) } else { result })
    })
}

/// Which nodes compute in f32 what is stored in half precision.
fn widened(world: &World, roots: &[Id]) -> Vec<bool> {
    let mut widened = vec![false; world.len()];
    for id in world.topological(roots, false) {
        let i = id.index();
        let on_host = world.ty[i].device.0 == Kind::Cpu;
        let halves = [id].iter().chain(&world.inputs[i]).any(|&id| world.dtype(id).is_half());
        let widens = world.op[i].primitive().is_some_and(|op| op.widens(on_host));
        widened[i] = halves && widens && world.bound[i].is_none();
    }
    widened
}

/// The value as `dtype` if it is of half precision, or is to be.
fn converted(world: &mut World, id: Id, dtype: DType) -> Id {
    let ty = world.ty[id.index()].clone();
    if !ty.dtype.is_half() && !dtype.is_half() {
        return id;
    }
    world.push(KernelOp::template(cast::template(dtype), 0), &[id], TensorType { dtype, ..ty })
}
