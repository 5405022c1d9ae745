//! Float operations that devices round otherwise, made exact from integers and plain additions: the remainder, and the
//! fused multiply-add where the device has none.

use rspirv::spirv::{GlslStd450Op as GLOp, Op};

use super::asm::{Asm, Id, Ty};

/// Steps of one iteration of the loop in [`remainder`].
const STEPS: u32 = 4;

/// Most iterations of that loop: the exponents' difference over the bits that a step takes.
pub(super) fn remainder_iterations(ty: Ty) -> u32 {
    if ty == Ty::F64 { 2046_u32.div_ceil(11 * STEPS) } else { 254_u32.div_ceil(40 * STEPS) }
}

/// `a % b` with the sign of `a`, exactly: long division of the mantissas, as many bits at a time as fit in 64.
pub(super) fn remainder(asm: &mut Asm, ty: Ty, a: Id, b: Id) -> Id {
    let (bits, mantissa, step) = if ty == Ty::F64 { (Ty::U64, 52, 11) } else { (Ty::U32, 23, 40) };
    let zero = asm.u64(0);
    // |x| = m · 2^(e − bias − mantissa); subnormal numbers have e = 1.
    let split = |asm: &mut Asm, x: Id| {
        let x = asm.fabs(ty, x);
        let x = asm.bits(ty, x);
        let (shift, below) = (asm.u32(mantissa), asm.int(bits, (1 << mantissa) - 1));
        let exponent = asm.op(Op::ShiftRightLogical, bits, &[x, shift]);
        let exponent = if bits == Ty::U64 { asm.op(Op::UConvert, Ty::U32, &[exponent]) } else { exponent };
        let m = asm.op(Op::BitwiseAnd, bits, &[x, below]);
        let m = if bits == Ty::U32 { asm.op(Op::UConvert, Ty::U64, &[m]) } else { m };
        let hidden = asm.u64(1 << mantissa);
        let whole = asm.op(Op::BitwiseOr, Ty::U64, &[m, hidden]);
        let (none, one) = (asm.u32(0), asm.u32(1));
        let subnormal = asm.op(Op::IEqual, Ty::Bool, &[exponent, none]);
        (asm.select(Ty::U64, subnormal, m, whole), asm.select(Ty::U32, subnormal, one, exponent))
    };
    let ((ma, ea), (mb, eb)) = (split(asm, a), split(asm, b));
    let one = asm.u64(1);
    let by_zero = asm.op(Op::IEqual, Ty::Bool, &[mb, zero]);
    let divisor = asm.select(Ty::U64, by_zero, one, mb);
    let first = asm.op(Op::UMod, Ty::U64, &[ma, divisor]);
    let difference = asm.op(Op::ISub, Ty::U32, &[ea, eb]);
    let none = asm.u32(0);
    let last = asm.repeat(
        &[(Ty::U64, first), (Ty::U32, difference)],
        |asm, carried| asm.op(Op::SGreaterThan, Ty::Bool, &[carried[1], none]),
        |asm, carried| {
            let (most, mut rest, mut left) = (asm.u32(step), carried[0], carried[1]);
            for _ in 0..STEPS {
                let shift = asm.glsl(GLOp::UMin, Ty::U32, &[left, most]);
                let shifted = asm.op(Op::ShiftLeftLogical, Ty::U64, &[rest, shift]);
                rest = asm.op(Op::UMod, Ty::U64, &[shifted, divisor]);
                left = asm.op(Op::ISub, Ty::U32, &[left, shift]);
            }
            vec![rest, left]
        },
    );
    // r · 2^(eb − bias − mantissa), in two factors so that neither leaves the range.
    let bias = if ty == Ty::F64 { 1023 } else { 127 };
    let r = asm.op(Op::ConvertUToF, ty, &[last[0]]);
    let power = |asm: &mut Asm, k: Id| {
        let bias = asm.int(Ty::U32, bias);
        let biased = asm.op(Op::IAdd, Ty::U32, &[k, bias]);
        let biased = if bits == Ty::U64 { asm.op(Op::UConvert, Ty::U64, &[biased]) } else { biased };
        let shift = asm.u32(mantissa);
        let raised = asm.op(Op::ShiftLeftLogical, bits, &[biased, shift]);
        asm.float_of(ty, raised)
    };
    let lowest = asm.int(Ty::U32, -(bias + i64::from(mantissa)));
    let one = asm.u32(1);
    let k = asm.op(Op::IAdd, Ty::U32, &[eb, lowest]);
    let half = asm.op(Op::ShiftRightArithmetic, Ty::U32, &[k, one]);
    let other = asm.op(Op::ISub, Ty::U32, &[k, half]);
    let (half, other) = (power(asm, half), power(asm, other));
    let y = asm.fmul(ty, r, half);
    let y = asm.fmul(ty, y, other);
    let y = asm.copysign(ty, y, a);
    // |a| < |b|, an infinite b included: a itself.
    let (x, z) = (asm.fabs(ty, a), asm.fabs(ty, b));
    let less = asm.is_less(x, z);
    let y = asm.select(ty, less, a, y);
    let (infinity, nan) = (asm.float(ty, f64::INFINITY), asm.float(ty, f64::NAN));
    let finite = asm.is_less(x, infinity);
    // NaN in either, division by zero, and an infinite a.
    let ordered = asm.op(Op::FOrdLessThanEqual, Ty::Bool, &[z, infinity]);
    let fine = asm.both(finite, ordered);
    let some = asm.op(Op::LogicalNot, Ty::Bool, &[by_zero]);
    let fine = asm.both(fine, some);
    asm.select(ty, fine, y, nan)
}

