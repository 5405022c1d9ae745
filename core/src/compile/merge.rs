//! Merging side by side: groups over one space that read the same memory become one group with several outputs, so that
//! what they share is read and computed once (the cotangents of a layer norm, the three results of Adam).

use std::collections::HashMap;

use super::expr::{Composer, Expr, ExprSource};
use super::fuse::{Draft, GroupDraft, Step};
use super::world::{Id, World};
use crate::program::kernel::OutputKind;

/// Outputs of one group.
const MAX_OUTPUTS: usize = 6;
/// Values of one group's function.
const MAX_VALUES: usize = 240;
/// Sources of one group.
const MAX_SOURCES: usize = 14;
/// How far apart groups may stand in the program.
const WINDOW: usize = 48;

pub(super) fn merge(world: &World, steps: Vec<Step>) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        out.push(step);
        let mut at = out.len() - 1;
        while let Some(earlier) = find_partner(world, &out, at)
            && let Some((merged, up)) = join(&out, earlier, at)
        {
            if up {
                out[earlier].draft = Draft::Group(merged);
                out.pop();
                break;
            }
            // The merged group may fit others that were refused before: look again from the same place.
            out[at].draft = Draft::Group(merged);
            out.remove(earlier);
            at -= 1;
        }
    }
    out
}

/// The step's group, if it may get more results; a copy stays alone, since the plan may leave it out.
fn group(step: &Step) -> Option<&GroupDraft> {
    match &step.draft {
        Draft::Group(g) => Some(g).filter(|g| g.copied().is_none()),
        Draft::Groups(_) | Draft::Copy { .. } | Draft::Kernel { .. } => None,
    }
}

/// The region that a group is computed again for.
fn again(world: &World, g: &GroupDraft) -> u32 {
    g.outputs.first().map_or(0, |(id, _)| world.again[id.index()])
}

fn has_trailing(g: &GroupDraft) -> bool {
    g.outputs.iter().any(|(_, kind)| matches!(kind, OutputKind::ReduceTrailing(..)))
}

fn find_partner(world: &World, steps: &[Step], at: usize) -> Option<usize> {
    let later = group(&steps[at])?;
    let half = later.expr.space.iter().product::<usize>() / 2;
    (at.saturating_sub(WINDOW)..at).rev().find(|&i| {
        let Some(earlier) = group(&steps[i]) else { return false };
        let (a, b) = (&earlier.expr, &later.expr);
        // What is computed again must not be computed the first time instead, and kept.
        if again(world, earlier) != again(world, later) {
            return false;
        }
        if a.space != b.space || earlier.outputs.len() + later.outputs.len() > MAX_OUTPUTS {
            return false;
        }
        if a.function.values.len() + b.function.values.len() > MAX_VALUES {
            return false;
        }
        // A row function and one that may be cut anywhere have different loops, unless rows are wanted anyway.
        if (has_trailing(earlier) && b.is_row()) || (has_trailing(later) && a.is_row()) {
            return false;
        }
        // What is written over the whole of a value must be there before the next region is.
        let whole = |id: Id| world.shape(id).numel() == a.space.iter().product::<usize>();
        if earlier.outputs.iter().any(|(id, _)| whole(*id) && later.outputs.iter().any(|(other, _)| other == id)) {
            return false;
        }
        let trailing = |g: &GroupDraft| {
            g.outputs.iter().find_map(|(_, k)| match k {
                OutputKind::ReduceTrailing(_, axes) => Some(*axes),
                _ => None,
            })
        };
        if has_trailing(earlier) && has_trailing(later) && trailing(earlier) != trailing(later) {
            return false;
        }
        let shares = b.sources.iter().any(|s| match s {
            ExprSource::Node { id, .. } => a.sources.contains(s) && world.shape(*id).numel() > half,
            _ => false,
        });
        let together = a.sources.len() + b.sources.iter().filter(|s| !a.sources.contains(s)).count();
        shares && together <= MAX_SOURCES && order(steps, i, at).is_some()
    })
}

/// Whether the groups may become one: `Some(true)` at the earlier place, `Some(false)` at the later.
fn order(steps: &[Step], earlier: usize, later: usize) -> Option<bool> {
    let written: HashMap<Id, usize> =
        (earlier..later).flat_map(|i| steps[i].writes().into_iter().map(move |id| (id, i))).collect();
    // A region of a value that several steps write together must keep its place among them.
    let shared_value =
        |values: &[Id]| (earlier + 1..later).any(|i| steps[i].writes().iter().any(|id| values.contains(id)));
    if steps[later].reads().iter().all(|id| !written.contains_key(id)) && !shared_value(&steps[later].writes()) {
        return Some(true);
    }
    let results = steps[earlier].writes();
    let needed_between = (earlier + 1..=later).any(|i| steps[i].reads().iter().any(|id| results.contains(id)));
    (!needed_between && !shared_value(&results)).then_some(false)
}

fn join(steps: &[Step], earlier: usize, later: usize) -> Option<(GroupDraft, bool)> {
    let up = order(steps, earlier, later)?;
    let (a, b) = (group(&steps[earlier])?, group(&steps[later])?);
    let mut composer = Composer::default();
    let mut values = composer.add_all(&a.expr);
    values.extend(composer.add_all(&b.expr));
    let expr: Expr = composer.finish(a.expr.space.clone(), &values);
    let outputs = a.outputs.iter().chain(&b.outputs).cloned().collect();
    Some((GroupDraft { expr, outputs }, up))
}
