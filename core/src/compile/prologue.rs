//! Prologues: a group that makes nothing but an operand of one product becomes part of the product's step, and runs on
//! the lines that each block needs, which then never lie in memory as a whole: a weight that is masked, scaled or
//! brought to another dtype, what an activation makes of an input.
//!
//! Owns the walk over the steps; which groups suit a product is the device's to say (`cpu::takes`).

use std::collections::HashMap;

use super::assemble::fused_of;
use super::epilogue::is_product;
use super::fuse::{Draft, GroupDraft, Step};
use super::world::{Id, World};
use crate::cpu::{self, Isa};
use crate::program::kernel::{Kernel, OutputKind};

/// How far before the product a group may stand: what it reads is kept so much longer.
const WINDOW: usize = 12;

/// How often values are read, by roots too, and how many groups and kernels write them.
#[derive(Default)]
struct Uses {
    reads: HashMap<Id, usize>,
    writes: HashMap<Id, usize>,
}

/// A group: the step, and which of its groups.
type Found = (usize, usize);

/// Moves groups to the products whose operands they make.
pub(super) fn prologues(world: &World, steps: &mut Vec<Step>, is_root: &[bool]) {
    let Ok(isa) = Isa::detect() else { return };
    let mut uses = Uses::default();
    for (at, _) in is_root.iter().enumerate().filter(|(_, is_root)| **is_root) {
        uses.reads.insert(Id(at as u32), 1);
    }
    for step in steps.iter() {
        step.reads().into_iter().for_each(|id| *uses.reads.entry(id).or_default() += 1);
        step.writes().into_iter().for_each(|id| *uses.writes.entry(id).or_default() += 1);
    }
    let mut at = 0;
    while at < steps.len() {
        if is_product(world, &steps[at]) {
            for operand in operands(&steps[at]) {
                let found = maker(world, steps, (at, operand), &uses);
                let Some((from, number)) = found.filter(|found| suits(steps, *found, (at, operand), isa)) else {
                    continue;
                };
                let node = steps[at].node;
                let (mut group, is_empty) = take(&mut steps[from], number);
                group.expr.add_part(node);
                if let Draft::Kernel { prologue, .. } = &mut steps[at].draft {
                    prologue.push((operand, group));
                }
                if is_empty {
                    steps.remove(from);
                    at -= 1;
                }
            }
        }
        at += 1;
    }
}

/// The operands of a product that groups could make.
fn operands(step: &Step) -> std::ops::Range<usize> {
    match &step.draft {
        Draft::Kernel { kernel: Kernel::LinearInt8(_), .. } => 0..1,
        _ => 0..2,
    }
}

/// The group that makes an operand of the product at `at`, if nobody else reads that, and if it can wait until then: it
/// belongs to the same time, and nothing in between writes what it reads.
fn maker(world: &World, steps: &[Step], (at, operand): Found, uses: &Uses) -> Option<Found> {
    let Draft::Kernel { reads, .. } = &steps[at].draft else { return None };
    let id = reads[operand];
    let from = (at.saturating_sub(WINDOW)..at).rev().find(|&before| steps[before].writes().contains(&id))?;
    let groups = match &steps[from].draft {
        Draft::Group(_) | Draft::Groups(_) => steps[from].groups(),
        _ => return None,
    };
    let makes = |group: &GroupDraft| match &group.outputs[..] {
        [(stored, OutputKind::Store(layout))] => *stored == id && layout.is_contiguous(&group.expr.space),
        _ => false,
    };
    let number = groups.iter().position(makes)?;
    let group = &groups[number];
    let node = steps[at].node;
    let is_whole = world.shape(id).numel() == group.expr.space.iter().product::<usize>();
    let is_alone = uses.reads.get(&id) == Some(&1) && uses.writes.get(&id) == Some(&1);
    let at_once = world.again[id.index()] == world.again[node.index()]
        && world.ty[id.index()].device == world.ty[node.index()].device;
    let stays = |step: &Step| step.writes().iter().all(|written| group.reads().all(|read| read != *written));
    let may_wait = steps[from + 1..at].iter().all(stays);
    (is_whole && is_alone && at_once && may_wait && group.copied().is_none()).then_some((from, number))
}

/// Whether the device takes the group beside what the step has.
fn suits(steps: &[Step], (from, number): Found, (at, operand): Found, isa: Isa) -> bool {
    let Draft::Kernel { kernel, prologue, epilogue, .. } = &steps[at].draft else { return false };
    let made = (operand, steps[from].groups()[number].clone());
    let prologue: Vec<(usize, GroupDraft)> = prologue.iter().cloned().chain([made]).collect();
    cpu::takes(&fused_of(kernel, &prologue, epilogue), isa)
}

/// Takes a group out of a step, and says whether that has none left.
fn take(step: &mut Step, number: usize) -> (GroupDraft, bool) {
    let mut groups = step.groups().to_vec();
    let group = groups.remove(number);
    let is_empty = groups.is_empty();
    match groups.len() {
        0 => {}
        1 => step.draft = Draft::Group(groups.remove(0)),
        _ => step.draft = Draft::Groups(groups),
    }
    (group, is_empty)
}
