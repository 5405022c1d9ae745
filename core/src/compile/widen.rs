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
    let mut new = World::default();
    (new.given, new.scalars) = (world.given, world.scalars);
    new.outer_regions.clone_from(&world.outer_regions);
    let mut became: Vec<Id> = Vec::with_capacity(world.len());
    for (i, widened) in widened.into_iter().enumerate() {
        (new.current_origin, new.current_region) = (world.origin[i], world.region[i]);
        new.current_again = world.again[i];
        let inputs: Ids = world.inputs[i].iter().map(|x| became[x.index()]).collect();
        let (op, ty) = (world.op[i].clone(), world.ty[i].clone());
        became.push(match world.bound[i] {
            _ if widened => {
                let inputs: Ids = inputs.into_iter().map(|input| converted(&mut new, input, DType::F32)).collect();
                let wide = if ty.dtype.is_half() { DType::F32 } else { ty.dtype };
                let result = new.push(op, &inputs, TensorType { dtype: wide, ..ty.clone() });
                if ty.dtype.is_half() { converted(&mut new, result, ty.dtype) } else { result }
            }
            Some(input) => new.bind(op, inputs, ty, input),
            None => new.push(op, &inputs, ty),
        });
    }
    (new.current_region, new.current_again) = (0, 0);
    let roots = roots.iter().map(|r| became[r.index()]).collect();
    (new, roots)
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
