//! Rows added into (`ScatterAdd`): the sources of a destination are added in the order of their indices, so that the
//! bits are fixed. Owns the choice among the ways to do so, and the two simple ones; lists per destination stand in
//! `chain`.

use rspirv::spirv::Op;
use tapeflow_core::driver::{CheckIndex, Gather, ScatterAdd};
use tapeflow_ir::DType;

use super::asm::{Asm, Id, Ty};
use super::index::{Indices, check_dtype, check_index};
use super::number::{begun_with_zero, indices, offset, plus, plus_constant, times};
use super::spread::{Spread, TURNS};
use super::{Unsupported, chain};
use crate::stage::{Lowering, Stage, Target};

/// Comparisons for which every destination may look at every index.
const DIRECT: u64 = 32 << 10;
/// Indices that are few enough for that on a device of many invocations.
const FEW: usize = 32;

/// Translates it.
///
/// # Errors
/// For dtypes that indices or sums cannot have, and those that the device lacks.
pub(super) fn scatter_add(scatter: &ScatterAdd, target: &Target) -> Result<Lowering, Unsupported> {
    let gather = &scatter.0;
    let Gather { dtype, index_dtype, outer, extent, inner, picks, along } = *gather;
    check_dtype(index_dtype)?;
    let lacks = dtype == DType::F64 && !target.has_f64 || dtype.size() == 1 && !target.has_bytes || dtype.is_half();
    if dtype == DType::Bool || lacks {
        return Err(Unsupported(format!("this device has no scatter_add in {dtype}")));
    }
    if outer == 0 || inner == 0 || extent == 0 && picks == 0 {
        return Ok(Lowering { status_words: 2, ..Lowering::default() });
    }
    if extent == 0 {
        // Nothing can be added to: every index is bad.
        let count = if along { outer * picks * inner } else { picks };
        return check_index(&CheckIndex { dtype: index_dtype, count, extent }, target);
    }
    let add = Add { gather };
    let mut lowering = Lowering { status_words: 2, ..Lowering::default() };
    if picks == 0 {
        lowering.stages.push(fill(target, (outer * extent * inner * dtype.size()) as u64, |asm| asm.operand(2)));
        return Ok(lowering);
    }
    if along {
        lowering.stages.push(fill(target, (outer * extent * inner * dtype.size()) as u64, |asm| asm.operand(2)));
        // An invocation can only do so many turns.
        let most = if target.is_cpu { TURNS as usize / 2 } else { picks };
        for begin in (0..picks).step_by(most) {
            lowering.stages.push(add.columns(begin, (begin + most).min(picks), target));
        }
        return Ok(lowering);
    }
    let comparisons = (outer * extent * inner) as u64 * picks as u64;
    if comparisons <= DIRECT || !target.is_cpu && picks <= FEW {
        lowering.stages.push(add.direct(target));
        return Ok(lowering);
    }
    chain::stages(gather, target, &mut lowering)?;
    Ok(lowering)
}

/// `a + b` in a dtype.
pub(super) fn sum(asm: &mut Asm, dtype: DType, a: Id, b: Id) -> Id {
    let ty = Ty::of(dtype);
    if dtype.is_float() { asm.rounded(Op::FAdd, ty, &[a, b]) } else { asm.op(Op::IAdd, ty, &[a, b]) }
}

/// The zero of a dtype.
pub(super) fn zero(asm: &mut Asm, dtype: DType) -> Id {
    let ty = Ty::of(dtype);
    if dtype.is_float() { asm.float(ty, 0.0) } else { asm.int(ty, 0) }
}

/// A stage that writes zeros.
pub(super) fn fill(target: &Target, bytes: u64, address: impl FnOnce(&mut Asm) -> Id) -> Stage {
    let ty = [Ty::U64, Ty::U32, Ty::U8].into_iter().find(|ty| bytes.is_multiple_of(ty.size().into()));
    let ty = ty.unwrap_or(Ty::U8);
    let spread = Spread::new(target, bytes / u64::from(ty.size()), 0);
    let mut asm = spread.begin(target);
    let address = address(&mut asm);
    spread.each(&mut asm, |asm, at| {
        let to = asm.element(address, spread.ty(), at, ty.size());
        let mut zero = if ty == Ty::U64 { asm.u64(0) } else { asm.u32(0) };
        if ty == Ty::U8 {
            zero = asm.op(Op::UConvert, Ty::U8, &[zero]);
        }
        asm.store_as(ty, to, zero);
    });
    spread.finish(asm, false)
}

