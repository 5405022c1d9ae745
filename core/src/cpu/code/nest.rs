//! Neighbouring calls as a nest of loops: over rows, and in each row over its elements once for every reduction whose
//! result the rest of the row waits for. Owns what can be compiled, and which values need memory.

use tapeflow_ir::{Op, Reduce};

use super::InPlace;
use super::native::{arity, extreme, is_native, micro, operand_format, result_format};
use super::record::{Access, Format, Id, Micro, Pair, Recorder};
use crate::cpu::fold::PIECE;
use crate::cpu::isa::Isa;
use crate::cpu::lower::Context;
use crate::cpu::step::{Lowered, Meaning, Place, Read, Shape, Slot, Step};
use crate::cpu::vector::BLOCK;

/// A reduction along the row that a pass makes.
#[derive(Clone, Copy, Debug)]
pub struct Fold {
    /// Of what kind.
    pub reduce: Reduce,
    /// Where the row's result goes.
    pub slot: Slot,
}

/// What is done once per row, and then for all its elements.
#[derive(Debug, Default)]
pub struct Pass {
    /// Once.
    pub outer: Vec<Micro>,
    /// For the elements of a register.
    pub lanes: Vec<Micro>,
    /// What `Micro::Fold` numbers.
    pub folds: Vec<Fold>,
}

/// The loops of a piece of code.
#[derive(Debug, Default)]
pub struct Nest {
    /// Whether the rows of a tile may be taken as one.
    pub flat: bool,
    /// In order.
    pub passes: Vec<Pass>,
    /// Slots whose memory is read.
    pub reads: Vec<Slot>,
    /// Slots whose memory is written.
    pub writes: Vec<Slot>,
    /// Of those, the large ones that nothing here reads again.
    pub streams: Vec<Slot>,
    /// Which outputs may lie where operands lie.
    pub in_place: InPlace,
}

/// A nest, and what it stands for.
#[derive(Debug)]
pub struct Found {
    /// The loops.
    pub nest: Nest,
    /// How many calls.
    pub count: usize,
    /// Which folds, by their number among the sinks.
    pub folds: Vec<usize>,
    /// Slots that there were not yet.
    pub places: Vec<Place>,
    /// Slots whose memory has one row for all rows.
    pub columns: Vec<Slot>,
}

/// Where a value of the nest comes from: a pass's elements, what stands before them, or a reduction of them.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Lanes(usize),
    Outer(usize),
    Folded(usize),
}

/// The nest of as many of the first calls as can be compiled. `loads` and `sinks` are what is done before and after
/// all calls.
pub fn longest(calls: &[Step], around: (&[Step], &[Step]), lowered: &Lowered, context: &Context<'_>) -> Option<Found> {
    let (loads, sinks) = around;
    let by_row = context.by_row;
    let short = by_row && !(BLOCK..=PIECE).contains(&context.length);
    let fits = |step: &&Step| match **step {
        Step::Call { meaning, shape, .. } => {
            // Rows that do not fill a register, or that the law of sums cuts into pieces, are better off in primitives.
            is_native(meaning) && !(short && shape != Shape::Lanes)
        }
        _ => false,
    };
    let count = calls.iter().take_while(fits).count();
    let sums = |step: &Step| matches!(step, Step::Call { meaning, .. } if is_fold(*meaning));
    if count < 2 && !(count == 1 && by_row && sums(&calls[0])) {
        return None;
    }
    let (calls, rest) = calls.split_at(count);
    let flat = calls.iter().all(|step| matches!(step, Step::Call { shape: Shape::Lanes, .. }));
    let mut nesting = Nesting {
        places: lowered.places.clone(),
        values: vec![None; lowered.places.len()],
        passes: vec![],
        repeated: vec![None; lowered.places.len()],
        reads: vec![],
        writes: vec![],
        flat: flat && !by_row,
        scales: context.isa.vectors() == Isa::Avx512,
    };
    for step in loads {
        if let Step::Load { input, dst, .. } = *step
            && context.inputs[input].1 == Read::Repeated
            && by_row
            && !short
        {
            nesting.repeated[dst as usize] = Some((input, None));
        }
    }
    for step in calls {
        nesting.place(step);
    }
    let mut folds = Vec::new();
    for (number, sink) in sinks.iter().enumerate() {
        match nesting.column_fold(sink, context).filter(|_| !short && rest.is_empty()) {
            Some(fold) => folds.push((number, fold)),
            None => nesting.keep(sink),
        }
    }
    rest.iter().for_each(|step| nesting.keep(step));
    nesting.flat = flat && folds.is_empty() && !nesting.reads_repeated(calls);
    for step in calls {
        nesting.record(step);
    }
    for (_, (output, src, reduce)) in &folds {
        nesting.record_fold(*output, *src, *reduce);
    }
    let columns = (0..lowered.places.len()).filter(|&slot| nesting.is_column(slot as Slot)).map(|slot| slot as Slot);
    let columns = columns.collect();
    let places = nesting.places[lowered.places.len()..].to_vec();
    Some(Found {
        count,
        folds: folds.iter().map(|(number, _)| *number).collect(),
        places,
        columns,
        nest: nesting.finish(context),
    })
}

