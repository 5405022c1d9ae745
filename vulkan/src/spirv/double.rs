//! Transcendental functions of f64, within a few units in the last place (powers: 10⁻¹³ at the ends of the range).
//!
//! Method: as for f32, reduction of the argument in two or three parts and a polynomial (Cody & Waite, *Software Manual
//! for the Elementary Functions*, 1980); the polynomials are the functions' own series, long enough. Circular functions
//! of arguments beyond 2⁵⁰ are NaN.

use std::f64::consts as c64;

use rspirv::spirv::{GlslStd450Op as GLOp, Op};
use tapeflow_ir::{Binary, Unary};

use super::asm::{Asm, Id, Ty};
use super::exact::{product, two_sum};
use super::logarithm::{ln_pair, ln1p, log2, logarithm};
use super::wide::polynomial;
use super::{angle, ends};

const T: Ty = Ty::F64;
/// Adding 1.5·2⁵² rounds to an integer and leaves it in the low mantissa bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts; the first has 32 bits, so that its product with an exponent is exact.
pub(super) const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
pub(super) const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// π/2 in three parts of 53 bits.
const HALF_PI: [f64; 3] = [c64::FRAC_PI_2, 6.123_233_995_736_766e-17, -1.497_384_904_859_183_3e-33];
/// The last argument that `sin`, `cos` and `tan` are computed of.
const FARTHEST: f64 = (1u64 << 50) as f64;

/// `op x`
pub(super) fn unary(asm: &mut Asm, op: Unary, x: Id) -> Id {
    match op {
        Unary::Exp => exp(asm, x),
        Unary::Exp2 => exp2(asm, x),
        Unary::ExpM1 => expm1(asm, x),
        Unary::Ln => logarithm(asm, x, None),
        Unary::Log2 => log2(asm, x),
        Unary::Log10 => logarithm(asm, x, Some(c64::LOG10_E)),
        Unary::Ln1p => ln1p(asm, x),
        Unary::Sin | Unary::Cos | Unary::Tan => circular(asm, op, x),
        Unary::Asin | Unary::Acos => {
            let one = asm.f64(1.0);
            let (less, more) = (asm.fsub(T, one, x), asm.fadd(T, one, x));
            let square = asm.fmul(T, less, more);
            let other = asm.glsl(GLOp::Sqrt, T, &[square]);
            let y =
                if op == Unary::Asin { angle::atan2(asm, T, x, other, 2) } else { angle::atan2(asm, T, other, x, 2) };
            // The square root of a negative number need not be a NaN on every device.
            let (size, nan) = (asm.fabs(T, x), asm.f64(f64::NAN));
            let inside = asm.op(Op::FOrdLessThanEqual, Ty::Bool, &[size, one]);
            asm.select(T, inside, y, nan)
        }
        Unary::Atan => {
            let one = asm.f64(1.0);
            angle::atan2(asm, T, x, one, 2)
        }
        Unary::Sinh => sinh(asm, x),
        Unary::Cosh => cosh(asm, x),
        Unary::Tanh => tanh(asm, x),
        Unary::Erf => erf(asm, x),
        _ => cbrt(asm, x),
    }
}

/// `a op b`
pub(super) fn binary(asm: &mut Asm, op: Binary, a: Id, b: Id) -> Id {
    match op {
        Binary::Pow => pow(asm, a, b),
        _ => angle::atan2(asm, T, a, b, 2),
    }
}

/// `1/n!` for `n` from `last` down to `first`, by steps, with alternating signs if `alternating`.
fn factorials(first: u32, last: u32, step: usize, alternating: bool) -> Vec<f64> {
    let reciprocal = |n: u32| 1.0 / (1..=n).map(f64::from).product::<f64>();
    let mut all: Vec<f64> = (first..=last).step_by(step).map(reciprocal).collect();
    if alternating {
        all.iter_mut().skip(1).step_by(2).for_each(|coefficient| *coefficient = -*coefficient);
    }
    all.reverse();
    all
}

/// Brings `x` within bounds; a NaN goes through.
fn clamp(asm: &mut Asm, x: Id, low: f64, high: f64) -> Id {
    let (low, high) = (asm.f64(low), asm.f64(high));
    let below = asm.is_less(x, low);
    let x = asm.select(T, below, low, x);
    let above = asm.is_less(high, x);
    asm.select(T, above, high, x)
}

