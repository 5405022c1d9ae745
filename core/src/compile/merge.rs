//! Merging side by side: groups over one space that read the same memory become one group with several outputs, so that
//! what they share is read and computed once (the cotangents of a layer norm, the three results of Adam). A group that
//! reads what another one stores element by element becomes part of that too, and takes it before it is stored.

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

/// What the choice of partners goes by.
struct Graph<'w> {
    world: &'w World,
    is_root: &'w [bool],
}

pub(super) fn merge(world: &World, steps: Vec<Step>, is_root: &[bool]) -> Vec<Step> {
    let graph = Graph { world, is_root };
    let mut out: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        out.push(step);
        let mut at = out.len() - 1;
        while let Some(earlier) = find_partner(&graph, &out, at)
            && let Some((merged, up)) = join(&graph, &out, earlier, at)
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
    without_unread(out, is_root)
}

/// The steps without what groups stored for those that have taken it since.
fn without_unread(mut steps: Vec<Step>, is_root: &[bool]) -> Vec<Step> {
    let mut wanted = is_root.to_vec();
    steps.iter().flat_map(Step::reads).for_each(|id| wanted[id.index()] = true);
    for step in &mut steps {
        let Draft::Group(group) = &mut step.draft else { continue };
        let is_wanted = |(id, _): &(Id, OutputKind)| wanted[id.index()];
        if group.outputs.iter().all(is_wanted) || !group.outputs.iter().any(is_wanted) {
            continue;
        }
        let mut composer = Composer::default();
        let values = composer.add_all(&group.expr).into_iter().zip(&group.outputs);
        let values: Vec<_> = values.filter(|(_, output)| is_wanted(output)).map(|(value, _)| value).collect();
        group.expr = composer.finish(group.expr.space.clone(), &values);
        group.outputs.retain(is_wanted);
    }
    steps
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

fn find_partner(graph: &Graph<'_>, steps: &[Step], at: usize) -> Option<usize> {
    let later = group(&steps[at])?;
    let half = later.expr.space.iter().product::<usize>() / 2;
    (at.saturating_sub(WINDOW)..at).rev().find(|&i| {
        let Some(earlier) = group(&steps[i]) else { return false };
        let (a, b) = (&earlier.expr, &later.expr);
        // What is computed again must not be computed the first time instead, and kept.
        if again(graph.world, earlier) != again(graph.world, later) {
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
        let whole = |id: Id| graph.world.shape(id).numel() == a.space.iter().product::<usize>();
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
            ExprSource::Node { id, .. } => a.sources.contains(s) && graph.world.shape(*id).numel() > half,
            _ => false,
        }) || !taken(graph, steps, i, at).is_empty();
        let together = a.sources.len() + b.sources.iter().filter(|s| !a.sources.contains(s)).count();
        shares && together <= MAX_SOURCES && order(graph, steps, i, at).is_some()
    })
}

/// Which result of a group this source is, if it is one that the group stores element by element in the order of its
/// space.
fn result(of: &GroupDraft, source: &ExprSource) -> Option<usize> {
    let ExprSource::Node { id, layout } = source else { return None };
    let stores = |(result, kind): &(Id, OutputKind)| match kind {
        OutputKind::Store(to) => result == id && to.is_contiguous(&of.expr.space),
        _ => false,
    };
    of.outputs.iter().position(stores).filter(|_| layout.is_contiguous(&of.expr.space))
}

/// What the later group may take from the earlier one, if it reads nothing of it in another way. Rows are left alone:
/// what is known only after a whole row would be stored in a loop of its own. So is what stores a result of the
/// program: the updates of all parameters are one step, not one with each gradient.
fn taken(graph: &Graph<'_>, steps: &[Step], earlier: usize, later: usize) -> Vec<Id> {
    let (Some(a), Some(b)) = (group(&steps[earlier]), group(&steps[later])) else { return Vec::new() };
    let leads = |(_, kind): &(Id, OutputKind)| matches!(kind, OutputKind::ReduceLeading(..));
    let ends = |(id, kind): &(Id, OutputKind)| graph.is_root[id.index()] && matches!(kind, OutputKind::Store(_));
    let leads = a.outputs.iter().chain(&b.outputs).any(leads);
    if a.expr.is_row() || b.expr.is_row() || leads || b.outputs.iter().any(ends) {
        return Vec::new();
    }
    let results = steps[earlier].writes();
    let is_whole = |id: Id| {
        let all = graph.world.shape(id).numel() == a.expr.space.iter().product::<usize>();
        all && !(earlier + 1..=later).any(|i| steps[i].writes().contains(&id))
    };
    let mut taken = Vec::new();
    for source in &b.expr.sources {
        match source {
            ExprSource::Node { id, .. } if results.contains(id) => match result(a, source) {
                Some(_) if is_whole(*id) => taken.push(*id),
                _ => return Vec::new(),
            },
            _ => {}
        }
    }
    taken
}

/// Whether the groups may become one: `Some(true)` at the earlier place, `Some(false)` at the later.
fn order(graph: &Graph<'_>, steps: &[Step], earlier: usize, later: usize) -> Option<bool> {
    let taken = taken(graph, steps, earlier, later);
    let written: HashMap<Id, usize> =
        (earlier..later).flat_map(|i| steps[i].writes().into_iter().map(move |id| (id, i))).collect();
    // A region of a value that several steps write together must keep its place among them.
    let shared_value =
        |values: &[Id]| (earlier + 1..later).any(|i| steps[i].writes().iter().any(|id| values.contains(id)));
    if steps[later].reads().iter().all(|id| taken.contains(id) || !written.contains_key(id))
        && !shared_value(&steps[later].writes())
    {
        return Some(true);
    }
    let results = steps[earlier].writes();
    let needed =
        |i: usize| steps[i].reads().iter().any(|id| results.contains(id) && !(i == later && taken.contains(id)));
    let needed_between = (earlier + 1..=later).any(needed);
    (!needed_between && !shared_value(&results)).then_some(false)
}

fn join(graph: &Graph<'_>, steps: &[Step], earlier: usize, later: usize) -> Option<(GroupDraft, bool)> {
    let up = order(graph, steps, earlier, later)?;
    let (a, b) = (group(&steps[earlier])?, group(&steps[later])?);
    let mut composer = Composer::default();
    let mut values = composer.add_all(&a.expr);
    let given = values.clone();
    let taken = taken(graph, steps, earlier, later);
    values.extend(composer.add_with(&b.expr, |source| {
        let ExprSource::Node { id, .. } = source else { return None };
        taken.contains(id).then(|| result(a, source).map(|at| given[at])).flatten()
    }));
    let expr: Expr = composer.finish(a.expr.space.clone(), &values);
    let outputs = a.outputs.iter().chain(&b.outputs).cloned().collect();
    Some((GroupDraft { expr, outputs }, up))
}