/// A slot's part in the nest.
#[derive(Clone, Copy, Debug)]
struct Known {
    origin: Origin,
    /// Whether another pass reads it from memory.
    across: bool,
    /// Whether it is read from memory after the nest.
    outside: bool,
    id: Id,
}

struct Recording {
    outer: Recorder,
    lanes: Recorder,
    folds: Vec<Fold>,
    /// Of what is read after the nest; they come last.
    stores: Vec<Micro>,
    /// Whether something is stored for after the nest once per row.
    stores_rows: bool,
}

impl Recording {
    fn new(scales: bool) -> Recording {
        let [outer, lanes] = [scales; 2].map(Recorder::new);
        Recording { outer, lanes, folds: vec![], stores: vec![], stores_rows: false }
    }

    fn finish(self) -> Pass {
        self.stores.iter().for_each(|&store| {
            self.lanes.push(store);
        });
        Pass { outer: self.outer.finish(), lanes: self.lanes.finish(), folds: self.folds }
    }
}

struct Nesting {
    places: Vec<Place>,
    values: Vec<Option<Known>>,
    passes: Vec<Recording>,
    /// Registers that are loaded with one row for all rows: of which parameter, and the slot that is read instead.
    repeated: Vec<Option<(usize, Option<Slot>)>>,
    reads: Vec<Slot>,
    writes: Vec<Slot>,
    /// Whether the rows of a tile may be taken as one.
    flat: bool,
    /// Whether the machine scales by powers of two (`VSCALEFPS`).
    scales: bool,
}

fn is_outer(shape: Shape) -> bool {
    matches!(shape, Shape::One | Shape::Rows)
}

fn is_fold(meaning: Meaning) -> bool {
    matches!(meaning, Meaning::Op(Op::Reduce(..), ..))
}

impl Nesting {
    /// What a later step reads must lie in memory, if it is a value of the nest.
    fn keep(&mut self, step: &Step) {
        for &slot in step.slots(&[]).1 {
            if let Some(known) = &mut self.values[slot as usize] {
                known.outside = true;
            }
        }
    }

    /// Whether a slot's memory has one row for all rows: what only the passes of one row tell each other.
    fn is_column(&self, slot: Slot) -> bool {
        let known = self.values[slot as usize];
        !self.flat
            && matches!(known, Some(Known { origin: Origin::Lanes(_), across: true, outside: false, .. }))
            && matches!(self.places[slot as usize], Place::Register(_))
    }

    fn reads_repeated(&self, calls: &[Step]) -> bool {
        let repeated = |slot: &Slot| self.repeated[*slot as usize].is_some();
        calls.iter().any(|step| step.slots(&[]).1.iter().any(repeated))
    }

