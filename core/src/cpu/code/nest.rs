//! Neighbouring calls as a nest of loops: over rows, and in each row over its elements once for every reduction whose
//! result the rest of the row waits for. Owns what can be compiled, and which values need memory.

use tapeflow_ir::{Binary, Compare, DType, Op, Reduce, Unary};

use super::record::{Access, Bits, Id, Kind, Micro, Pair, Recorder, Relation, Traced};
use crate::cpu::fold::PIECE;
use crate::cpu::lower::Context;
use crate::cpu::math;
use crate::cpu::step::{Lowered, Meaning, Place, Shape, Slot, Step};
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
    /// For sixteen elements.
    pub lanes: Vec<Micro>,
    /// What `Micro::Fold` numbers.
    pub folds: Vec<Fold>,
}

/// The loops of a piece of code.
#[derive(Debug)]
pub struct Nest {
    /// Whether the rows of a tile may be taken as one.
    pub flat: bool,
    /// In order.
    pub passes: Vec<Pass>,
    /// Slots whose memory is read.
    pub reads: Vec<Slot>,
    /// Slots whose memory is written.
    pub writes: Vec<Slot>,
}

/// Where a value of the nest comes from: a pass's elements, what stands before them, or a reduction of them.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Lanes(usize),
    Outer(usize),
    Folded(usize),
}

/// The nest of as many of the first calls as can be compiled, and how many they are. `sinks` read what the calls
/// computed, later.
pub fn longest(calls: &[Step], sinks: &[Step], lowered: &Lowered, context: &Context<'_>) -> Option<(Nest, usize)> {
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
    if count < 2 {
        return None;
    }
    let (calls, rest) = calls.split_at(count);
    let mut nesting = Nesting { places: &lowered.places, values: vec![None; lowered.places.len()], passes: vec![] };
    for step in calls {
        nesting.place(step);
    }
    for step in rest.iter().chain(sinks) {
        step.slots(&[]).1.iter().for_each(|&slot| nesting.keep(slot));
    }
    let flat = calls.iter().all(|step| matches!(step, Step::Call { shape: Shape::Lanes, .. }));
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for step in calls {
        nesting.record(step, &mut reads, &mut writes);
    }
    let passes = nesting.passes.into_iter().map(Recording::finish).collect();
    Some((Nest { flat, passes, reads, writes }, count))
}

fn kind(dtype: DType) -> Option<Kind> {
    match dtype {
        DType::F32 | DType::I32 | DType::U32 => Some(Kind::Vector),
        DType::Bool => Some(Kind::Mask),
        _ => None,
    }
}

/// Whether there are micro-operations for it.
fn is_native(meaning: Meaning) -> bool {
    use DType::{Bool, F32};
    match meaning {
        Meaning::Same(dtype) => kind(dtype).is_some(),
        Meaning::Op(op, from, to) => match op {
            Op::Unary(Unary::Not, _) => from == Bool,
            Op::Unary(op, _) => {
                use Unary::*;
                from == F32 && matches!(op, Neg | Abs | Floor | Ceil | Trunc | Sqrt | Exp | Exp2 | ExpM1 | Tanh | Erf)
            }
            Op::Binary(op, ..) => {
                use Binary::*;
                match from {
                    F32 => matches!(op, Add | Sub | Mul | Div | Min | Max | Copysign),
                    Bool => matches!(op, And | Or | Xor | Min | Max),
                    _ => false,
                }
            }
            Op::Compare(..) | Op::MulAdd(..) | Op::Reduce(..) => from == F32,
            Op::Select(..) => kind(to) == Some(Kind::Vector),
            Op::Cast(_) => matches!((from, to), (Bool, F32) | (F32, Bool)),
            _ => false,
        },
    }
}

/// A slot's part in the nest.
#[derive(Clone, Copy, Debug)]
struct Known {
    origin: Origin,
    /// Whether it must lie in memory.
    kept: bool,
    id: Id,
}