pub(super) fn scaled(asm: &mut Asm, x: Id, factor: f64) -> Id {
    let factor = asm.f64(factor);
    asm.fmul(T, x, factor)
}

/// `x` rounded to an integer: as a float, and as an integer.
fn rounded(asm: &mut Asm, x: Id) -> (Id, Id) {
    let (round, offset) = (asm.f64(ROUND), asm.u64(ROUND.to_bits()));
    let shifted = asm.fadd(T, x, round);
    let bits = asm.bits(T, shifted);
    (asm.fsub(T, shifted, round), asm.op(Op::ISub, Ty::U64, &[bits, offset]))
}

/// `2ᵏ` for `−1022 <= k <= 1023`.
fn power_of_two(asm: &mut Asm, k: Id) -> Id {
    let (bias, shift) = (asm.u64(1023), asm.u32(52));
    let biased = asm.op(Op::IAdd, Ty::U64, &[k, bias]);
    let bits = asm.op(Op::ShiftLeftLogical, Ty::U64, &[biased, shift]);
    asm.float_of(T, bits)
}

/// `(1 + p) · 2ᵏ`, rounded once where the result is subnormal.
fn scale(asm: &mut Asm, p: Id, k: Id) -> Id {
    let (one, shift) = (asm.f64(1.0), asm.u32(1));
    let y = asm.fadd(T, p, one);
    let half = asm.op(Op::ShiftRightArithmetic, Ty::U64, &[k, shift]);
    let rest = asm.op(Op::ISub, Ty::U64, &[k, half]);
    let (half, rest) = (power_of_two(asm, half), power_of_two(asm, rest));
    let y = asm.fmul(T, y, half);
    asm.fmul(T, y, rest)
}

/// `eʳ − 1` for |r| <= ½ ln 2: the term left out is below 10⁻¹⁷.
fn exp_part(asm: &mut Asm, r: Id) -> Id {
    let (tail, square) = (polynomial(asm, r, &factorials(2, 13, 1, false)), asm.fmul(T, r, r));
    let tail = asm.fmul(T, tail, square);
    asm.fadd(T, tail, r)
}

/// `x = k ln 2 + r`: `eʳ − 1` and `k`.
fn reduced(asm: &mut Asm, x: Id) -> (Id, Id) {
    let e = scaled(asm, x, c64::LOG2_E);
    let (k, number) = rounded(asm, e);
    let (high, low) = (scaled(asm, k, LN2_HIGH), scaled(asm, k, LN2_LOW));
    let r = asm.fsub(T, x, high);
    let r = asm.fsub(T, r, low);
    (exp_part(asm, r), number)
}

fn exp(asm: &mut Asm, x: Id) -> Id {
    let x = clamp(asm, x, -746.0, 710.0);
    let (p, k) = reduced(asm, x);
    scale(asm, p, k)
}

fn exp2(asm: &mut Asm, x: Id) -> Id {
    let x = clamp(asm, x, -1076.0, 1025.0);
    let (whole, k) = rounded(asm, x);
    let rest = asm.fsub(T, x, whole);
    let r = scaled(asm, rest, c64::LN_2);
    let p = exp_part(asm, r);
    scale(asm, p, k)
}

/// `eˣ − 1` for `−40 <= x <= 710`, without care for the smallest arguments.
fn expm1_core(asm: &mut Asm, x: Id) -> Id {
    let (p, k) = reduced(asm, x);
    // Half the power, so that 2¹⁰²⁴ does not overflow before it must.
    let (one, half, two) = (asm.u64(1), asm.f64(0.5), asm.f64(2.0));
    let k = asm.op(Op::ISub, Ty::U64, &[k, one]);
    let power = power_of_two(asm, k);
    let (part, rest) = (asm.fmul(T, power, p), asm.fsub(T, power, half));
    let sum = asm.fadd(T, part, rest);
    asm.fmul(T, sum, two)
}

fn expm1(asm: &mut Asm, x: Id) -> Id {
    let inside = clamp(asm, x, -40.0, 710.0);
    let y = expm1_core(asm, inside);
    let (size, tiny) = (asm.fabs(T, x), asm.f64(1e-16));
    let small = asm.is_less(size, tiny);
    asm.select(T, small, x, y)
}

