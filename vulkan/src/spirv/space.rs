//! Iteration spaces in two parts, outer and inner axes, and the readers and writers that walk them. Owns merging axes
//! and index arithmetic; knows neither functions nor how work is shared out.

use rspirv::spirv::Op;
use smallvec::SmallVec;
use tapeflow_core::driver::{Dims, Layout, Source, Strides};
use tapeflow_ir::DType;

use super::asm::{Asm, Id, Ty};
use super::function::Level;
use super::{arithmetic, random};

/// Number of elements.
pub(super) fn product(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// The layout of contiguous elements.
pub(super) fn contiguous(dims: &[usize]) -> Layout {
    let mut strides: Strides = dims.iter().map(|_| 0).collect();
    let mut stride = 1;
    for axis in (0..dims.len()).rev() {
        strides[axis] = stride;
        stride *= dims[axis].max(1) as isize;
    }
    Layout { offset: 0, shifts: SmallVec::new(), strides }
}

/// Where memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An operand of the kernel.
    Operand(usize),
    /// Among the partial results, bytes from their start.
    Partial(usize),
}

/// What is read at an index.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Memory(Place),
    Scalar { slot: usize },
    Iota,
    Random { slot: usize, ordinal: u32 },
}

/// Something to be read or written over a space.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) kind: Kind,
    pub(super) dtype: DType,
    pub(super) layout: Layout,
}

impl Access {
    pub(super) fn of(source: &Source, dtype: DType, rank: usize) -> Access {
        let (kind, layout) = match source {
            Source::Operand { operand, layout } => (Kind::Memory(Place::Operand(*operand)), layout.clone()),
            Source::Scalar { slot } => {
                let strides = (0..rank).map(|_| 0).collect();
                (Kind::Scalar { slot: *slot }, Layout { offset: 0, shifts: SmallVec::new(), strides })
            }
            Source::Iota(layout) => (Kind::Iota, layout.clone()),
            Source::Random { slot, ordinal, layout } => {
                (Kind::Random { slot: *slot, ordinal: *ordinal }, layout.clone())
            }
        };
        Access { kind, dtype, layout }
    }

    pub(super) fn memory(place: Place, dtype: DType, layout: Layout) -> Access {
        Access { kind: Kind::Memory(place), dtype, layout }
    }
}

/// A space cut into outer and inner axes, each merged where all accesses walk them as one.
#[derive(Clone, Debug)]
pub(super) struct Space {
    pub(super) outer: Dims,
    pub(super) inner: Dims,
    /// Of each access, over the outer and the inner axes.
    strides: Vec<[Strides; 2]>,
    /// Of index arithmetic: u32 wherever numbers and offsets fit 31 bits.
    pub(super) index: Ty,
}

impl Space {
    /// The first `split` axes are outer.
    pub(super) fn new(dims: &[usize], split: usize, accesses: &[&Access]) -> Space {
        let part = |dims: &[usize], from: usize| {
            let strides: Vec<&[isize]> =
                accesses.iter().map(|access| &access.layout.strides[from..from + dims.len()]).collect();
            collapse(dims, &strides)
        };
        let (outer, outer_strides) = part(&dims[..split], 0);
        let (inner, inner_strides) = part(&dims[split..], split);
        let strides: Vec<[Strides; 2]> =
            outer_strides.into_iter().zip(inner_strides).map(|(outer, inner)| [outer, inner]).collect();
        let reach = |strides: &[Strides; 2]| -> u128 {
            let dims = outer.iter().chain(&inner);
            strides.iter().flatten().zip(dims).map(|(&s, &n)| s.unsigned_abs() as u128 * n as u128).sum()
        };
        let most = strides.iter().map(reach).max().unwrap_or(0).max(product(dims) as u128);
        let index = if most < 1 << 30 { Ty::U32 } else { Ty::U64 };
        Space { outer, inner, strides, index }
    }

    /// Without outer axes, the last inner axis made the only inner one.
    pub(super) fn by_runs(mut self) -> Space {
        if self.outer.is_empty() && self.inner.len() > 1 {
            let last = self.inner.len() - 1;
            self.outer = self.inner.drain(..last).collect();
            for strides in &mut self.strides {
                strides[0] = strides[1].drain(..last).collect();
            }
        }
        self
    }

    /// How often an access changes.
    pub(super) fn level(&self, access: usize) -> Level {
        let moves = |part: usize| self.strides[access][part].iter().any(|&stride| stride != 0);
        match (moves(1), moves(0)) {
            (true, _) => Level::Inner,
            (false, true) => Level::Outer,
            (false, false) => Level::Fixed,
        }
    }