    /// The output, the value and the reduction of a fold down columns that the nest can make: of its own values, and
    /// of what lies in memory before it.
    fn column_fold(&self, sink: &Step, context: &Context<'_>) -> Option<(usize, Slot, Reduce)> {
        let Step::Fold { output, src } = *sink else { return None };
        let reduce = context.columns[output]?;
        match (self.values[src as usize], self.places[src as usize]) {
            (Some(Known { origin: Origin::Lanes(_), .. }), _) | (None, Place::Input(_)) => Some((output, src, reduce)),
            _ => None,
        }
    }

    /// Finds the pass of a call, and which of its operands come from memory.
    fn place(&mut self, step: &Step) {
        let Step::Call { dst, src, shape, meaning, .. } = *step else { return };
        let src = &src[..arity(meaning)];
        let pass_of = |slot: &Slot| match self.values[*slot as usize]?.origin {
            Origin::Lanes(pass) | Origin::Outer(pass) => Some(pass),
            Origin::Folded(pass) => Some(pass + 1),
        };
        let pass = src.iter().filter_map(pass_of).max().unwrap_or(0);
        for &slot in src {
            let Some(known) = &mut self.values[slot as usize] else { continue };
            known.across |= match known.origin {
                Origin::Lanes(from) => from != pass,
                Origin::Outer(from) => from != pass || !is_outer(shape),
                Origin::Folded(_) => true,
            };
        }
        let origin = match is_outer(shape) {
            _ if is_fold(meaning) => Origin::Folded(pass),
            true => Origin::Outer(pass),
            false => Origin::Lanes(pass),
        };
        let outside = matches!(self.places[dst as usize], Place::Output(_));
        self.values[dst as usize] = Some(Known { origin, across: is_fold(meaning), outside, id: 0 });
        if self.passes.len() <= pass {
            self.passes.resize_with(pass + 1, || Recording::new(self.scales));
        }
    }

    /// The slot of the parameter's own row, of a register that repeats it.
    fn row_itself(&mut self, slot: Slot) -> Option<Slot> {
        let (input, known) = (*self.repeated.get(slot as usize)?)?;
        let own = known.unwrap_or_else(|| {
            self.places.push(Place::Input(input));
            (self.places.len() - 1) as Slot
        });
        self.repeated[slot as usize] = Some((input, Some(own)));
        Some(own)
    }

    fn read(&mut self, slot: Slot) {
        if !self.reads.contains(&slot) {
            self.reads.push(slot);
        }
    }

    /// Writes the micro-operations of a call.
    fn record(&mut self, step: &Step) {
        let Step::Call { dst, src, step, splat, meaning, .. } = *step else { return };
        let Some(Known { origin, across, outside, .. }) = self.values[dst as usize] else { return };
        let (Origin::Lanes(pass) | Origin::Outer(pass) | Origin::Folded(pass)) = origin;
        let outer = matches!(origin, Origin::Outer(_));
        let mut ids = [0; 3];
        for operand in 0..arity(meaning) {
            let slot = src[operand];
            let format = operand_format(meaning, operand);
            let known = self.values[slot as usize];
            let micro = match (known, self.places[slot as usize]) {
                (Some(Known { origin: Origin::Lanes(from), id, .. }), _) if from == pass && !outer => Err(id),
                (Some(Known { origin: Origin::Outer(from), id, .. }), _) if from == pass && outer => Err(id),
                (None, Place::Constant(bits)) if format == Format::Word => Ok(Micro::Constant(bits as u32)),
                _ => {
                    let (slot, access) = match known.map(|known| known.origin) {
                        Some(Origin::Lanes(_)) => (slot, self.element(slot)),
                        Some(_) => (slot, Access::Row),
                        None if splat[operand] && step[operand] == 0 => (slot, Access::Fixed),
                        None if splat[operand] || outer => (slot, Access::Row),
                        None => self.row_itself(slot).map_or((slot, Access::Lane(0)), |own| (own, Access::Column(0))),
                    };
                    self.read(slot);
                    Ok(Micro::Load(slot, access, format))
                }
            };
            let recording = &self.passes[pass];
            let recorder = if outer { &recording.outer } else { &recording.lanes };
            ids[operand] = micro.map_or_else(|id| id, |micro| recorder.push(micro));
        }
        let (element, format) = (self.element(dst), result_format(meaning));
        let recording = &mut self.passes[pass];
        if let Meaning::Op(Op::Reduce(reduce, _), ..) = meaning {
            recording.lanes.push(Micro::Fold(recording.folds.len(), 0, ids[0]));
            recording.folds.push(Fold { reduce, slot: dst });
            recording.stores_rows |= outside;
            self.writes.push(dst);
            return;
        }
        let recorder = if outer { &recording.outer } else { &recording.lanes };
        let id = micro(recorder, meaning, ids);
        if outer && (across || outside) {
            recorder.push(Micro::Store(dst, Access::Row, format, id));
            recording.stores_rows |= outside;
        } else if outside {
            recording.stores.push(Micro::Store(dst, element, format, id));
        } else if across {
            recorder.push(Micro::Store(dst, element, format, id));
        }
        if across || outside {
            self.writes.push(dst);
        }
        if let Some(known) = &mut self.values[dst as usize] {
            known.id = id;
        }
    }

