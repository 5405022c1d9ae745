//! Numbers in registers: division into indices, products with strides, the sign of a zero. Owns nothing but the
//! shortest way to say them; which number means what is decided by who asks.

use rspirv::spirv::{GlslStd450Op as GLOp, Op};

use super::asm::{Asm, Id, Ty};

/// The type for numbers below `limit`.
pub(super) fn ty_for(limit: u64) -> Ty {
    if limit < 1 << 31 { Ty::U32 } else { Ty::U64 }
}

/// Quotient and remainder of `value` (of type `ty`, without sign) by a constant that is not 0.
pub(super) fn divided(asm: &mut Asm, ty: Ty, value: Id, by: u64) -> (Id, Id) {
    if by == 1 {
        return (value, asm.int(ty, 0));
    }
    let by = asm.int(ty, by as i64);
    (asm.op(Op::UDiv, ty, &[value, by]), asm.op(Op::UMod, ty, &[value, by]))
}

/// A number of type `ty` below `limit` as one of the indices over `extents`, the last one fastest.
pub(super) fn indices(asm: &mut Asm, ty: Ty, value: Id, extents: &[u64]) -> Vec<Id> {
    let mut rest = value;
    let mut indices = vec![value; extents.len()];
    for (axis, &extent) in extents.iter().enumerate().rev() {
        if axis == 0 {
            indices[0] = rest;
        } else {
            (rest, indices[axis]) = divided(asm, ty, rest, extent.max(1));
        }
    }
    indices
}

/// A u32 with a sign as u64. Not by `OpSConvert`: Mesa 22.3 then compares the result with constants wrongly.
pub(super) fn sign_extended(asm: &mut Asm, value: Id) -> Id {
    let (low, high) = (asm.u32(1 << 31), asm.u64(1 << 31));
    let raised = asm.op(Op::BitwiseXor, Ty::U32, &[value, low]);
    let wide = asm.op(Op::UConvert, Ty::U64, &[raised]);
    asm.op(Op::ISub, Ty::U64, &[wide, high])
}

/// `a + b`.
pub(super) fn plus(asm: &mut Asm, ty: Ty, a: Id, b: Id) -> Id {
    let zero = asm.int(ty, 0);
    match (a == zero, b == zero) {
        (true, _) => b,
        (_, true) => a,
        _ => asm.op(Op::IAdd, ty, &[a, b]),
    }
}

/// `a + constant`.
pub(super) fn plus_constant(asm: &mut Asm, ty: Ty, a: Id, constant: i64) -> Id {
    let constant = asm.int(ty, constant);
    plus(asm, ty, a, constant)
}

/// `value · factor` in the type `ty`.
pub(super) fn times(asm: &mut Asm, ty: Ty, value: Id, factor: i64) -> Id {
    let zero = asm.int(ty, 0);
    match factor {
        _ if value == zero => zero,
        0 => zero,
        1 => value,
        _ => {
            let factor = asm.int(ty, factor);
            asm.op(Op::IMul, ty, &[value, factor])
        }
    }
}

/// `Σ index · stride` as u64; indices of type `ty`.
pub(super) fn offset(asm: &mut Asm, ty: Ty, terms: &[(Id, i64)]) -> Id {
    let mut sum = asm.u64(0);
    for &(index, stride) in terms {
        if stride != 0 {
            let wide = asm.widened(ty, index);
            let term = times(asm, Ty::U64, wide, stride);
            sum = plus(asm, Ty::U64, sum, term);
        }
    }
    sum
}

/// The smaller of two numbers without sign.
pub(super) fn smaller(asm: &mut Asm, ty: Ty, a: Id, b: Id) -> Id {
    asm.glsl(GLOp::UMin, ty, &[a, b])
}

/// Whether `a < b`, without sign.
pub(super) fn below(asm: &mut Asm, a: Id, b: Id) -> Id {
    asm.op(Op::ULessThan, Ty::Bool, &[a, b])
}

/// A sum that began with +0, which therefore is never −0: some devices leave the first addition out.
pub(super) fn begun_with_zero(asm: &mut Asm, ty: Ty, value: Id) -> Id {
    let (bits, least) = match ty {
        Ty::F32 => (Ty::U32, i64::from(i32::MIN)),
        Ty::F64 => (Ty::U64, i64::MIN),
        _ => return value,
    };
    let (raw, negative, zero) = (asm.op(Op::Bitcast, bits, &[value]), asm.int(bits, least), asm.float(ty, 0.0));
    let is_negative = asm.op(Op::IEqual, Ty::Bool, &[raw, negative]);
    asm.select(ty, is_negative, zero, value)
}