struct Add<'k> {
    gather: &'k Gather,
}

impl Add<'_> {
    /// One stage: every element of the result looks for its sources among all indices.
    fn direct(&self, target: &Target) -> Stage {
        let Gather { dtype, index_dtype, outer, extent, inner, picks, .. } = *self.gather;
        let size = dtype.size() as u32;
        let spread = Spread::new(target, (outer * extent * inner) as u64, picks as u64);
        let number = spread.ty();
        let mut asm = spread.begin(target);
        let list = Indices::new(&mut asm, index_dtype, extent, 1);
        let (data, out) = (asm.operand(0), asm.operand(2));
        spread.each(&mut asm, |asm, at| {
            let places = indices(asm, number, at, &[outer as u64, extent as u64, inner as u64]);
            let [item, row, within] = places[..] else { unreachable!("invariant: one index per extent") };
            let row = if number == Ty::U64 { row } else { asm.op(Op::UConvert, Ty::U64, &[row]) };
            let own = offset(asm, number, &[(item, (picks * inner) as i64), (within, 1)]);
            let first = asm.element(data, Ty::U64, own, size);
            let nothing = asm.int(number, 0);
            let is_first = asm.op(Op::IEqual, Ty::Bool, &[at, nothing]);
            let (zero, ty) = (zero(asm, dtype), Ty::of(dtype));
            let range = [0, picks as u32, 1].map(|value| asm.u32(value));
            let last = asm.count(Ty::U32, range, &[(ty, zero)], |asm, pick, carried| {
                let index = list.get(asm, Ty::U32, pick);
                list.report(asm, &index, Some(is_first));
                let here = asm.op(Op::IEqual, Ty::Bool, &[index.place, row]);
                let here = asm.op(Op::LogicalAnd, Ty::Bool, &[here, index.inside]);
                let added = |asm: &mut Asm| {
                    let by = offset(asm, Ty::U32, &[(pick, inner as i64 * i64::from(size))]);
                    let address = plus(asm, Ty::U64, first, by);
                    let value = asm.load(dtype, address);
                    vec![sum(asm, dtype, carried[0], value)]
                };
                asm.either(here, &[ty], added, |_| vec![carried[0]])
            });
            let to = asm.element(out, number, at, size);
            let total = begun_with_zero(asm, Ty::of(dtype), last[0]);
            asm.store(dtype, to, total);
        });
        spread.finish(asm, false)
    }

    /// An index for every element: each column has one owner, which adds into memory. The result is zero before the
    /// first of these stages.
    fn columns(&self, begin: usize, end: usize, target: &Target) -> Stage {
        let Gather { dtype, index_dtype, outer, extent, inner, picks, .. } = *self.gather;
        let size = dtype.size() as u32;
        let spread = Spread::new(target, (outer * inner) as u64, (end - begin) as u64);
        let number = super::number::ty_for((outer * picks.max(extent) * inner) as u64 + (1 << 20));
        let mut asm = spread.begin(target);
        let list = Indices::new(&mut asm, index_dtype, extent, 1);
        let (data, out) = (asm.operand(0), asm.operand(2));
        spread.each(&mut asm, |asm, at| {
            let at = if number == spread.ty() { at } else { asm.op(Op::UConvert, number, &[at]) };
            let places = indices(asm, number, at, &[outer as u64, inner as u64]);
            let of_item = times(asm, number, places[0], (picks * inner) as i64);
            let first = plus(asm, number, of_item, places[1]);
            let first = plus_constant(asm, number, first, (begin * inner) as i64);
            let own = offset(asm, number, &[(places[0], (extent * inner) as i64), (places[1], 1)]);
            let column = asm.element(out, Ty::U64, own, size);
            let range = [begin as u32, end as u32, 1].map(|value| asm.u32(value));
            asm.count(Ty::U32, range, &[(number, first)], |asm, _, carried| {
                let index = list.get(asm, number, carried[0]);
                list.report(asm, &index, None);
                asm.when(index.inside, |asm| {
                    let from = asm.element(data, number, carried[0], size);
                    let by = times(asm, Ty::U64, index.place, inner as i64);
                    let to = asm.element(column, Ty::U64, by, size);
                    let (value, there) = (asm.load(dtype, from), asm.load(dtype, to));
                    let sum = sum(asm, dtype, there, value);
                    asm.store(dtype, to, sum);
                });
                vec![plus_constant(asm, number, carried[0], inner as i64)]
            });
        });
        spread.finish(asm, true)
    }
}
