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

/// Puts conversions around what `roots` need and cannot compute in half precision. Nodes keep their numbers.
pub(crate) fn widen(world: &mut World, roots: &[Id]) {
    for id in world.topological(roots, false) {
        let i = id.index();
        let on_host = world.ty[i].device.0 == Kind::Cpu;
        let is_half = |world: &World, id: &Id| world.dtype(*id).is_half();
        let halves = is_half(world, &id) || world.inputs[i].iter().any(|input| is_half(world, input));
        let widens = world.op[i].primitive().is_some_and(|op| op.widens(on_host));
        if world.bound[i].is_some() || !halves || !widens {
            continue;
        }
        world.current_origin = world.origin[i];
        let inputs: Ids = world.inputs[i].clone().into_iter().map(|input| converted(world, input)).collect();
        let (op, ty) = (world.op[i].clone(), world.ty[i].clone());
        if !ty.dtype.is_half() {
            world.inputs[i] = inputs;
            continue;
        }
        let wide = world.push(op, &inputs, TensorType { dtype: DType::F32, ..ty.clone() });
        world.op[i] = KernelOp::template(cast::template(ty.dtype), 0).into();
        world.inputs[i] = Ids::from_slice(&[wide]);
    }
}

/// The value in f32 if it is of half precision.
fn converted(world: &mut World, id: Id) -> Id {
    let ty = world.ty[id.index()].clone();
    if !ty.dtype.is_half() {
        return id;
    }
    world.push(KernelOp::template(cast::template(DType::F32), 0), &[id], TensorType { dtype: DType::F32, ..ty })
}
