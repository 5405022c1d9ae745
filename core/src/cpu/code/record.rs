//! Micro-operations on the elements of a register, and the recording of formulas as such: the transcendental functions
//! of `math` are run once on [`Traced`] numbers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Add, Div, Mul, Sub};

use crate::cpu::real::{Integer, ROUND, Real, scaled};
use crate::cpu::step::Slot;

/// A micro-operation, by its place in a body; what others read is its result.
pub type Id = u32;

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// f32, or as many i32.
    Vector,
    /// A bit for each.
    Mask,
}

/// How what a register holds lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Of a vector: as it is.
    Word,
    /// Of a mask: a byte each.
    Byte,
    /// Of a vector of f32 that are numbers of bf16.
    Bf16,
    /// Of a vector of f32 that are numbers of f16.
    F16,
}

impl Format {
    /// What a register holds of it.
    pub fn kind(self) -> Kind {
        if self == Format::Byte { Kind::Mask } else { Kind::Vector }
    }

    /// Bytes of an element.
    pub fn size(self) -> i32 {
        match self {
            Format::Word => 4,
            Format::Byte => 1,
            Format::Bf16 | Format::F16 => 2,
        }
    }
}

/// Which element of a slot's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Those of a register: from the current one on they are register 0.
    Lane(u8),
    /// The same, of memory that has one row for all rows.
    Column(u8),
    /// The current row's, for all lanes.
    Row,
    /// The only one.
    Fixed,
}

/// Operations of two vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pair {
    Add,
    Sub,
    Mul,
    Div,
    /// `a > b ? a : b`
    Larger,
    /// `a < b ? a : b`
    Smaller,
    And,
    Or,
    Xor,
    IntAdd,
    IntSub,
}

/// Operations of two masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bits {
    And,
    Or,
    Xor,
}

/// Ordered comparisons, and `Ne`, which is true of NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Either is NaN.
    Unordered,
}

/// One micro-operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Micro {
    /// The same bits in every lane.
    Constant(u32),
    /// From memory.
    Load(Slot, Access, Format),
    /// Of two vectors.
    Pair(Pair, Id, Id),
    /// `a · b + c`, rounded once.
    MulAdd(Id, Id, Id),
    /// Square root.
    Sqrt(Id),
    /// To an integer value, by the immediate of `VRNDSCALEPS`.
    Round(Id, u8),
    /// Bits shifted left.
    ShiftLeft(Id, u8),
    /// i32 shifted right.
    ShiftRight(Id, u8),
    /// The first times two to the power of the second, which is whole.
    Scale(Id, Id),
    /// The magnitude of the first with the sign of the second.
    CopySign(Id, Id),
    /// Of two vectors, to a mask.
    Compare(Relation, Id, Id),
    /// `mask ? a : b`
    Select(Id, Id, Id),
    /// Of two masks.
    Bits(Bits, Id, Id),
    /// The other bits of a mask.
    Not(Id),
    /// 1.0 where the mask is set, else 0.
    Float(Id),
    /// To the nearest f16, ties to even.
    RoundF16(Id),
    /// To memory. No result.
    Store(Slot, Access, Format, Id),
    /// Asks for the element a row further, which is read soon. No result.
    Fetch(Slot, Access),
    /// Into the accumulator of that number; of which register of a row. No result.
    Fold(usize, u8, Id),
}

impl Micro {
    /// What the result is.
    pub fn kind(&self) -> Kind {
        match self {
            Micro::Load(_, _, format) => format.kind(),
            Micro::Compare(..) | Micro::Bits(..) | Micro::Not(_) => Kind::Mask,
            _ => Kind::Vector,
        }
    }

    /// Whether it has a result.
    pub fn has_result(&self) -> bool {
        !matches!(self, Micro::Store(..) | Micro::Fold(..) | Micro::Fetch(..))
    }

    /// The same operation with other operands.
    pub fn map(self, f: impl Fn(Id) -> Id) -> Micro {
        match self {
            Micro::Constant(_) | Micro::Load(..) | Micro::Fetch(..) => self,
            Micro::Pair(pair, a, b) => Micro::Pair(pair, f(a), f(b)),
            Micro::MulAdd(a, b, c) => Micro::MulAdd(f(a), f(b), f(c)),
            Micro::Sqrt(a) => Micro::Sqrt(f(a)),
            Micro::Round(a, mode) => Micro::Round(f(a), mode),
            Micro::ShiftLeft(a, bits) => Micro::ShiftLeft(f(a), bits),
            Micro::ShiftRight(a, bits) => Micro::ShiftRight(f(a), bits),
            Micro::Scale(a, b) => Micro::Scale(f(a), f(b)),
            Micro::CopySign(a, b) => Micro::CopySign(f(a), f(b)),
            Micro::Compare(relation, a, b) => Micro::Compare(relation, f(a), f(b)),
            Micro::Select(mask, a, b) => Micro::Select(f(mask), f(a), f(b)),
            Micro::Bits(bits, a, b) => Micro::Bits(bits, f(a), f(b)),
            Micro::Not(a) => Micro::Not(f(a)),
            Micro::Float(a) => Micro::Float(f(a)),
            Micro::RoundF16(a) => Micro::RoundF16(f(a)),
            Micro::Store(slot, access, format, a) => Micro::Store(slot, access, format, f(a)),
            Micro::Fold(fold, copy, a) => Micro::Fold(fold, copy, f(a)),
        }
    }

