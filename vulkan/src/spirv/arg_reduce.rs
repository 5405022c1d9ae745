//! The index of an extreme along rows. Owns what "first" and "largest" mean among floats: a NaN wins, the first of
//! equals stands.

use std::sync::Arc;

use rspirv::spirv::Op;
use tapeflow_core::driver::ArgReduce;
use tapeflow_ir::DType;

use super::Unsupported;
use super::asm::{Asm, Id, Ty};
use super::number::{below, indices, offset, plus, plus_constant, smaller, times, ty_for};
use super::spread::{Spread, TURNS};
use crate::stage::{Lowering, Stage, Target};

/// Translates it.
///
/// # Errors
/// For rows of no elements, and dtypes that the device lacks.
pub(super) fn arg_reduce(reduce: &ArgReduce, target: &Target) -> Result<Lowering, Unsupported> {
    let ArgReduce { dtype, rows, length, .. } = *reduce;
    if length == 0 && rows > 0 {
        return Err(Unsupported("the index of an extreme of no elements".into()));
    }
    if dtype == DType::F64 && !target.has_f64 || dtype.size() == 1 && !target.has_bytes || dtype.is_half() {
        return Err(Unsupported(format!("this device has no index of an extreme in {dtype}")));
    }
    let mut lowering = Lowering::default();
    if rows == 0 {
        return Ok(lowering);
    }
    let (rows, length) = (rows as u64, length as u64);
    let row = Row { reduce, number: ty_for(length + TURNS) };
    let lanes = if target.is_cpu { target.subgroup } else { 1 << target.workgroup.clamp(1, 256).ilog2() };
    let short = length <= 64 || rows >= 8 * u64::from(lanes);
    if short && length < TURNS / 2 || target.is_cpu && !target.has_shuffle && length < TURNS {
        lowering.stages.push(row.by_invocation(rows, length, target));
        return Ok(lowering);
    }
    // Pieces of a row, so that few rows are work for many workgroups; their extremes are the row of a second stage.
    let wanted = if target.is_cpu { 8 } else { 64 };
    let least = length.div_ceil(u64::from(lanes) * (TURNS / 2));
    let most = length.div_ceil(u64::from(lanes) * 256);
    let pieces = wanted.min(most).div_ceil(rows).max(least);
    let piece = length.div_ceil(pieces);
    let pieces = length.div_ceil(piece);
    if rows * pieces >= 1 << 31 {
        return Err(Unsupported(format!("{rows} rows are beyond this device")));
    }
    lowering.stages.push(row.by_workgroup(Candidates { rows, length, piece, pieces, indirect: false }, lanes, target));
    if pieces > 1 {
        lowering.partial_bytes = (rows * pieces * 8) as usize;
        let second = Candidates { rows, length: pieces, piece: pieces, pieces: 1, indirect: true };
        lowering.stages.push(row.by_workgroup(second, lanes, target));
    }
    Ok(lowering)
}

/// What a stage compares.
struct Candidates {
    rows: u64,
    /// Of a row.
    length: u64,
    /// Of a piece, but for the last, and how many there are in a row.
    piece: u64,
    pieces: u64,
    /// Whether they are those elements whose numbers the partial results hold.
    indirect: bool,
}

struct Row<'k> {
    reduce: &'k ArgReduce,
    /// The type of an index.
    number: Ty,
}

