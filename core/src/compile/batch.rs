//! Batching: groups of one function over different memory become one step, so that the updates of all parameters are
//! one kernel, however many parameters there are. Each group stays as it is; only when it runs is decided here.

use super::fuse::{Draft, GroupDraft, Step};
use super::world::World;
use crate::program::kernel::OutputKind;

/// How far apart groups may stand in the program.
const WINDOW: usize = 48;
/// Elements of groups that may wait for others behind other steps: what they read stays in memory until then.
const HELD: usize = 1 << 18;

/// Moves groups of one function to the place of the last of them, where nothing in between forbids it.
pub(super) fn batch(world: &World, steps: Vec<Step>) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        let partner = single(&step).and_then(|group| {
            let near = out.len().saturating_sub(WINDOW)..out.len();
            near.rev().find(|&at| {
                on_one_device(world, &out[at], &step)
                    && fits(&out[at], group)
                    && may_wait(&out, at)
                    && may_move(&out, at, &step)
            })
        });
        match partner {
            Some(at) => {
                let earlier = out.remove(at);
                let groups = earlier.groups().iter().chain(step.groups()).cloned().collect();
                out.push(Step { draft: Draft::Groups(groups), node: earlier.node });
            }
            None => out.push(step),
        }
    }
    out
}

/// The step's only group, if it stores element by element: reductions have partial results and loops of their own.
fn single(step: &Step) -> Option<&GroupDraft> {
    match &step.draft {
        Draft::Group(group) => Some(group).filter(|g| is_batchable(g)),
        _ => None,
    }
}

fn is_batchable(group: &GroupDraft) -> bool {
    let stores = group.outputs.iter().all(|(_, kind)| matches!(kind, OutputKind::Store(_)));
    // A copy stays alone: the plan may leave it out.
    stores && !group.expr.is_row() && !group.expr.sources.is_empty() && group.copied().is_none()
}

fn on_one_device(world: &World, a: &Step, b: &Step) -> bool {
    world.ty[a.node.index()].device == world.ty[b.node.index()].device
}

fn fits(step: &Step, group: &GroupDraft) -> bool {
    let groups = step.groups();
    groups.first().is_some_and(|first| is_batchable(first) && first.expr.function == group.expr.function)
}

/// Whether little memory is held longer if the step at `at` is the last of `steps`.
fn may_wait(steps: &[Step], at: usize) -> bool {
    let elements = |group: &GroupDraft| group.expr.space.iter().product::<usize>();
    at + 1 == steps.len() || steps[at].groups().iter().map(elements).sum::<usize>() <= HELD
}

/// Whether the step at `at` may wait until `last`, which comes after all of `steps`, and run beside it.
fn may_move(steps: &[Step], at: usize, last: &Step) -> bool {
    let (reads, writes) = (steps[at].reads(), steps[at].writes());
    let meets = |step: &Step| {
        step.reads().iter().any(|id| writes.contains(id))
            || step.writes().iter().any(|id| writes.contains(id) || reads.contains(id))
    };
    !steps[at + 1..].iter().any(meets) && !meets(last)
}
