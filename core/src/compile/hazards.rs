//! Hazards of memory: which steps each step must wait for, because they wrote what it reads or used what it writes.
//!
//! Owns the uses of memory, by place: programs of many thousand steps must not look through all of them for every step.

use std::collections::HashMap;

use super::fuse::{Draft, Step};
use super::plan::{Place, Plan};
use super::world::{Id, World};
use crate::memory::ALIGN;

/// One step's use of a range of memory.
#[derive(Clone, Copy)]
struct Use {
    place: Place,
    bytes: usize,
    step: usize,
}

impl Use {
    fn overlaps(&self, other: &Use) -> bool {
        match (self.place, other.place) {
            (Place::Arena(x), Place::Arena(y)) => x < y + other.bytes && y < x + self.bytes,
            (x, y) => x == y,
        }
    }

    fn covers(&self, other: &Use) -> bool {
        match (self.place, other.place) {
            (Place::Arena(x), Place::Arena(y)) => x <= y && y + other.bytes <= x + self.bytes,
            (x, y) => x == y,
        }
    }
}

/// Parts that the arena is looked at in.
const PARTS: usize = 512;

/// Uses by part of the arena, and by buffer.
struct Uses {
    reads: HashMap<Part, Vec<Use>>,
    writes: HashMap<Part, Vec<Use>>,
    /// Bytes of a part.
    width: usize,
}

/// A buffer, or a part of the arena.
type Part = (Option<Place>, usize);

impl Uses {
    fn new(arena_bytes: usize) -> Uses {
        Uses { reads: HashMap::new(), writes: HashMap::new(), width: arena_bytes.div_ceil(PARTS).max(ALIGN) }
    }

    /// The parts that a use is in.
    fn parts(&self, of: &Use) -> impl Iterator<Item = Part> + use<> {
        let (buffer, first, last) = match of.place {
            Place::Arena(start) => (None, start / self.width, (start + of.bytes - 1) / self.width),
            place => (Some(place), 0, 0),
        };
        (first..=last).map(move |part| (buffer, part))
    }

    /// The steps that a use must wait for.
    fn before(&self, of: &Use, writes: bool, waits: &mut Vec<u32>) {
        for part in self.parts(of) {
            let read = self.reads.get(&part).filter(|_| writes).into_iter().flatten();
            let there = self.writes.get(&part).into_iter().flatten().chain(read);
            waits.extend(there.filter(|u| u.overlaps(of)).map(|u| u.step as u32));
        }
    }

    fn add(&mut self, of: Use, writes: bool) {
        for part in self.parts(&of) {
            let uses = if writes { &mut self.writes } else { &mut self.reads };
            uses.entry(part).or_default().push(of);
        }
    }

    /// What a writer waited for, its readers need not wait for again: older uses of memory it covered are forgotten.
    fn forget(&mut self, of: &Use) {
        for part in self.parts(of) {
            for uses in [&mut self.reads, &mut self.writes] {
                if let Some(there) = uses.get_mut(&part) {
                    there.retain(|u| !of.covers(u));
                }
            }
        }
    }
}

/// The steps each step must wait for: whoever wrote what it reads, and whoever used the memory it writes.
pub(crate) fn dependencies(world: &World, steps: &[Step], partial_bytes: &[usize], plan: &Plan) -> Vec<Vec<u32>> {
    let mut uses = Uses::new(plan.arena_bytes);
    let mut out: Vec<Vec<u32>> = Vec::with_capacity(steps.len());
    let is_fallible = |s: &Step| matches!(&s.draft, Draft::Kernel { kernel, .. } if kernel.is_fallible());
    let fallible: Vec<usize> = (0..steps.len()).filter(|&s| is_fallible(&steps[s])).collect();
    for (i, step) in steps.iter().enumerate() {
        if plan.idle[i] {
            out.push(Vec::new());
            continue;
        }
        let used = |id: Id| Use { place: plan.place[&id], bytes: world.ty[id.index()].bytes().max(1), step: i };
        let reads: Vec<Use> = step.reads().into_iter().map(used).collect();
        let mut writes: Vec<Use> = step.writes().into_iter().map(used).collect();
        if partial_bytes[i] > 0 {
            writes.push(Use { place: Place::Arena(plan.partial[i].0), bytes: partial_bytes[i], step: i });
        }
        let mut waits: Vec<u32> = Vec::new();
        reads.iter().for_each(|m| uses.before(m, false, &mut waits));
        writes.iter().for_each(|m| uses.before(m, true, &mut waits));
        // Nothing is updated in place before every check of the program has passed: a step is all or nothing.
        if writes.iter().any(|m| matches!(m.place, Place::Input(_))) {
            waits.extend(fallible.iter().filter(|&&s| s != i).map(|&s| s as u32));
        }
        waits.sort_unstable();
        waits.dedup();
        writes.iter().for_each(|m| uses.forget(m));
        reads.into_iter().for_each(|m| uses.add(m, false));
        writes.into_iter().for_each(|m| uses.add(m, true));
        out.push(waits);
    }
    out
}