    /// What it reads.
    pub fn operands(&self) -> [Option<Id>; 3] {
        match *self {
            Micro::Constant(_) | Micro::Load(..) | Micro::Fetch(..) => [None; 3],
            Micro::Sqrt(a)
            | Micro::Round(a, _)
            | Micro::ShiftLeft(a, _)
            | Micro::ShiftRight(a, _)
            | Micro::Not(a)
            | Micro::Float(a)
            | Micro::RoundF16(a)
            | Micro::Store(_, _, _, a)
            | Micro::Fold(_, _, a) => [Some(a), None, None],
            Micro::Pair(_, a, b)
            | Micro::Scale(a, b)
            | Micro::CopySign(a, b)
            | Micro::Compare(_, a, b)
            | Micro::Bits(_, a, b) => [Some(a), Some(b), None],
            Micro::MulAdd(a, b, c) | Micro::Select(a, b, c) => [Some(a), Some(b), Some(c)],
        }
    }
}

/// A body being written. Equal operations are written once.
#[derive(Debug)]
pub struct Recorder {
    state: RefCell<State>,
    /// Whether the machine scales by powers of two.
    scales: bool,
}

#[derive(Debug, Default)]
struct State {
    micros: Vec<Micro>,
    known: HashMap<Micro, Id>,
}

impl Recorder {
    /// For a machine that has `Micro::Scale`, or one that has not.
    pub fn new(scales: bool) -> Recorder {
        Recorder { state: RefCell::default(), scales }
    }

    /// Adds an operation.
    pub fn push(&self, micro: Micro) -> Id {
        let State { micros, known } = &mut *self.state.borrow_mut();
        let micro = merged(micros, known, micro);
        if !micro.has_result() {
            micros.push(micro);
            return (micros.len() - 1) as Id;
        }
        *known.entry(micro).or_insert_with(|| {
            micros.push(micro);
            (micros.len() - 1) as Id
        })
    }

    pub fn pair(&self, pair: Pair, a: Id, b: Id) -> Id {
        self.push(Micro::Pair(pair, a, b))
    }

    pub fn constant(&self, value: f32) -> Id {
        self.push(Micro::Constant(value.to_bits()))
    }

    /// Slots of words that are read element by element.
    pub fn rows_read(&self) -> Vec<Slot> {
        let slot = |micro: &Micro| match *micro {
            Micro::Load(slot, Access::Lane(_), Format::Word) => Some(slot),
            _ => None,
        };
        self.state.borrow().micros.iter().filter_map(slot).collect()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.state.borrow().micros.is_empty()
    }

    /// What was written and serves something.
    pub fn finish(self) -> Vec<Micro> {
        let micros = self.state.into_inner().micros;
        let mut needed: Vec<bool> = micros.iter().map(|micro| !micro.has_result()).collect();
        for id in (0..micros.len()).rev() {
            if needed[id] {
                micros[id].operands().into_iter().flatten().for_each(|operand| needed[operand as usize] = true);
            }
        }
        let mut out: Vec<Micro> = Vec::with_capacity(micros.len());
        let mut moved: Vec<Id> = Vec::with_capacity(micros.len());
        for (micro, needed) in micros.into_iter().zip(needed) {
            moved.push(out.len() as Id);
            if needed {
                out.push(micro.map(|id| moved[id as usize]));
            }
        }
        out
    }
}

/// `(a + c) + d` of integers as `a + (c + d)`.
fn merged(micros: &mut Vec<Micro>, known: &mut HashMap<Micro, Id>, micro: Micro) -> Micro {
    let Micro::Pair(Pair::IntAdd, a, d) = micro else { return micro };
    let Micro::Pair(Pair::IntAdd, a, c) = micros[a as usize] else { return micro };
    let (Micro::Constant(c), Micro::Constant(d)) = (micros[c as usize], micros[d as usize]) else { return micro };
    let sum = Micro::Constant(c.wrapping_add(d));
    let sum = *known.entry(sum).or_insert_with(|| {
        micros.push(sum);
        (micros.len() - 1) as Id
    });
    Micro::Pair(Pair::IntAdd, a, sum)
}

