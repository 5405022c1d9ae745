//! Kernels that take a row as a whole: its order, by counting for each element those that come before it; its running
//! sums, one invocation a row.

use rspirv::spirv::Op;
use tapeflow_core::driver::{ArgSort, CumSum};
use tapeflow_ir::{Binary, Compare, DType};

use super::Unsupported;
use super::arithmetic::{binary, compare};
use super::asm::{Asm, Id, Ty};
use super::number::{below, indices, offset, plus, ty_for};
use super::spread::{Spread, TURNS};
use crate::stage::{Lowering, Target};

fn check(dtype: DType, what: &str, length: u64, target: &Target) -> Result<(), Unsupported> {
    if dtype == DType::F64 && !target.has_f64 || dtype.size() == 1 && !target.has_bytes || dtype.is_half() {
        return Err(Unsupported(format!("this device has no {what} of {dtype}")));
    }
    if target.is_cpu && length >= TURNS {
        return Err(Unsupported(format!("the {what} of rows of {length} elements is beyond this device")));
    }
    Ok(())
}

/// Translates it: an element's rank is how many come before it.
///
/// # Errors
/// For dtypes and lengths that the device lacks.
pub(super) fn arg_sort(sort: &ArgSort, target: &Target) -> Result<Lowering, Unsupported> {
    let ArgSort { dtype, descending, rows, length } = *sort;
    let (rows, length) = (rows as u64, length as u64);
    check(dtype, "order", length, target)?;
    // Each element is compared with all others of its row: a longer one would keep a device from its screen.
    if length > 1 << 16 {
        return Err(Unsupported(format!("the order of rows of {length} elements is beyond this device")));
    }
    let mut lowering = Lowering::default();
    if rows * length == 0 {
        return Ok(lowering);
    }
    // A bool is compared as the byte that it is.
    let dtype = if dtype == DType::Bool { DType::U8 } else { dtype };
    let spread = Spread::new(target, rows * length, length);
    let number = ty_for(length);
    let mut asm = spread.begin(target);
    let (data, out) = (asm.operand(0), asm.operand(1));
    spread.each(&mut asm, |asm, at| {
        let ty = spread.ty();
        let place = indices(asm, ty, at, &[rows, length]);
        let begin = offset(asm, ty, &[(place[0], length as i64)]);
        let row = asm.element(data, Ty::U64, begin, dtype.size() as u32);
        let own = converted(asm, ty, number, place[1]);
        let load = |asm: &mut Asm, at: Id| {
            let address = asm.element(row, number, at, dtype.size() as u32);
            asm.load(dtype, address)
        };
        let value = load(asm, own);
        let range = [0, length as i64, 1].map(|value| asm.int(number, value));
        let zero = asm.int(number, 0);
        let counted = asm.count(number, range, &[(number, zero)], |asm, other, carried| {
            let candidate = load(asm, other);
            let (a, b) = if descending { (value, candidate) } else { (candidate, value) };
            let first = is_before(asm, dtype, a, b);
            let last = is_before(asm, dtype, b, a);
            let equal = asm.op(Op::LogicalNot, Ty::Bool, &[last]);
            let earlier = below(asm, other, own);
            let stays = asm.op(Op::LogicalAnd, Ty::Bool, &[equal, earlier]);
            let comes = asm.op(Op::LogicalOr, Ty::Bool, &[first, stays]);
            let one = asm.int(number, 1);
            let more = plus(asm, number, carried[0], one);
            vec![asm.select(number, comes, more, carried[0])]
        });
        let rank = converted(asm, number, Ty::U64, counted[0]);
        let slot = plus(asm, Ty::U64, begin, rank);
        let address = asm.element(out, Ty::U64, slot, 8);
        let own = converted(asm, number, Ty::U64, own);
        asm.store_as(Ty::U64, address, own);
    });
    lowering.stages.push(spread.finish(asm, false));
    Ok(lowering)
}

fn converted(asm: &mut Asm, from: Ty, to: Ty, value: Id) -> Id {
    if from == to { value } else { asm.op(Op::UConvert, to, &[value]) }
}

/// Whether `a` is smaller than `b`, a NaN being larger than everything else.
fn is_before(asm: &mut Asm, dtype: DType, a: Id, b: Id) -> Id {
    let smaller = compare(asm, Compare::Lt, dtype, a, b);
    if !dtype.is_float() {
        return smaller;
    }
    let a_is = asm.op(Op::FOrdEqual, Ty::Bool, &[a, a]);
    let b_is_not = asm.op(Op::FUnordNotEqual, Ty::Bool, &[b, b]);
    let against_nan = asm.op(Op::LogicalAnd, Ty::Bool, &[a_is, b_is_not]);
    asm.op(Op::LogicalOr, Ty::Bool, &[smaller, against_nan])
}

/// Translates it.
///
/// # Errors
/// For dtypes and lengths that the device lacks.
pub(super) fn cum_sum(sum: &CumSum, target: &Target) -> Result<Lowering, Unsupported> {
    let CumSum { dtype, rows, length } = *sum;
    let (rows, length) = (rows as u64, length as u64);
    check(dtype, "running sum", length, target)?;
    let mut lowering = Lowering::default();
    if rows * length == 0 {
        return Ok(lowering);
    }
    let spread = Spread::new(target, rows, length);
    let number = ty_for(length);
    let mut asm = spread.begin(target);
    let (data, out) = (asm.operand(0), asm.operand(1));
    spread.each(&mut asm, |asm, at| {
        let ty = spread.ty();
        let begin = offset(asm, ty, &[(at, length as i64)]);
        let size = dtype.size() as u32;
        let (from, to) = (asm.element(data, Ty::U64, begin, size), asm.element(out, Ty::U64, begin, size));
        let zero = asm.int(number, 0);
        let address = asm.element(from, number, zero, size);
        let first = asm.load(dtype, address);
        let address = asm.element(to, number, zero, size);
        asm.store(dtype, address, first);
        let range = [1, length as i64, 1].map(|value| asm.int(number, value));
        asm.count(number, range, &[(Ty::of(dtype), first)], |asm, at, carried| {
            let address = asm.element(from, number, at, size);
            let next = asm.load(dtype, address);
            let total = binary(asm, Binary::Add, dtype, carried[0], next);
            let address = asm.element(to, number, at, size);
            asm.store(dtype, address, total);
            vec![total]
        });
    });
    lowering.stages.push(spread.finish(asm, false));
    Ok(lowering)
}