/// `a · b + c`, rounded once.
pub(super) fn mul_add(asm: &mut Asm, ty: Ty, a: Id, b: Id, c: Id) -> Id {
    // Vulkan allows `Fma` to be a product and a sum; graphics processors do fuse it, software rasterizers do not.
    if !asm.target.is_cpu || (ty == Ty::F32 && !asm.target.has_f64) {
        return asm.glsl(GLOp::Fma, ty, &[a, b, c]);
    }
    if ty == Ty::F32 {
        let [a, b, c] = [a, b, c].map(|x| asm.op(Op::FConvert, Ty::F64, &[x]));
        // 48 bits, exact; the sum rounded to odd rounds to f32 as the exact one would.
        let product = asm.fmul(Ty::F64, a, b);
        let sum = sum_to_odd(asm, product, c);
        return asm.op(Op::FConvert, Ty::F32, &[sum]);
    }
    // Boldo & Melquiond, Emulation of FMA and Correctly Rounded Sums: Proved Algorithms Using Rounding to Odd, IEEE
    // Transactions on Computers 57(4), 2008.
    let (high, low) = product(asm, a, b);
    let (t, u) = two_sum(asm, c, low);
    let (v, w) = two_sum(asm, high, t);
    let z = sum_to_odd(asm, u, w);
    let exact = asm.fadd(ty, v, z);
    // Where a part overflows, or there is an infinity or NaN, the plain result holds.
    let plain = asm.fmul(ty, a, b);
    let plain = asm.fadd(ty, plain, c);
    let (size, infinity) = (asm.fabs(ty, exact), asm.f64(f64::INFINITY));
    let finite = asm.is_less(size, infinity);
    // A plain zero product keeps the sign of zero sums.
    let zero = asm.f64(0.0);
    let nothing = asm.is_equal(plain, zero);
    let same = asm.is_equal(exact, zero);
    let nothing = asm.both(nothing, same);
    let y = asm.select(ty, finite, exact, plain);
    asm.select(ty, nothing, plain, y)
}

/// `a + b` and what rounding lost (Knuth).
pub(super) fn two_sum(asm: &mut Asm, a: Id, b: Id) -> (Id, Id) {
    let ty = Ty::F64;
    let sum = asm.fadd(ty, a, b);
    let of_b = asm.fsub(ty, sum, a);
    let of_a = asm.fsub(ty, sum, of_b);
    let (rest_a, rest_b) = (asm.fsub(ty, a, of_a), asm.fsub(ty, b, of_b));
    (sum, asm.fadd(ty, rest_a, rest_b))
}

/// `a · b` and what rounding lost (Dekker, with Veltkamp's splitting).
pub(super) fn product(asm: &mut Asm, a: Id, b: Id) -> (Id, Id) {
    let ty = Ty::F64;
    let halves = |asm: &mut Asm, x: Id| {
        let factor = asm.f64(134_217_729.0);
        let scaled = asm.fmul(ty, x, factor);
        let rest = asm.fsub(ty, scaled, x);
        let high = asm.fsub(ty, scaled, rest);
        (high, asm.fsub(ty, x, high))
    };
    let whole = asm.fmul(ty, a, b);
    let ((ah, al), (bh, bl)) = (halves(asm, a), halves(asm, b));
    let parts = [(ah, bh), (ah, bl), (al, bh), (al, bl)].map(|(x, y)| asm.fmul(ty, x, y));
    let error = asm.fsub(ty, parts[0], whole);
    let error = asm.fadd(ty, error, parts[1]);
    let error = asm.fadd(ty, error, parts[2]);
    (whole, asm.fadd(ty, error, parts[3]))
}

/// `a + b` in f64 rounded to odd: towards zero, then the last bit set if anything was lost.
fn sum_to_odd(asm: &mut Asm, a: Id, b: Id) -> Id {
    let (sum, error) = two_sum(asm, a, b);
    let (bits, towards) = (asm.bits(Ty::F64, sum), asm.bits(Ty::F64, error));
    let [zero, one, all] = [0, 1, u64::MAX].map(|value| asm.u64(value));
    let last = asm.op(Op::BitwiseAnd, Ty::U64, &[bits, one]);
    let even = asm.op(Op::IEqual, Ty::Bool, &[last, zero]);
    let nothing = asm.f64(0.0);
    // False for a NaN: then the sum is infinite or NaN and stays.
    let lost = asm.op(Op::FOrdNotEqual, Ty::Bool, &[error, nothing]);
    let adjust = asm.both(even, lost);
    // An error of the other sign: the exact sum is nearer to zero.
    let signs = asm.op(Op::BitwiseXor, Ty::U64, &[bits, towards]);
    let nearer = asm.op(Op::SLessThan, Ty::Bool, &[signs, zero]);
    let step = asm.select(Ty::U64, nearer, all, one);
    let moved = asm.op(Op::IAdd, Ty::U64, &[bits, step]);
    let bits = asm.select(Ty::U64, adjust, moved, bits);
    asm.float_of(Ty::F64, bits)
}