impl Row<'_> {
    /// The type of a value in a register: a bool is compared as the byte that it is.
    fn ty(&self) -> Ty {
        if self.reduce.dtype == DType::Bool { Ty::U32 } else { Ty::of(self.reduce.dtype) }
    }

    /// Element `at` of the row that begins at `row`.
    fn load(&self, asm: &mut Asm, row: Id, at: Id) -> Id {
        let dtype = if self.reduce.dtype == DType::Bool { DType::U8 } else { self.reduce.dtype };
        let address = asm.element(row, self.number, at, dtype.size() as u32);
        asm.load(dtype, address)
    }

    /// Whether `a` is more extreme than `b`, not equal to it.
    fn beats(&self, asm: &mut Asm, a: Id, b: Id) -> Id {
        let max = self.reduce.max;
        let op = match self.reduce.dtype {
            dtype if dtype.is_float() => {
                // Unordered: true as well if either is a NaN, of which `b` must not be one.
                let op = if max { Op::FUnordGreaterThan } else { Op::FUnordLessThan };
                let (wins, number) = (asm.op(op, Ty::Bool, &[a, b]), asm.op(Op::FOrdEqual, Ty::Bool, &[b, b]));
                return asm.op(Op::LogicalAnd, Ty::Bool, &[wins, number]);
            }
            DType::I32 | DType::I64 if max => Op::SGreaterThan,
            DType::I32 | DType::I64 => Op::SLessThan,
            _ if max => Op::UGreaterThan,
            _ => Op::ULessThan,
        };
        asm.op(op, Ty::Bool, &[a, b])
    }

    /// The better of two candidates, value and index; the first of equals.
    fn better(&self, asm: &mut Asm, a: [Id; 2], b: [Id; 2]) -> [Id; 2] {
        let (wins, loses) = (self.beats(asm, b[0], a[0]), self.beats(asm, a[0], b[0]));
        let earlier = below(asm, b[1], a[1]);
        let equal = asm.op(Op::LogicalNot, Ty::Bool, &[loses]);
        let first = asm.op(Op::LogicalAnd, Ty::Bool, &[equal, earlier]);
        let take = asm.op(Op::LogicalOr, Ty::Bool, &[wins, first]);
        [asm.select(self.ty(), take, b[0], a[0]), asm.select(self.number, take, b[1], a[1])]
    }

    /// The best of the candidates `start`, `start + step`, … before `end`, which come in the order of their indices.
    fn scan(
        &self,
        asm: &mut Asm,
        first: [Id; 2],
        range: [Id; 3],
        get: impl FnOnce(&mut Asm, Id) -> [Id; 2],
    ) -> [Id; 2] {
        let carried = [(self.ty(), first[0]), (self.number, first[1])];
        let last = asm.count(self.number, range, &carried, |asm, at, carried| {
            let candidate = get(asm, at);
            let wins = self.beats(asm, candidate[0], carried[0]);
            vec![
                asm.select(self.ty(), wins, candidate[0], carried[0]),
                asm.select(self.number, wins, candidate[1], carried[1]),
            ]
        });
        [last[0], last[1]]
    }

    fn write(&self, asm: &mut Asm, out: Id, ty: Ty, at: Id, index: Id) {
        let address = asm.element(out, ty, at, 8);
        let index = if self.number == Ty::U64 { index } else { asm.op(Op::UConvert, Ty::U64, &[index]) };
        asm.store_as(Ty::U64, address, index);
    }

    /// Rows by single invocations.
    fn by_invocation(&self, rows: u64, length: u64, target: &Target) -> Stage {
        let spread = Spread::new(target, rows, length);
        let mut asm = spread.begin(target);
        let (data, out) = (asm.operand(0), asm.operand(1));
        spread.each(&mut asm, |asm, at| {
            let ty = spread.ty();
            let begin = offset(asm, ty, &[(at, length as i64)]);
            let row = asm.element(data, Ty::U64, begin, self.reduce.dtype.size() as u32);
            let zero = asm.int(self.number, 0);
            let first = [self.load(asm, row, zero), zero];
            let range = [1, length as i64, 1].map(|value| asm.int(self.number, value));
            let best = self.scan(asm, first, range, |asm, at| [self.load(asm, row, at), at]);
            self.write(asm, out, ty, at, best[1]);
        });
        spread.finish(asm, false)
    }

    /// Pieces of rows by workgroups.
    fn by_workgroup(&self, candidates: Candidates, lanes: u32, target: &Target) -> Stage {
        let Candidates { rows, length, piece, pieces, indirect } = candidates;
        let (ty, number) = (self.ty(), self.number);
        let groups = rows * pieces;
        let mut shader = Asm::new(target, lanes, groups);
        let asm = &mut shader;
        let data = asm.operand(0);
        let partial = (indirect || pieces > 1).then(|| asm.partial());
        let out = if pieces > 1 { partial } else { None }.unwrap_or_else(|| asm.operand(1));
        let group = asm.group;
        let places = indices(asm, Ty::U32, group, &[rows, pieces]);
        let begin = offset(asm, Ty::U32, &[(places[0], self.reduce.length as i64)]);
        let row = asm.element(data, Ty::U64, begin, self.reduce.dtype.size() as u32);
        let list = partial.map(|partial| {
            let begin = offset(asm, Ty::U32, &[(places[0], length as i64)]);
            asm.element(partial, Ty::U64, begin, 8)
        });
        let typed = |asm: &mut Asm, id: Id| if number == Ty::U64 { asm.op(Op::UConvert, number, &[id]) } else { id };
        let (part, local) = (typed(asm, places[1]), typed(asm, asm.local));
        let get = |asm: &mut Asm, at: Id| match list {
            Some(list) if indirect => {
                let address = asm.element(list, number, at, 8);
                let mut index = asm.load_as(Ty::U64, address);
                if number != Ty::U64 {
                    index = asm.op(Op::UConvert, number, &[index]);
                }
                [self.load(asm, row, index), index]
            }
            _ => [self.load(asm, row, at), at],
        };
        // Every invocation begins with the piece's first candidate: there may be fewer than invocations.
        let begin = times(asm, number, part, piece as i64);
        let end = plus_constant(asm, number, begin, piece as i64);
        let limit = asm.int(number, length as i64);
        let end = smaller(asm, number, end, limit);
        let first = get(asm, begin);
        let start = plus(asm, number, begin, local);
        let step = asm.int(number, lanes.into());
        let mut best = self.scan(asm, first, [start, end, step], get);
        if target.is_cpu {
            let mut mask = lanes / 2;
            while mask > 0 {
                let other = [asm.shuffle_xor(ty, best[0], mask), asm.shuffle_xor(number, best[1], mask)];
                best = self.better(asm, best, other);
                mask /= 2;
            }
        } else {
            best = self.tree(asm, best, lanes);
        }
        let (local, one) = (asm.local, asm.u32(1));
        let writes = below(asm, local, one);
        asm.when(writes, |asm| self.write(asm, out, Ty::U32, group, best[1]));
        Stage { shader: Arc::new(shader.finish()), groups, operands: 0, after_barrier: indirect }
    }

    /// The best of a workgroup's candidates, in invocation 0.
    fn tree(&self, asm: &mut Asm, best: [Id; 2], lanes: u32) -> [Id; 2] {
        let types = [self.ty(), self.number];
        let shared = types.map(|ty| asm.shared(ty, lanes));
        let local = asm.local;
        let put = |asm: &mut Asm, values: [Id; 2]| {
            for part in 0..2 {
                asm.store_shared(types[part], shared[part], local, values[part]);
            }
        };
        let get = |asm: &mut Asm, at: Id| [0, 1].map(|part| asm.load_shared(types[part], shared[part], at));
        put(asm, best);
        let mut half = lanes / 2;
        while half > 0 {
            asm.barrier();
            let limit = asm.u32(half);
            let inside = below(asm, local, limit);
            asm.when(inside, |asm| {
                let at = plus_constant(asm, Ty::U32, local, half.into());
                let (a, b) = (get(asm, local), get(asm, at));
                let better = self.better(asm, a, b);
                put(asm, better);
            });
            half /= 2;
        }
        asm.barrier();
        let zero = asm.u32(0);
        get(asm, zero)
    }
}
