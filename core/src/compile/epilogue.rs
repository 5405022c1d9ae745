//! Epilogues: a group that goes on with a product's result, element by element or row by row, becomes part of the
//! product's step, and runs on each block of the result while that is in the caches: a bias, an activation, a residual,
//! the norm of rows, the sums of a bias's gradient.
//!
//! Owns the walk over the steps; which groups suit a product is the device's to say (`cpu::takes`).

use super::assemble::fused_of;
use super::expr::ExprSource;
use super::fuse::{Draft, GroupDraft, Step};
use super::world::{Id, World};
use crate::cpu::{self, Isa};
use crate::device::Kind;
use crate::program::kernel::{Kernel, Layout, OutputKind};

/// Groups of one epilogue.
const MOST: usize = 4;
/// How far behind the product a group may stand: what it stores is there so much earlier.
const WINDOW: usize = 12;

/// Moves groups to the products whose results they go on with.
pub(super) fn epilogues(world: &World, steps: &mut Vec<Step>) {
    let Ok(isa) = Isa::detect() else { return };
    let mut at = 0;
    while at < steps.len() {
        if is_product(world, &steps[at]) {
            while let Some(group) = next(world, steps, at, isa) {
                let Step { draft: Draft::Group(mut group), .. } = steps.remove(group) else { return };
                let node = steps[at].node;
                group.expr.add_part(node);
                if let Draft::Kernel { epilogue, .. } = &mut steps[at].draft {
                    epilogue.push(group);
                }
            }
        }
        at += 1;
    }
}

/// Whether a step is a product that can have a prologue and an epilogue.
pub(super) fn is_product(world: &World, step: &Step) -> bool {
    let kernel = matches!(&step.draft, Draft::Kernel { kernel: Kernel::Matmul(_) | Kernel::LinearInt8(_), .. });
    kernel && world.ty[step.node.index()].device.0 == Kind::Cpu
}

/// The next group that can go on with what the step at `at` makes.
fn next(world: &World, steps: &[Step], at: usize, isa: Isa) -> Option<usize> {
    let made = steps[at].writes();
    let mut between: Vec<Id> = Vec::new();
    for later in at + 1..steps.len().min(at + 1 + WINDOW) {
        if let Draft::Group(group) = &steps[later].draft
            && group.reads().any(|id| made.contains(&id))
            && !group.reads().any(|id| between.contains(&id))
            && !group.outputs.iter().any(|(id, _)| between.contains(id))
            && goes_on(world, &steps[at], &made, group)
            && suits(&steps[at], group, isa)
        {
            return Some(later);
        }
        between.extend(steps[later].writes());
    }
    None
}

/// Whether the group reads every element of what the step makes at its own index, if at all, and belongs to the same
/// time: what is computed again is not to be computed the first time instead.
fn goes_on(world: &World, step: &Step, made: &[Id], group: &GroupDraft) -> bool {
    let whole = Layout::contiguous(&group.expr.space);
    let in_place = |source: &ExprSource| match source {
        ExprSource::Node { id, layout } => !made.contains(id) || *layout == whole,
        _ => true,
    };
    // Sums are there only when all blocks are.
    let stored = |id: Id| {
        let kinds = step.groups().iter().flat_map(|g| &g.outputs).filter(|(other, _)| *other == id);
        kinds.into_iter().all(|(_, kind)| matches!(kind, OutputKind::Store(_)))
    };
    let again = |id: Id| world.again[id.index()];
    let at_once =
        |id: Id| again(id) == again(step.node) && world.ty[id.index()].device == world.ty[step.node.index()].device;
    group.copied().is_none()
        && group.outputs.iter().all(|(id, _)| at_once(*id))
        && group.expr.sources.iter().all(in_place)
        && made.iter().all(|id| {
            let reads = group.reads().any(|read| read == *id);
            !reads || stored(*id) && world.shape(*id).numel() == group.expr.space.iter().product::<usize>()
        })
}

/// Whether the device takes the group behind what the step has.
fn suits(step: &Step, group: &GroupDraft, isa: Isa) -> bool {
    let Draft::Kernel { kernel, prologue, epilogue, .. } = &step.draft else { return false };
    epilogue.len() < MOST && cpu::takes(&fused_of(kernel, prologue, epilogue.iter().chain([group])), isa)
}