    /// The index of element number `at` of `dims`.
    fn coordinates(&self, asm: &mut Asm, mut at: Id, dims: &[usize]) -> Vec<Id> {
        let mut coordinates = vec![at; dims.len()];
        for axis in (1..dims.len()).rev() {
            let extent = asm.int(self.index, dims[axis] as i64);
            coordinates[axis] = asm.op(Op::UMod, self.index, &[at, extent]);
            at = asm.op(Op::UDiv, self.index, &[at, extent]);
        }
        if let Some(first) = coordinates.first_mut() {
            *first = at;
        }
        coordinates
    }

    /// The outer index of element number `at`.
    pub(super) fn outer_index(&self, asm: &mut Asm, at: Id) -> Vec<Id> {
        self.coordinates(asm, at, &self.outer)
    }

    /// The inner index of element number `at`.
    pub(super) fn inner_index(&self, asm: &mut Asm, at: Id) -> Vec<Id> {
        self.coordinates(asm, at, &self.inner)
    }

    /// `Σ index·stride`, if it is not 0 everywhere.
    fn offset(&self, asm: &mut Asm, index: &[Id], strides: &[isize]) -> Option<Id> {
        let mut sum = None;
        for (&at, &stride) in index.iter().zip(strides).filter(|(_, stride)| **stride != 0) {
            let stride = (stride != 1).then(|| asm.int(self.index, stride as i64));
            let term = stride.map_or(at, |stride| asm.op(Op::IMul, self.index, &[at, stride]));
            sum = Some(sum.map_or(term, |sum| asm.op(Op::IAdd, self.index, &[sum, term])));
        }
        sum
    }
}

/// An access being emitted.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    kind: Kind,
    pub(super) dtype: DType,
    /// Its number in the space.
    number: usize,
    /// The address, the offset or the value at index (0, …, 0).
    base: Id,
    /// Seed and counter.
    stream: Option<[Id; 2]>,
}

impl Cursor {
    /// Opens access `number` of the space; outside of branches and loops.
    pub(super) fn open(asm: &mut Asm, number: usize, access: &Access) -> Cursor {
        let mut stream = None;
        let base = match access.kind {
            Kind::Memory(Place::Operand(operand)) => asm.base(operand, &access.layout, access.dtype),
            Kind::Memory(Place::Partial(bytes)) => {
                let (start, bytes) = (asm.partial(), asm.u64(bytes as u64));
                let start = asm.op(Op::IAdd, Ty::U64, &[start, bytes]);
                let offset = asm.offset(&access.layout);
                asm.element(start, Ty::U64, offset, access.dtype.size() as u32)
            }
            Kind::Scalar { slot } => scalar(asm, slot, access.dtype),
            Kind::Iota => asm.offset(&access.layout),
            Kind::Random { slot, .. } => {
                stream = Some([asm.scalar(slot), asm.scalar(slot + 1)]);
                asm.offset(&access.layout)
            }
        };
        Cursor { kind: access.kind.clone(), dtype: access.dtype, number, base, stream }
    }

    /// The same at another outer index.
    pub(super) fn at(&self, asm: &mut Asm, space: &Space, outer: &[Id]) -> Cursor {
        let base = self.moved(asm, space, outer, 0);
        Cursor { base, ..self.clone() }
    }

    fn moved(&self, asm: &mut Asm, space: &Space, index: &[Id], part: usize) -> Id {
        let Some(offset) = space.offset(asm, index, &space.strides[self.number][part]) else { return self.base };
        match self.kind {
            Kind::Memory(_) => asm.element(self.base, space.index, offset, self.dtype.size() as u32),
            Kind::Scalar { .. } => self.base,
            Kind::Iota | Kind::Random { .. } => {
                let offset = match space.index {
                    Ty::U64 => offset,
                    ty => asm.convert_signed(Op::SConvert, ty, Ty::U64, offset),
                };
                asm.op(Op::IAdd, Ty::U64, &[self.base, offset])
            }
        }
    }

    /// The value at an inner index.
    pub(super) fn read(&self, asm: &mut Asm, space: &Space, inner: &[Id]) -> Id {
        let at = self.moved(asm, space, inner, 1);
        match (&self.kind, self.stream) {
            (Kind::Memory(_), _) => asm.load(self.dtype, at),
            (Kind::Random { ordinal, .. }, Some([seed, counter])) => random::uniform(asm, seed, counter, *ordinal, at),
            _ => at,
        }
    }

