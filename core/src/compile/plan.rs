//! The plan pass: gives every value a place. Values that outlive the program are its outputs; the others share one
//! arena, at offsets where no other value lives at the same time; an update may take the place of what it replaces, and
//! what a step makes of a value element by element the place of that, if nothing reads it later.

use std::collections::{BTreeMap, HashMap};

use super::expr::ExprSource;
use super::fuse::{Draft, GroupDraft, Step};
use super::world::{Id, World};
use crate::memory::ALIGN;
use crate::program::kernel::{Layout, OutputKind};

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Bytes from the start of the arena.
    Arena(usize),
    /// A buffer bound when the program runs.
    Input(u32),
    /// A buffer made when the program runs.
    Output(u32),
}

/// The result of the pass.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub place: HashMap<Id, Place>,
    /// Offset in the arena of each step's shared partial results, and their bytes.
    pub partial: Vec<(usize, usize)>,
    /// The first and the last step that use a value.
    pub live: BTreeMap<Id, (usize, usize)>,
    pub arena_bytes: usize,
    /// For each output: the input whose memory it takes over, if it may.
    pub in_place: Vec<Option<u32>>,
    /// The steps that copy a value onto itself, which need not run.
    pub idle: Vec<bool>,
}

/// A range of the arena and the steps it is in use by.
struct Lease {
    value: Option<Id>,
    step: usize,
    bytes: usize,
    first: usize,
    last: usize,
}

/// The values that are there before a program runs, and the inputs they are bound to.
pub(crate) type Bound = HashMap<Id, u32>;

/// `outputs`: what survives, with the input it would replace.
pub(crate) fn plan(
    world: &World,
    steps: &[Step],
    bound: &Bound,
    partial_bytes: &[usize],
    outputs: &[(Id, Option<u32>)],
) -> Plan {
    let partial = partial_bytes.iter().map(|&bytes| (0, bytes)).collect();
    let mut plan = Plan { partial, idle: vec![false; steps.len()], ..Plan::default() };
    let mut written: HashMap<Id, usize> = HashMap::new();
    for (i, step) in steps.iter().enumerate() {
        for id in step.reads().into_iter().chain(step.writes()) {
            plan.live.entry(id).or_insert((i, i)).1 = i;
        }
        step.writes().into_iter().for_each(|id| {
            written.entry(id).or_insert(i);
        });
    }
    plan.place.extend(bound.iter().map(|(&id, &input)| (id, Place::Input(input))));
    for (k, &(id, replaces)) in outputs.iter().enumerate() {
        // A gradient may be the very value that is replaced; somebody then reads it after the update.
        let is_wanted = |input: u32| outputs.iter().any(|(o, _)| bound.get(o) == Some(&input));
        let replaced = replaces.filter(|&input| !is_wanted(input) && !plan.place.contains_key(&id));
        let takeover = replaced.and_then(|input| Some((input, may_replace(bound, steps, id, input)?)));
        let replaced = takeover.map(|(input, _)| input);
        if let Some((_, Takeover::Around(copy))) = takeover {
            plan.idle[copy] = true;
        }
        plan.in_place.push(replaced);
        plan.place.entry(id).or_insert(match replaced {
            Some(input) => Place::Input(input),
            None => Place::Output(k as u32),
        });
    }
    // What nobody but a kernel's epilogue reads lies where that puts what it makes of it, if that survives.
    for (at, step) in steps.iter().enumerate() {
        let Draft::Kernel { write: Some(c), epilogue, .. } = &step.draft else { continue };
        if plan.live[c] != (at, at) || plan.place.contains_key(c) {
            continue;
        }
        let size = |id: Id| (world.ty[id.index()].bytes(), world.ty[id.index()].dtype.size());
        let stores = epilogue.iter().flat_map(|group| group.outputs.iter().map(move |(id, _)| (group, *id)));
        let place = stores.filter(|(group, id)| size(*id) == size(*c) && makes_in_place(step, group, *id, |x| x == *c));
        let place = place.filter_map(|(_, id)| plan.place.get(&id)).find(|place| matches!(place, Place::Output(_)));
        if let Some(&place) = place {
            plan.place.insert(*c, place);
        }
    }
    let mut leases: Vec<Lease> = Vec::new();
    for (i, &bytes) in partial_bytes.iter().enumerate().filter(|(_, b)| **b > 0) {
        leases.push(Lease { value: None, step: i, bytes, first: i, last: i });
    }
    let owners = owners(world, steps, &plan);
    let mut lasts: HashMap<Id, usize> = HashMap::new();
    for (id, owner) in &owners {
        let last = lasts.entry(*owner).or_insert(0);
        *last = plan.live[id].1.max(*last);
    }
    for (&id, &start) in &written {
        if !plan.place.contains_key(&id) && !owners.contains_key(&id) {
            let bytes = world.ty[id.index()].bytes().max(1);
            let last = lasts.get(&id).copied().unwrap_or(plan.live[&id].1);
            leases.push(Lease { value: Some(id), step: start, bytes, first: start, last });
        }
    }
    // Largest first; the order of equals must not depend on a hash map's.
    leases.sort_by_key(|l| (std::cmp::Reverse(l.bytes), l.first, l.value));
    // By offset: the end, and when it is in use.
    let mut placed: BTreeMap<(usize, usize), (usize, usize, usize)> = BTreeMap::new();
    for (number, lease) in leases.iter().enumerate() {
        let bytes = lease.bytes.next_multiple_of(ALIGN);
        // The first gap between those that are in use at the same time.
        let mut offset = 0;
        for (&(start, _), &(end, first, last)) in &placed {
            if offset + bytes <= start {
                break;
            }
            if first <= lease.last && lease.first <= last {
                offset = offset.max(end);
            }
        }
        placed.insert((offset, number), (offset + bytes, lease.first, lease.last));
        plan.arena_bytes = plan.arena_bytes.max(offset + bytes);
        match lease.value {
            Some(id) => {
                plan.place.insert(id, Place::Arena(offset));
            }
            None => plan.partial[lease.step].0 = offset,
        }
    }
    for (id, owner) in owners {
        plan.place.insert(id, plan.place[&owner]);
    }
    plan
}

