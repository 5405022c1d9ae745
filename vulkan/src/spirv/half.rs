//! Half precision in registers: 16 bits in a u32, converted to and from f32 by integer instructions, so that no device
//! feature but the loads and stores is needed and every device rounds alike. The formulas are those of
//! `tapeflow_ir::half`.

use rspirv::spirv::Op;
use tapeflow_ir::DType;

use super::asm::{Asm, Id, Ty};

const U: Ty = Ty::U32;
const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0xFF << 23;
/// Between the biases of the exponents of f32 and f16.
const REBIAS: u32 = 112 << 23;
/// The least normal f16 and ½, as bits of f32.
const NORMAL: u32 = 113 << 23;
const HALF: u32 = 126 << 23;
/// The exponent's bits of an f16, where an f32 has its mantissa's.
const EXPONENT: u32 = 0x7c00 << 13;

impl Asm {
    /// Loads an element as it is computed with: half precision as f32.
    pub(super) fn load_computed(&mut self, dtype: DType, address: Id) -> Id {
        let value = self.load(dtype, address);
        if dtype.is_half() { widened(self, dtype, value) } else { value }
    }

    /// Stores an element that was computed: half precision from f32.
    pub(super) fn store_computed(&mut self, dtype: DType, address: Id, value: Id) {
        let value = if dtype.is_half() { narrowed(self, dtype, value) } else { value };
        self.store(dtype, address, value);
    }
}

/// Bit by bit, with a constant.
fn with(asm: &mut Asm, op: Op, x: Id, constant: u32) -> Id {
    let constant = asm.u32(constant);
    asm.op(op, U, &[x, constant])
}

fn is(asm: &mut Asm, op: Op, x: Id, constant: u32) -> Id {
    let constant = asm.u32(constant);
    asm.op(op, Ty::Bool, &[x, constant])
}

/// `bits` rounded to its upper bits from `shift` on, ties to even; shifted there.
fn nearest(asm: &mut Asm, bits: Id, shift: u32) -> Id {
    let last = with(asm, Op::ShiftRightLogical, bits, shift);
    let odd = with(asm, Op::BitwiseAnd, last, 1);
    let raised = with(asm, Op::IAdd, bits, (1 << (shift - 1)) - 1);
    let raised = asm.op(Op::IAdd, U, &[raised, odd]);
    with(asm, Op::ShiftRightLogical, raised, shift)
}

/// The 16 bits of an f32 as `half`.
pub(super) fn narrowed(asm: &mut Asm, half: DType, x: Id) -> Id {
    let bits = asm.bits(Ty::F32, x);
    let (sign, size) = (with(asm, Op::BitwiseAnd, bits, SIGN), with(asm, Op::BitwiseAnd, bits, !SIGN));
    let sign = with(asm, Op::ShiftRightLogical, sign, 16);
    let is_nan = is(asm, Op::UGreaterThan, size, INFINITY);
    let size = match half {
        DType::BF16 => {
            let (rounded, nan) = (nearest(asm, size, 16), asm.u32(0x7fc0));
            asm.select(U, is_nan, nan, rounded)
        }
        _ => {
            let rebased = with(asm, Op::ISub, size, REBIAS);
            let normal = nearest(asm, rebased, 13);
            // Adding ½ rounds to multiples of the least f16.
            let (value, half) = (asm.float_of(Ty::F32, size), asm.f32(0.5));
            let small = asm.fadd(Ty::F32, value, half);
            let small = asm.bits(Ty::F32, small);
            let small = with(asm, Op::ISub, small, HALF);
            let (nan, infinity) = (asm.u32(0x7e00), asm.u32(0x7c00));
            let large = asm.select(U, is_nan, nan, infinity);
            let is_large = is(asm, Op::UGreaterThanEqual, size, 143 << 23);
            let is_small = is(asm, Op::ULessThan, size, NORMAL);
            let other = asm.select(U, is_large, large, normal);
            asm.select(U, is_small, small, other)
        }
    };
    asm.op(Op::BitwiseOr, U, &[sign, size])
}

/// The f32 of 16 bits of `half`.
pub(super) fn widened(asm: &mut Asm, half: DType, bits: Id) -> Id {
    if half == DType::BF16 {
        let bits = with(asm, Op::ShiftLeftLogical, bits, 16);
        return asm.float_of(Ty::F32, bits);
    }
    let sign = with(asm, Op::BitwiseAnd, bits, 0x8000);
    let sign = with(asm, Op::ShiftLeftLogical, sign, 16);
    let size = with(asm, Op::BitwiseAnd, bits, 0x7fff);
    let size = with(asm, Op::ShiftLeftLogical, size, 13);
    let normal = with(asm, Op::IAdd, size, REBIAS);
    // Subnormal: a mantissa with the least exponent, less what that exponent alone is.
    let raised = with(asm, Op::IAdd, normal, 1 << 23);
    let (raised, least) = (asm.float_of(Ty::F32, raised), asm.f32(f32::from_bits(NORMAL)));
    let small = asm.fsub(Ty::F32, raised, least);
    let small = asm.bits(Ty::F32, small);
    let endless = with(asm, Op::IAdd, normal, REBIAS);
    let exponent = with(asm, Op::BitwiseAnd, size, EXPONENT);
    let is_endless = is(asm, Op::IEqual, exponent, EXPONENT);
    let is_small = is(asm, Op::IEqual, exponent, 0);
    let other = asm.select(U, is_endless, endless, normal);
    let size = asm.select(U, is_small, small, other);
    let bits = asm.op(Op::BitwiseOr, U, &[sign, size]);
    asm.float_of(Ty::F32, bits)
}