    /// How an element of a value of the nest is found in memory.
    fn element(&self, slot: Slot) -> Access {
        if self.is_column(slot) { Access::Column(0) } else { Access::Lane(0) }
    }

    /// Folds a value down the columns: into the row that has been folded so far.
    fn record_fold(&mut self, output: usize, src: Slot, reduce: Reduce) {
        let known = self.values[src as usize];
        let pass = match known {
            Some(Known { origin: Origin::Lanes(pass), .. }) => pass,
            _ => self.passes.len() - 1,
        };
        self.places.push(Place::Fold(output));
        let to = (self.places.len() - 1) as Slot;
        if known.is_none() {
            self.read(src);
        }
        self.read(to);
        self.writes.push(to);
        let recorder = &self.passes[pass].lanes;
        let value = match known {
            Some(known) => known.id,
            None => recorder.push(Micro::Load(src, Access::Lane(0), Format::Word)),
        };
        let folded = recorder.push(Micro::Load(to, Access::Column(0), Format::Word));
        let folded = match reduce {
            Reduce::Sum => recorder.pair(Pair::Add, folded, value),
            Reduce::Max => extreme(recorder, Pair::Larger, Pair::And, folded, value),
            Reduce::Min => extreme(recorder, Pair::Smaller, Pair::Or, folded, value),
        };
        recorder.push(Micro::Store(to, Access::Column(0), Format::Word, folded));
    }

    fn finish(self, context: &Context<'_>) -> Nest {
        let Nesting { places, passes, reads, writes, flat, .. } = self;
        let large = |slot: &Slot| match places[*slot as usize] {
            Place::Output(output) => context.large[output] && !reads.contains(slot),
            _ => false,
        };
        let streams = writes.iter().copied().filter(large).collect();
        fetch(&passes, &places);
        let last = passes.len().saturating_sub(1);
        let earlier = passes[..last].iter().any(|pass| !pass.stores.is_empty());
        let rows = passes.iter().any(|pass| pass.stores_rows);
        let passes: Vec<Pass> = passes.into_iter().map(Recording::finish).collect();
        let copies = passes.iter().any(|pass| {
            let is_load = |id: Id| matches!(pass.lanes[id as usize], Micro::Load(..));
            pass.lanes.iter().any(|micro| matches!(*micro, Micro::Store(_, Access::Lane(_), _, id) if is_load(id)))
        });
        let in_place = InPlace { elements: !(earlier || copies), rows: !(earlier || rows || copies) };
        Nest { flat, passes, reads, writes, streams, in_place }
    }
}

/// Lets passes ask for the next row of what the pass before them reads first: so memory is at work while they compute.
fn fetch(passes: &[Recording], places: &[Place]) {
    let mut known = Vec::new();
    for (number, pass) in passes.iter().enumerate() {
        for slot in pass.lanes.rows_read() {
            if matches!(places[slot as usize], Place::Input(_)) && !known.contains(&slot) {
                known.push(slot);
                if let Some(next) = passes.get(number + 1).filter(|next| !next.lanes.is_empty()) {
                    next.lanes.push(Micro::Fetch(slot, Access::Lane(0)));
                }
            }
        }
    }
}
