//! The stages pass: an operation that its arithmetic makes in several stages (a sum over axes that are not neighbours)
//! becomes one node for each, which fuse and run like any others.
//!
//! Owns the walk; which operation has stages, and which, stands with it.

use super::world::{Id, World};

/// The world with the stages of what has several, and its roots.
pub(crate) fn stages(world: World, roots: Vec<Id>) -> (World, Vec<Id>) {
    let is_staged = |i: usize| {
        let primitive = world.op[i].primitive().filter(|_| world.bound[i].is_none());
        primitive.is_some_and(|op| op.is_staged(&world, Id(i as u32)))
    };
    let staged: Vec<bool> = (0..world.len()).map(is_staged).collect();
    if !staged.contains(&true) {
        return (world, roots);
    }
    world.rebuilt(&roots, |new, op, inputs, ty, i| {
        let primitive = op.primitive().filter(|_| staged[i])?;
        Some(primitive.staged(new, inputs, ty))
    })
}