#[derive(Default)]
struct Recording {
    outer: Recorder,
    lanes: Recorder,
    folds: Vec<Fold>,
}

impl Recording {
    fn finish(self) -> Pass {
        Pass { outer: self.outer.finish(), lanes: self.lanes.finish(), folds: self.folds }
    }
}

struct Nesting<'a> {
    places: &'a [Place],
    values: Vec<Option<Known>>,
    passes: Vec<Recording>,
}

fn is_outer(shape: Shape) -> bool {
    matches!(shape, Shape::One | Shape::Rows)
}

fn is_fold(meaning: Meaning) -> bool {
    matches!(meaning, Meaning::Op(Op::Reduce(..), ..))
}

/// How many operands a call has.
fn arity(meaning: Meaning) -> usize {
    match meaning {
        Meaning::Op(Op::Binary(..) | Op::Compare(..), ..) => 2,
        Meaning::Op(Op::Select(..) | Op::MulAdd(..), ..) => 3,
        _ => 1,
    }
}

impl Nesting<'_> {
    /// Must lie in memory, if it is a value of the nest.
    fn keep(&mut self, slot: Slot) {
        if let Some(known) = &mut self.values[slot as usize] {
            known.kept = true;
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
            known.kept |= match known.origin {
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
        let kept = is_fold(meaning) || matches!(self.places[dst as usize], Place::Output(_));
        self.values[dst as usize] = Some(Known { origin, kept, id: 0 });
        if self.passes.len() <= pass {
            self.passes.resize_with(pass + 1, Recording::default);
        }
    }

    /// Writes the micro-operations of a call.
    fn record(&mut self, step: &Step, reads: &mut Vec<Slot>, writes: &mut Vec<Slot>) {
        let Step::Call { dst, src, step, splat, meaning, .. } = *step else { return };
        let Some(Known { origin, kept, .. }) = self.values[dst as usize] else { return };
        let (Origin::Lanes(pass) | Origin::Outer(pass) | Origin::Folded(pass)) = origin;
        let outer = matches!(origin, Origin::Outer(_));
        let recording = &self.passes[pass];
        let recorder = if outer { &recording.outer } else { &recording.lanes };
        let mut ids = [0; 3];
        for operand in 0..arity(meaning) {
            let slot = src[operand];
            let kind = operand_kind(meaning, operand);
            ids[operand] = match (self.values[slot as usize], self.places[slot as usize]) {
                (Some(Known { origin: Origin::Lanes(from), id, .. }), _) if from == pass && !outer => id,
                (Some(Known { origin: Origin::Outer(from), id, .. }), _) if from == pass && outer => id,
                (None, Place::Constant(bits)) if kind == Kind::Vector => recorder.push(Micro::Constant(bits as u32)),
                (known, _) => {
                    let access = match known.map(|known| known.origin) {
                        Some(Origin::Lanes(_)) => Access::Lane(0),
                        Some(_) => Access::Row,
                        None if splat[operand] && step[operand] == 0 => Access::Fixed,
                        None if splat[operand] || outer => Access::Row,
                        None => Access::Lane(0),
                    };
                    if !reads.contains(&slot) {
                        reads.push(slot);
                    }
                    recorder.push(Micro::Load(slot, access, kind))
                }
            };
        }
        if let Meaning::Op(Op::Reduce(reduce, _), ..) = meaning {
            recorder.push(Micro::Fold(recording.folds.len(), ids[0]));
            self.passes[pass].folds.push(Fold { reduce, slot: dst });
            writes.push(dst);
            return;
        }
        let id = micro(recorder, meaning, ids);
        if kept {
            recorder.push(Micro::Store(dst, if outer { Access::Row } else { Access::Lane(0) }, id));
            writes.push(dst);
        }
        if let Some(known) = &mut self.values[dst as usize] {
            known.id = id;
        }
    }
}

fn operand_kind(meaning: Meaning, operand: usize) -> Kind {
    let vector_or_mask = |dtype| kind(dtype).unwrap_or(Kind::Vector);
    match meaning {
        Meaning::Op(Op::Select(..), ..) if operand == 0 => Kind::Mask,
        Meaning::Op(_, dtype, _) | Meaning::Same(dtype) => vector_or_mask(dtype),
    }
}

/// The micro-operations of one call, as its primitive computes it.
fn micro(recorder: &Recorder, meaning: Meaning, [a, b, c]: [Id; 3]) -> Id {
    let Meaning::Op(op, from, _) = meaning else { return a };
    let x = Traced::new(recorder, a);
    match op {
        Op::Unary(op, _) => match op {
            Unary::Not => recorder.push(Micro::Not(a)),
            Unary::Neg => recorder.pair(Pair::Xor, a, recorder.constant(-0.0)),
            Unary::Abs => recorder.pair(Pair::And, a, recorder.push(Micro::Constant(0x7fff_ffff))),
            Unary::Floor => recorder.push(Micro::Round(a, 0x09)),
            Unary::Ceil => recorder.push(Micro::Round(a, 0x0a)),
            Unary::Trunc => recorder.push(Micro::Round(a, 0x0b)),
            Unary::Sqrt => recorder.push(Micro::Sqrt(a)),
            Unary::Exp => math::exp(x).id(),
            Unary::Exp2 => math::exp2(x).id(),
            Unary::ExpM1 => math::expm1(x).id(),
            Unary::Tanh => math::tanh(x).id(),
            Unary::Erf => math::erf(x).id(),
            other => unreachable!("{other:?} is not native"),
        },
        Op::Binary(op, ..) if from == DType::Bool => match op {
            Binary::And | Binary::Min => recorder.push(Micro::Bits(Bits::And, a, b)),
            Binary::Or | Binary::Max => recorder.push(Micro::Bits(Bits::Or, a, b)),
            _ => recorder.push(Micro::Bits(Bits::Xor, a, b)),
        },
        Op::Binary(op, ..) => match op {
            Binary::Add => recorder.pair(Pair::Add, a, b),
            Binary::Sub => recorder.pair(Pair::Sub, a, b),
            Binary::Mul => recorder.pair(Pair::Mul, a, b),
            Binary::Div => recorder.pair(Pair::Div, a, b),
            Binary::Min => extreme(recorder, Pair::Smaller, Pair::Or, a, b),
            Binary::Max => extreme(recorder, Pair::Larger, Pair::And, a, b),
            Binary::Copysign => recorder.push(Micro::CopySign(a, b)),
            other => unreachable!("{other:?} is not native"),
        },
        Op::Compare(op, ..) => {
            let relation = match op {
                Compare::Eq => Relation::Eq,
                Compare::Ne => Relation::Ne,
                Compare::Lt => Relation::Lt,
                Compare::Le => Relation::Le,
                Compare::Gt => Relation::Gt,
                Compare::Ge => Relation::Ge,
            };
            recorder.push(Micro::Compare(relation, a, b))
        }
        Op::Select(..) => recorder.push(Micro::Select(a, b, c)),
        Op::MulAdd(..) => recorder.push(Micro::MulAdd(a, b, c)),
        Op::Cast(_) if from == DType::Bool => recorder.push(Micro::Float(a)),
        Op::Cast(_) => recorder.push(Micro::Compare(Relation::Ne, a, recorder.constant(0.0))),
        other => unreachable!("{other:?} is not native"),
    }
}

/// `math::min32` and `max32`: NaN if either is; −0 is smaller than +0.
fn extreme(recorder: &Recorder, pair: Pair, zeros: Pair, a: Id, b: Id) -> Id {
    let chosen = recorder.pair(pair, a, b);
    let equal = recorder.push(Micro::Compare(Relation::Eq, a, b));
    let both = recorder.pair(zeros, a, b);
    let chosen = recorder.push(Micro::Select(equal, both, chosen));
    let nan = recorder.push(Micro::Compare(Relation::Unordered, a, a));
    recorder.push(Micro::Select(nan, a, chosen))
}
