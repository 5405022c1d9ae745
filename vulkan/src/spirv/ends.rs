//! Where logarithms and powers leave the formulas that compute them: zeros, infinities, NaNs and signs, for f32 and
//! f64.

use rspirv::spirv::Op;

use super::asm::{Asm, Id, Ty};

/// A logarithm: −∞ where `x` is `pole`, NaN below it, else `y`.
pub(super) fn logarithm(asm: &mut Asm, ty: Ty, x: Id, pole: f64, y: Id) -> Id {
    let [pole, least, nan] = [pole, f64::NEG_INFINITY, f64::NAN].map(|value| asm.float(ty, value));
    let at = asm.is_equal(x, pole);
    let y = asm.select(ty, at, least, y);
    let inside = asm.op(Op::FOrdGreaterThanEqual, Ty::Bool, &[x, pole]);
    asm.select(ty, inside, y, nan)
}

/// `|x|`, or 1 where that is 0 or not finite.
pub(super) fn power_base(asm: &mut Asm, ty: Ty, x: Id) -> Id {
    let (size, one) = (asm.fabs(ty, x), asm.float(ty, 1.0));
    let plain = is_plain(asm, ty, size);
    asm.select(ty, plain, size, one)
}

/// Whether a magnitude is neither 0 nor infinite nor NaN.
fn is_plain(asm: &mut Asm, ty: Ty, size: Id) -> Id {
    let [zero, infinity] = [0.0, f64::INFINITY].map(|value| asm.float(ty, value));
    let (positive, finite) = (asm.is_less(zero, size), asm.is_less(size, infinity));
    asm.both(positive, finite)
}

/// `xʸ`, given `magnitude`, which is [`power_base`] to the power `y` where that is finite.
pub(super) fn power(asm: &mut Asm, ty: Ty, x: Id, y: Id, magnitude: Id) -> Id {
    let [zero, one, infinity, nan] = [0.0, 1.0, f64::INFINITY, f64::NAN].map(|value| asm.float(ty, value));
    let a = asm.fabs(ty, x);
    let plain = is_plain(asm, ty, a);
    // Of 0 and ∞: 0 or ∞, by the sign of `y`.
    let (grows, falls) = (asm.is_less(zero, y), asm.is_less(y, zero));
    let large = asm.is_equal(a, infinity);
    let up = asm.op(Op::LogicalEqual, Ty::Bool, &[large, grows]);
    let end = asm.select(ty, up, infinity, zero);
    let magnitude = asm.select(ty, plain, magnitude, end);
    // To the power ±∞: 1 for 1, else 0 or ∞.
    let b = asm.fabs(ty, y);
    let endless = asm.is_equal(b, infinity);
    let above = asm.is_less(one, a);
    let up = asm.op(Op::LogicalEqual, Ty::Bool, &[above, grows]);
    let end = asm.select(ty, up, infinity, zero);
    let unit = asm.is_equal(a, one);
    let end = asm.select(ty, unit, one, end);
    let magnitude = asm.select(ty, endless, end, magnitude);
    // Whether `y` is an integer, and an odd one. From 2²⁴ (2⁵³) on every f32 (f64) is an even integer; below, adding
    // and subtracting 2²³ (2⁵²) rounds, exactly if `y` was an integer.
    let (limit, middle) = match ty {
        Ty::F64 => (9_007_199_254_740_992.0, 4_503_599_627_370_496.0),
        _ => (16_777_216.0, 8_388_608.0),
    };
    let [limit, middle, half, two] = [limit, middle, 0.5, 2.0].map(|value| asm.float(ty, value));
    let is_large = asm.op(Op::FOrdGreaterThanEqual, Ty::Bool, &[b, limit]);
    let b = asm.select(ty, is_large, zero, b);
    let rounded = |asm: &mut Asm, value: Id| {
        let sum = asm.fadd(ty, value, middle);
        asm.fsub(ty, sum, middle)
    };
    let halved = asm.fmul(ty, b, half);
    let (halved, whole) = (rounded(asm, halved), rounded(asm, b));
    let (whole, exact) = (asm.is_equal(whole, b), asm.op(Op::FOrdGreaterThanEqual, Ty::Bool, &[b, middle]));
    let whole = asm.op(Op::LogicalOr, Ty::Bool, &[whole, exact]);
    let twice = asm.fmul(ty, halved, two);
    let uneven = asm.op(Op::FUnordNotEqual, Ty::Bool, &[twice, b]);
    let odd = asm.both(whole, uneven);
    // A negative base, −0 and −∞ included, gives the sign to an odd power, and a finite one NaN to a broken one.
    let (signed, smallest) = (asm.bits(ty, x), asm.int(Asm::bits_of(ty), 0));
    let negative = asm.op(Op::SLessThan, Ty::Bool, &[signed, smallest]);
    let flips = asm.both(negative, odd);
    let minus = asm.op(Op::FNegate, ty, &[magnitude]);
    let result = asm.select(ty, flips, minus, magnitude);
    let broken = asm.op(Op::LogicalNot, Ty::Bool, &[whole]);
    let broken = asm.both(broken, negative);
    let broken = asm.both(broken, plain);
    let result = asm.select(ty, broken, nan, result);
    // NaN in, NaN out, but for a power 0 and a base 1.
    let (lost_x, lost_y) = (asm.is_nan(x), asm.is_nan(y));
    let lost = asm.op(Op::LogicalOr, Ty::Bool, &[lost_x, lost_y]);
    let result = asm.select(ty, lost, nan, result);
    let some = asm.op(Op::LogicalOr, Ty::Bool, &[grows, falls]);
    let some = asm.op(Op::LogicalOr, Ty::Bool, &[some, lost_y]);
    let is_one = asm.is_equal(x, one);
    let none = asm.op(Op::LogicalNot, Ty::Bool, &[some]);
    let trivial = asm.op(Op::LogicalOr, Ty::Bool, &[none, is_one]);
    asm.select(ty, trivial, one, result)
}
