//! Kernels that read indices: rows picked (`Gather`) and the check of a list of indices.
//! Owns the meaning of an index (negative counts from the end) and the report of a bad one.

use rspirv::dr::Operand;
use rspirv::spirv::{MemorySemantics, Op, Scope};
use tapeflow_core::driver::{CheckIndex, Gather};
use tapeflow_ir::DType;

use super::Unsupported;
use super::asm::{Asm, Id, Ty};
use super::number::{indices, offset, plus, plus_constant, sign_extended, times};
use super::spread::Spread;
use crate::stage::{Lowering, Target};

/// A list of indices of one of the index dtypes, in a shader.
pub(super) struct Indices {
    dtype: DType,
    extent: u64,
    /// Address of the list, u64.
    list: Id,
    status_block: Id,
    status: Id,
}

/// An index that was read.
pub(super) struct Index {
    /// As it stands there, i64.
    raw: Id,
    /// Counted from the beginning of the axis, u64; 0 if it is out of range.
    pub place: Id,
    /// Whether it is in range.
    pub inside: Id,
}

/// Whether indices can have a dtype.
///
/// # Errors
/// If not.
pub(super) fn check_dtype(dtype: DType) -> Result<(), Unsupported> {
    match dtype {
        DType::I32 | DType::U32 | DType::I64 => Ok(()),
        _ => Err(Unsupported(format!("this device has no indices in {dtype}"))),
    }
}

impl Indices {
    /// Of an axis of that extent; the list is an operand. Ask for it outside of branches and loops.
    pub(super) fn new(asm: &mut Asm, dtype: DType, extent: usize, operand: usize) -> Indices {
        let (list, status_block, status) = (asm.operand(operand), asm.status_block(), asm.status());
        Indices { dtype, extent: extent as u64, list, status_block, status }
    }

    /// Reads index `at`, a number of type `ty`.
    pub(super) fn get(&self, asm: &mut Asm, ty: Ty, at: Id) -> Index {
        let address = asm.element(self.list, ty, at, self.dtype.size() as u32);
        let value = asm.load_as(Ty::stored(self.dtype), address);
        let raw = match self.dtype {
            DType::I32 => sign_extended(asm, value),
            DType::U32 => asm.op(Op::UConvert, Ty::U64, &[value]),
            _ => value,
        };
        let (zero, extent) = (asm.u64(0), asm.u64(self.extent));
        let negative = asm.op(Op::SLessThan, Ty::Bool, &[raw, zero]);
        // Wrapping is harmless: what wraps is out of range on both sides.
        let moved = plus(asm, Ty::U64, raw, extent);
        let place = asm.select(Ty::U64, negative, moved, raw);
        let inside = asm.op(Op::ULessThan, Ty::Bool, &[place, extent]);
        let place = asm.select(Ty::U64, inside, place, zero);
        Index { raw, place, inside }
    }

    /// Reports the index, if `wanted` and it is out of range.
    pub(super) fn report(&self, asm: &mut Asm, index: &Index, wanted: Option<Id>) {
        let mut bad = asm.op(Op::LogicalNot, Ty::Bool, &[index.inside]);
        if let Some(wanted) = wanted {
            bad = asm.op(Op::LogicalAnd, Ty::Bool, &[bad, wanted]);
        }
        asm.when(bad, |asm| {
            let (least, most) = (asm.u64(i64::from(i32::MIN) as u64), asm.u64(i32::MAX as u64));
            let low = asm.op(Op::SLessThan, Ty::Bool, &[index.raw, least]);
            let high = asm.op(Op::SGreaterThan, Ty::Bool, &[index.raw, most]);
            let clamped = asm.select(Ty::U64, low, least, index.raw);
            let clamped = asm.select(Ty::U64, high, most, clamped);
            let value = asm.op(Op::UConvert, Ty::U32, &[clamped]);
            let one = asm.u32(1);
            let own = asm.element(self.status_block, Ty::U32, self.status, 4);
            let next = plus_constant(asm, Ty::U64, own, 4);
            atomic(asm, Op::AtomicIAdd, self.status_block, one);
            atomic(asm, Op::AtomicSMin, own, value);
            atomic(asm, Op::AtomicSMax, next, value);
        });
    }
}

