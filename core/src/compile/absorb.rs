//! The absorb pass: an operation that can do without part of what its inputs store reads what those were made of, as a
//! convolution does with the zeros around an image. Owns the walk; which operation absorbs what stands with it.

use super::world::{Id, World};

/// Rewrites such operations in place; inputs that nobody else wants are then not computed.
pub(crate) fn absorb(world: &mut World) {
    for i in 0..world.len() {
        if world.bound[i].is_some() {
            continue;
        }
        let absorbed = world.op[i].primitive().and_then(|op| op.absorbed(world, Id(i as u32)));
        if let Some((op, inputs)) = absorbed {
            (world.op[i], world.inputs[i]) = (op, inputs);
        }
    }
}