fn tanh(asm: &mut Asm, x: Id) -> Id {
    let size = asm.fabs(T, x);
    let twice = scaled(asm, size, 2.0);
    let twice = clamp(asm, twice, 0.0, 44.0);
    let (t, two) = (expm1_core(asm, twice), asm.f64(2.0));
    let more = asm.fadd(T, t, two);
    let y = asm.fdiv(T, t, more);
    // tanh x = x to within half a unit in the last place.
    let tiny = asm.f64(1e-9);
    let small = asm.is_less(size, tiny);
    let y = asm.select(T, small, size, y);
    asm.copysign(T, y, x)
}

/// `½ e^a` of a large `a`, in two factors.
fn half_exp(asm: &mut Asm, size: Id) -> Id {
    let halved = scaled(asm, size, 0.5);
    let e = exp(asm, halved);
    let half = scaled(asm, e, 0.5);
    asm.fmul(T, half, e)
}

fn sinh(asm: &mut Asm, x: Id) -> Id {
    let (size, one, limit) = (asm.fabs(T, x), asm.f64(1.0), asm.f64(22.0));
    let inside = clamp(asm, size, 0.0, 22.0);
    // ½(t + t/(t + 1)), t = eᵃ − 1
    let t = expm1(asm, inside);
    let more = asm.fadd(T, t, one);
    let rest = asm.fdiv(T, t, more);
    let sum = asm.fadd(T, t, rest);
    let (near, far) = (scaled(asm, sum, 0.5), half_exp(asm, size));
    let large = asm.is_less(limit, size);
    let y = asm.select(T, large, far, near);
    asm.copysign(T, y, x)
}

fn cosh(asm: &mut Asm, x: Id) -> Id {
    let (size, half, limit) = (asm.fabs(T, x), asm.f64(0.5), asm.f64(22.0));
    let inside = clamp(asm, size, 0.0, 22.0);
    let e = exp(asm, inside);
    let (up, down) = (asm.fmul(T, half, e), asm.fdiv(T, half, e));
    let (near, far) = (asm.fadd(T, up, down), half_exp(asm, size));
    let large = asm.is_less(limit, size);
    asm.select(T, large, far, near)
}

/// `xʸ = e^(y ln|x|)`, the exponent in two parts.
fn pow(asm: &mut Asm, x: Id, y: Id) -> Id {
    let base = ends::power_base(asm, T, x);
    let (high, low) = ln_pair(asm, base);
    let rough = asm.fmul(T, y, high);
    // Beyond any f64 the second part does not matter, and cannot be computed.
    let (size, limit, zero) = (asm.fabs(T, rough), asm.f64(800.0), asm.f64(0.0));
    let (within, plain) = (asm.is_less(size, limit), asm.fabs(T, y));
    let modest = asm.f64(1e290);
    let modest = asm.is_less(plain, modest);
    let within = asm.both(within, modest);
    let factor = asm.select(T, within, y, zero);
    let (e, error) = product(asm, factor, high);
    let rest = asm.fmul(T, factor, low);
    let error = asm.fadd(T, error, rest);
    let e = asm.select(T, within, e, rough);
    let magnitude = exp(asm, e);
    let correction = asm.fmul(T, magnitude, error);
    let corrected = asm.fadd(T, magnitude, correction);
    // An infinite magnitude times an error of 0 is none.
    let infinity = asm.f64(f64::INFINITY);
    let finite = asm.is_less(magnitude, infinity);
    let magnitude = asm.select(T, finite, corrected, magnitude);
    ends::power(asm, T, x, y, magnitude)
}

/// Sine, cosine or tangent: `x = q π/2 + r` with exact products, then the series.
fn circular(asm: &mut Asm, op: Unary, x: Id) -> Id {
    let (size, limit, zero) = (asm.fabs(T, x), asm.f64(FARTHEST), asm.f64(0.0));
    let near = asm.op(Op::FOrdLessThanEqual, Ty::Bool, &[size, limit]);
    let d = asm.select(T, near, x, zero);
    let turns = scaled(asm, d, c64::FRAC_2_PI);
    let (k, q) = rounded(asm, turns);
    let [first, second, third] = HALF_PI.map(|part| asm.f64(part));
    let minus = asm.op(Op::FNegate, T, &[k]);
    let (high, low) = product(asm, minus, first);
    let a = asm.fadd(T, d, high);
    let (a, lost) = two_sum(asm, a, low);
    let (high, low) = product(asm, minus, second);
    let (a, more) = two_sum(asm, a, high);
    let last = asm.fmul(T, minus, third);
    let tail = asm.fadd(T, lost, more);
    let tail = asm.fadd(T, tail, low);
    let tail = asm.fadd(T, tail, last);
    let r = asm.fadd(T, a, tail);
    let z = asm.fmul(T, r, r);
    // |r| may exceed π/4 a little where `turns` is large.
    let (s, cube) = (polynomial(asm, z, &factorials(3, 21, 2, true)), asm.fmul(T, r, z));
    let s = asm.fmul(T, cube, s);
    let s = asm.fsub(T, r, s);
    let (c, square) = (polynomial(asm, z, &factorials(4, 22, 2, true)), asm.fmul(T, z, z));
    let c = asm.fmul(T, square, c);
    let (half, one) = (scaled(asm, z, 0.5), asm.f64(1.0));
    let first = asm.fsub(T, one, half);
    let c = asm.fadd(T, first, c);
    let y = angle::in_quadrant(asm, op, s, c, q);
    let nan = asm.f64(f64::NAN);
    let y = asm.select(T, near, y, nan);
    if op == Unary::Cos {
        return y;
    }
    // Keeps −0, which the reduction loses.
    let none = asm.is_equal(x, zero);
    asm.select(T, none, x, y)
}