/// An atomic operation on a word in memory. Some compilers go by the sign of its type and not of the instruction.
fn atomic(asm: &mut Asm, op: Op, address: Id, value: Id) {
    let (word, value) = match op {
        Op::AtomicSMin | Op::AtomicSMax => (Ty::I32, asm.op(Op::Bitcast, Ty::I32, &[value])),
        _ => (Ty::U32, value),
    };
    let pointer = asm.pointer(word, address);
    let (scope, relaxed) = (asm.u32(Scope::Device as u32), asm.u32(MemorySemantics::RELAXED.bits()));
    let ty = asm.ty(word);
    let operands = [Operand::IdRef(pointer), Operand::IdScope(scope), Operand::IdMemorySemantics(relaxed)];
    asm.emit(op, ty, [&operands[..], &[Operand::IdRef(value)]].concat());
}

/// Translates a check.
///
/// # Errors
/// For dtypes that indices cannot have.
pub(super) fn check_index(check: &CheckIndex, target: &Target) -> Result<Lowering, Unsupported> {
    check_dtype(check.dtype)?;
    let mut lowering = Lowering { status_words: 2, ..Lowering::default() };
    if check.count > 0 {
        let spread = Spread::new(target, check.count as u64, 0);
        let mut asm = spread.begin(target);
        let indices = Indices::new(&mut asm, check.dtype, check.extent, 0);
        spread.each(&mut asm, |asm, at| {
            let index = indices.get(asm, spread.ty(), at);
            indices.report(asm, &index, None);
        });
        lowering.stages.push(spread.finish(asm, false));
    }
    Ok(lowering)
}

/// Translates the picking of rows.
///
/// # Errors
/// For dtypes that indices cannot have, and what is narrower than 32 bits where the device cannot write that.
pub(super) fn gather(gather: &Gather, target: &Target) -> Result<Lowering, Unsupported> {
    let Gather { dtype, index_dtype, outer, extent, inner, picks, along } = *gather;
    check_dtype(index_dtype)?;
    // Copied are bits, in the largest units that fit.
    let bytes = if along { dtype.size() } else { inner * dtype.size() };
    let ty = [Ty::U64, Ty::U32, Ty::U16, Ty::U8].into_iter().find(|ty| bytes.is_multiple_of(ty.size() as usize));
    let ty = ty.unwrap_or(Ty::U8);
    if ty == Ty::U8 && !target.has_bytes || ty == Ty::U16 && !target.has_halves {
        return Err(Unsupported(format!("this device cannot pick single elements of {dtype}")));
    }
    let inner = inner * dtype.size() / ty.size() as usize;
    let total = outer as u64 * picks as u64 * inner as u64;
    let mut lowering = Lowering { status_words: 2, ..Lowering::default() };
    if total == 0 {
        return Ok(lowering);
    }
    let spread = Spread::new(target, total, 0);
    let mut asm = spread.begin(target);
    let list = Indices::new(&mut asm, index_dtype, extent, 1);
    let (data, out) = (asm.operand(0), asm.operand(2));
    let number = spread.ty();
    spread.each(&mut asm, |asm, at| {
        let places = indices(asm, number, at, &[outer as u64, picks as u64, inner as u64]);
        let [item, pick, within] = places[..] else { unreachable!("invariant: one index per extent") };
        let index = list.get(asm, number, if along { at } else { pick });
        // An index is reported once, by the first element that it picks.
        let first = (!along).then(|| {
            let (zero, sum) = (asm.int(number, 0), asm.op(Op::BitwiseOr, number, &[item, within]));
            asm.op(Op::IEqual, Ty::Bool, &[sum, zero])
        });
        list.report(asm, &index, first);
        let to = asm.element(out, number, at, ty.size());
        let nothing = match ty {
            Ty::U64 => asm.u64(0),
            _ => asm.u32(0),
        };
        let mut value = nothing;
        if extent > 0 {
            let row = times(asm, Ty::U64, index.place, inner as i64);
            let rest = offset(asm, number, &[(item, (extent * inner) as i64), (within, 1)]);
            let from = plus(asm, Ty::U64, row, rest);
            let from = asm.element(data, Ty::U64, from, ty.size());
            value = asm.load_as(ty, from);
            if ty.size() < 4 {
                value = asm.op(Op::UConvert, Ty::U32, &[value]);
            }
            let wide = if ty == Ty::U64 { Ty::U64 } else { Ty::U32 };
            value = asm.select(wide, index.inside, value, nothing);
        }
        if ty.size() < 4 {
            value = asm.op(Op::UConvert, ty, &[value]);
        }
        asm.store_as(ty, to, value);
    });
    lowering.stages.push(spread.finish(asm, false));
    Ok(lowering)
}