/// The values of the arena that lie where another one does: the one whose memory it is.
fn owners(world: &World, steps: &[Step], plan: &Plan) -> BTreeMap<Id, Id> {
    let in_arena = |id: &Id| !plan.place.contains_key(id);
    let mut writers: HashMap<Id, usize> = HashMap::new();
    steps.iter().flat_map(Step::writes).for_each(|id| *writers.entry(id).or_insert(0) += 1);
    let mut owners: BTreeMap<Id, Id> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let mut taken: Vec<Id> = Vec::new();
        let made = step.writes();
        for group in step.groups() {
            for (id, _) in group.outputs.iter().filter(|(id, _)| in_arena(id) && writers[id] == 1) {
                let size = |id: Id| (world.ty[id.index()].bytes(), world.ty[id.index()].dtype.size());
                // A kernel writes its result before its epilogue reads anything: that may lie in no other's place.
                let is_made_here = |x: &Id| !matches!(step.draft, Draft::Kernel { .. }) || made.contains(x);
                let is_free = |x: &Id| {
                    let is_last = plan.live[x].1 == at && writers.contains_key(x) && !taken.contains(x);
                    let is_last = is_last && is_made_here(x);
                    is_last && in_arena(x) && size(*x) == size(*id) && size(*id).0 > 0
                };
                let mut read = group.reads().filter(is_free);
                if let Some(x) = read.find(|x| makes_in_place(step, group, *id, |other| other == *x)) {
                    taken.push(x);
                    owners.insert(*id, owners.get(&x).copied().unwrap_or(x));
                }
            }
        }
    }
    owners
}

/// How a value may take over an input's memory.
#[derive(Clone, Copy)]
enum Takeover {
    /// One step reads each element and writes it back changed.
    Elementwise,
    /// The value is a copy of the input with parts written over, and the copy is this step: without it the parts are
    /// written where the input lies.
    Around(usize),
}

/// Whether the steps that write `id` may write over `input`: nothing reads it later, and what they read of it
/// themselves is read element by element at the same places, or is what they would copy.
fn may_replace(bound: &Bound, steps: &[Step], id: Id, input: u32) -> Option<Takeover> {
    let is_input = |x: Id| bound.get(&x) == Some(&input);
    let mut writers = steps.iter().enumerate().filter(|(_, s)| s.writes().contains(&id));
    let (at, writer) = writers.next()?;
    if steps[at + 1..].iter().any(|s| s.reads().into_iter().any(is_input)) {
        return None;
    }
    if let Draft::Group(group) = &writer.draft
        && group.copied().is_some_and(is_input)
    {
        return Some(Takeover::Around(at));
    }
    if writer.kernel_reads().any(is_input) {
        return None;
    }
    let writes_it = |g: &&GroupDraft| g.outputs.iter().any(|(o, _)| *o == id);
    let group = writer.groups().iter().find(writes_it).filter(|_| writers.next().is_none())?;
    makes_in_place(writer, group, id, is_input).then_some(Takeover::Elementwise)
}

/// Whether a group of a step stores the whole of `id` and reads some input, if at all, only element by element at the
/// same places, and no other group of the step, which runs at once, reads that.
fn makes_in_place(step: &Step, group: &GroupDraft, id: Id, is_input: impl Fn(Id) -> bool) -> bool {
    if step.groups().iter().any(|g| !std::ptr::eq(g, group) && g.reads().any(&is_input)) {
        return false;
    }
    let whole = Layout::contiguous(&group.expr.space);
    let stores_whole = group.outputs.iter().any(|(o, kind)| *o == id && *kind == OutputKind::Store(whole.clone()));
    let same_place = group.expr.sources.iter().all(|s| match s {
        ExprSource::Node { id, layout } => !is_input(*id) || *layout == whole,
        _ => true,
    });
    stores_whole && same_place && !group.expr.is_row()
}