    /// Stores at an inner index.
    pub(super) fn write(&self, asm: &mut Asm, space: &Space, inner: &[Id], value: Id) {
        let at = self.moved(asm, space, inner, 1);
        asm.store(self.dtype, at, value);
    }

    /// Stores element number `at`, of type `ty`, of contiguous ones.
    pub(super) fn write_at(&self, asm: &mut Asm, ty: Ty, at: Id, value: Id) {
        let at = asm.element(self.base, ty, at, self.dtype.size() as u32);
        asm.store(self.dtype, at, value);
    }
}

/// A float given by the host, which holds it as f64, as a value of `dtype`.
fn scalar(asm: &mut Asm, slot: usize, dtype: DType) -> Id {
    let bits = asm.scalar(slot);
    if asm.target.has_f64 {
        let value = asm.float_of(Ty::F64, bits);
        return arithmetic::cast(asm, DType::F64, dtype, value);
    }
    // Without f64 its bits are taken apart.
    let value = narrowed(asm, bits);
    arithmetic::cast(asm, DType::F32, dtype, value)
}

/// The f32 nearest to the f64 of these bits, ties to even; what is too small for a normal f32 becomes 0.
fn narrowed(asm: &mut Asm, bits: Id) -> Id {
    let magnitude_mask = asm.u64(i64::MAX as u64);
    let magnitude = asm.op(Op::BitwiseAnd, Ty::U64, &[bits, magnitude_mask]);
    // Rounding the 29 lower bits away carries into the exponent by itself.
    let (one, half, lower) = (asm.u64(1), asm.u64((1 << 28) - 1), asm.u32(29));
    let last = asm.op(Op::ShiftRightLogical, Ty::U64, &[magnitude, lower]);
    let last = asm.op(Op::BitwiseAnd, Ty::U64, &[last, one]);
    let rounded = asm.op(Op::IAdd, Ty::U64, &[magnitude, half]);
    let rounded = asm.op(Op::IAdd, Ty::U64, &[rounded, last]);
    let kept = asm.op(Op::ShiftRightLogical, Ty::U64, &[rounded, lower]);
    let bias = asm.u64((1023 - 127) << 23);
    let rebased = asm.op(Op::ISub, Ty::U64, &[kept, bias]);
    let (smallest, infinite, zero) = (asm.u64(1 << 23), asm.u64(0xFF << 23), asm.u64(0));
    let small = asm.op(Op::SLessThan, Ty::Bool, &[rebased, smallest]);
    let large = asm.op(Op::SGreaterThanEqual, Ty::Bool, &[rebased, infinite]);
    let value = asm.select(Ty::U64, small, zero, rebased);
    let value = asm.select(Ty::U64, large, infinite, value);
    let (nan_bound, nan) = (asm.u64(0x7FF0_0000_0000_0000), asm.u64(0x7FC0_0000));
    let is_nan = asm.op(Op::UGreaterThan, Ty::Bool, &[magnitude, nan_bound]);
    let value = asm.select(Ty::U64, is_nan, nan, value);
    let (top, place) = (asm.u32(63), asm.u32(31));
    let sign = asm.op(Op::ShiftRightLogical, Ty::U64, &[bits, top]);
    let sign = asm.op(Op::ShiftLeftLogical, Ty::U64, &[sign, place]);
    let joined = asm.op(Op::BitwiseOr, Ty::U64, &[value, sign]);
    let narrow = asm.op(Op::UConvert, Ty::U32, &[joined]);
    asm.float_of(Ty::F32, narrow)
}

/// Merges neighbouring axes wherever all accesses walk them as one, and drops axes of one element.
fn collapse(dims: &[usize], strides: &[&[isize]]) -> (Dims, Vec<Strides>) {
    let mut merged = Dims::new();
    let mut out: Vec<Strides> = strides.iter().map(|_| Strides::new()).collect();
    for (axis, &extent) in dims.iter().enumerate().filter(|(_, extent)| **extent != 1) {
        let fits = |(out, strides): (&Strides, &&[isize])| {
            out.last().is_some_and(|&outer| outer == strides[axis] * extent as isize)
        };
        match merged.last_mut() {
            Some(outer) if out.iter().zip(strides).all(fits) => {
                *outer *= extent;
                for (out, strides) in out.iter_mut().zip(strides) {
                    if let Some(stride) = out.last_mut() {
                        *stride = strides[axis];
                    }
                }
            }
            _ => {
                merged.push(extent);
                out.iter_mut().zip(strides).for_each(|(out, strides)| out.push(strides[axis]));
            }
        }
    }
    (merged, out)
}