/// `∛x`: `e^(⅓ ln|x|)`, then a step of Newton's.
fn cbrt(asm: &mut Asm, x: Id) -> Id {
    let base = ends::power_base(asm, T, x);
    // So that the cube of the result is normal.
    let (tiny, raise) = (asm.f64(1e-280), asm.f64(2f64.powi(300)));
    let small = asm.is_less(base, tiny);
    let raised = asm.fmul(T, base, raise);
    let base = asm.select(T, small, raised, base);
    let (log, _) = ln_pair(asm, base);
    let third = scaled(asm, log, 1.0 / 3.0);
    let y = exp(asm, third);
    let square = asm.fmul(T, y, y);
    let cube = asm.fmul(T, square, y);
    let (error, slope) = (asm.fsub(T, cube, base), scaled(asm, square, 3.0));
    let step = asm.fdiv(T, error, slope);
    let y = asm.fsub(T, y, step);
    let lowered = scaled(asm, y, 2f64.powi(-100));
    let y = asm.select(T, small, lowered, y);
    let y = asm.copysign(T, y, x);
    // Of ±0, ±∞ and NaN: itself.
    let (size, zero, infinity) = (asm.fabs(T, x), asm.f64(0.0), asm.f64(f64::INFINITY));
    let (positive, finite) = (asm.is_less(zero, size), asm.is_less(size, infinity));
    let plain = asm.both(positive, finite);
    asm.select(T, plain, y, x)
}

/// The error function by the formulas of `tapeflow_ir::math::erf`: the series below 2, `1 − erfc` above, by the
/// continued fraction.
fn erf(asm: &mut Asm, x: Id) -> Id {
    let size = asm.fabs(T, x);
    let inside = clamp(asm, size, 0.0, 2.0);
    let z = asm.fmul(T, inside, inside);
    // Σ (−1)ⁿ zⁿ/(n! (2n + 1)) for z <= 4, without its first term.
    let mut coefficients = factorials(1, 36, 1, true);
    let count = coefficients.len();
    for (at, coefficient) in coefficients.iter_mut().enumerate() {
        *coefficient /= -((2 * (count - at) + 1) as f64);
    }
    let p = polynomial(asm, z, &coefficients);
    let tail = asm.fmul(T, inside, z);
    let tail = asm.fmul(T, tail, p);
    let near = asm.fadd(T, inside, tail);
    let near = scaled(asm, near, c64::FRAC_2_SQRT_PI);
    // x + ½/(x + 1/(x + 3/2/(x + …))), from the inside out.
    let outside = clamp(asm, size, 2.0, 7.0);
    let mut fraction = outside;
    for level in (1..=42).rev() {
        let above = asm.f64(0.5 * f64::from(level));
        let part = asm.fdiv(T, above, fraction);
        fraction = asm.fadd(T, outside, part);
    }
    let square = asm.fmul(T, outside, outside);
    let minus = asm.op(Op::FNegate, T, &[square]);
    let e = exp(asm, minus);
    let e = scaled(asm, e, 0.5 * c64::FRAC_2_SQRT_PI);
    let (rest, one, limit) = (asm.fdiv(T, e, fraction), asm.f64(1.0), asm.f64(2.0));
    let far = asm.fsub(T, one, rest);
    let large = asm.is_less(limit, size);
    let y = asm.select(T, large, far, near);
    asm.copysign(T, y, x)
}