/// A number of a formula that is being recorded.
#[derive(Clone, Copy)]
pub struct Traced<'a> {
    recorder: Option<&'a Recorder>,
    value: Value,
}

#[derive(Clone, Copy)]
enum Value {
    Constant(f32),
    Recorded(Id),
}

impl<'a> Traced<'a> {
    pub fn new(recorder: &'a Recorder, id: Id) -> Traced<'a> {
        Traced { recorder: Some(recorder), value: Value::Recorded(id) }
    }

    /// Where it was recorded.
    pub fn id(self) -> Id {
        self.within(self.recorder)
    }

    fn within(self, recorder: Option<&'a Recorder>) -> Id {
        match (self.value, recorder) {
            (Value::Recorded(id), _) => id,
            (Value::Constant(value), Some(recorder)) => recorder.constant(value),
            (Value::Constant(_), None) => unreachable!("a formula of constants only has no place to be recorded"),
        }
    }

    fn both(self, other: Self, micro: impl FnOnce(Id, Id) -> Micro) -> (&'a Recorder, Id) {
        let recorder = self.recorder.or(other.recorder);
        let (a, b) = (self.within(recorder), other.within(recorder));
        let recorder = recorder.unwrap_or_else(|| unreachable!("as above"));
        (recorder, recorder.push(micro(a, b)))
    }

    fn pair(self, pair: Pair, other: Self) -> Self {
        let (recorder, id) = self.both(other, |a, b| Micro::Pair(pair, a, b));
        Traced::new(recorder, id)
    }

    fn one(self, micro: impl FnOnce(Id) -> Micro) -> Self {
        let recorder = self.recorder.unwrap_or_else(|| unreachable!("as above"));
        Traced::new(recorder, recorder.push(micro(self.id())))
    }
}

macro_rules! operator {
    ($($trait:ident $method:ident),*) => {$(
        impl $trait for Traced<'_> {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                self.pair(Pair::$trait, other)
            }
        }
    )*};
}
operator!(Add add, Sub sub, Mul mul, Div div);

/// The result of a comparison that is being recorded.
#[derive(Clone, Copy)]
pub struct TracedMask<'a>(&'a Recorder, Id);

/// An integer of a formula that is being recorded.
#[derive(Clone, Copy)]
pub struct TracedInt<'a>(Traced<'a>);

impl<'a> Real for Traced<'a> {
    type Mask = TracedMask<'a>;
    type Int = TracedInt<'a>;

    fn of(value: f32) -> Self {
        Traced { recorder: None, value: Value::Constant(value) }
    }
    fn at_least(self, low: f32) -> Self {
        Traced::of(low).pair(Pair::Larger, self)
    }
    fn at_most(self, high: f32) -> Self {
        Traced::of(high).pair(Pair::Smaller, self)
    }
    fn abs(self) -> Self {
        self.pair(Pair::And, Traced::of(f32::from_bits(0x7fff_ffff)))
    }
    fn copysign(self, sign: Self) -> Self {
        let (recorder, id) = self.both(sign, Micro::CopySign);
        Traced::new(recorder, id)
    }
    fn less(self, other: Self) -> TracedMask<'a> {
        let (recorder, id) = self.both(other, |a, b| Micro::Compare(Relation::Lt, a, b));
        TracedMask(recorder, id)
    }
    fn select(mask: TracedMask<'a>, yes: Self, no: Self) -> Self {
        let TracedMask(recorder, mask) = mask;
        let (yes, no) = (yes.within(Some(recorder)), no.within(Some(recorder)));
        Traced::new(recorder, recorder.push(Micro::Select(mask, yes, no)))
    }
    fn bits(self) -> TracedInt<'a> {
        TracedInt(self)
    }
    fn scaled(self, shifted: Self) -> Self {
        if !self.recorder.or(shifted.recorder).is_some_and(|recorder| recorder.scales) {
            return scaled(self, shifted);
        }
        let (recorder, id) = self.both(shifted - Traced::of(ROUND), Micro::Scale);
        Traced::new(recorder, id)
    }
}

impl<'a> Integer for TracedInt<'a> {
    type Real = Traced<'a>;

    fn plus(self, value: i32) -> Self {
        TracedInt(self.0.pair(Pair::IntAdd, Traced::of(f32::from_bits(value as u32))))
    }
    fn minus(self, other: Self) -> Self {
        TracedInt(self.0.pair(Pair::IntSub, other.0))
    }
    fn halved(self) -> Self {
        TracedInt(self.0.one(|a| Micro::ShiftRight(a, 1)))
    }
    fn shifted(self, bits: u8) -> Self {
        TracedInt(self.0.one(|a| Micro::ShiftLeft(a, bits)))
    }
    fn float(self) -> Traced<'a> {
        self.0
    }
}
