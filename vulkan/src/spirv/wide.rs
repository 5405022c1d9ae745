//! Transcendental functions of one f32 whose reduction loses bits in f32: computed in f64 and rounded once. `ln`,
//! `sin`, `cos` and `pow` are the CPU device's polynomials (`core/src/cpu/math.rs`); the others, which the CPU device
//! takes from the mathematics library, come within 10⁻¹¹ before rounding.

use std::f64::consts as c64;

use rspirv::spirv::Op;
use tapeflow_ir::Unary;

use super::asm::{Asm, Id, Ty};
use super::{angle, ends};

const T: Ty = Ty::F64;
const ROUND: f64 = 6_755_399_441_055_744.0;
const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
const LN: [f64; 5] = [
    0.195_840_206_297_497,
    0.221_761_969_801_164_3,
    0.285_721_089_802_908_3,
    0.399_999_956_233_256_7,
    0.666_666_666_757_970_4,
];
/// `(2ᶠ − 1)/f` on |f| <= ½.
const EXP2: [f64; 8] = [
    1.326_353_132_428_911_7e-6,
    0.000_015_310_030_140_107_503,
    0.000_154_034_153_158_039_4,
    0.001_333_345_083_477_319_8,
    0.009_618_129_219_644_933,
    0.055_504_109_407_706_1,
    0.240_226_506_955_534_24,
    0.693_147_180_546_137_4,
];

/// `op x` of an f32.
pub(super) fn unary(asm: &mut Asm, op: Unary, x: Id) -> Id {
    match op {
        Unary::Ln => ln(asm, x, None),
        Unary::Log2 => ln(asm, x, Some(c64::LOG2_E)),
        Unary::Log10 => ln(asm, x, Some(c64::LOG10_E)),
        Unary::Ln1p => ln1p(asm, x),
        Unary::Sin | Unary::Cos | Unary::Tan => angle::circular(asm, op, x),
        Unary::Asin | Unary::Acos => {
            let d = widen(asm, x);
            let one = asm.f64(1.0);
            let (less, more) = (asm.fsub(T, one, d), asm.fadd(T, one, d));
            let product = asm.fmul(T, less, more);
            let other = asm.glsl(rspirv::spirv::GlslStd450Op::Sqrt, T, &[product]);
            let y =
                if op == Unary::Asin { angle::atan2(asm, T, d, other, 1) } else { angle::atan2(asm, T, other, d, 1) };
            let y = narrow(asm, y);
            // The square root of a negative number need not be a NaN on every device.
            let (size, one, nan) = (asm.fabs(Ty::F32, x), asm.f32(1.0), asm.f32(f32::NAN));
            let inside = asm.op(Op::FOrdLessThanEqual, Ty::Bool, &[size, one]);
            asm.select(Ty::F32, inside, y, nan)
        }
        Unary::Atan => {
            let (y, x) = (widen(asm, x), asm.f64(1.0));
            let y = angle::atan2(asm, T, y, x, 1);
            narrow(asm, y)
        }
        Unary::Cbrt => cbrt(asm, x),
        _ => hyperbolic(asm, op == Unary::Sinh, x),
    }
}

/// The angle of the point `(x, y)`.
pub(super) fn atan2(asm: &mut Asm, y: Id, x: Id) -> Id {
    let (y, x) = (widen(asm, y), widen(asm, x));
    let angle = angle::atan2(asm, T, y, x, 1);
    narrow(asm, angle)
}

pub(super) fn widen(asm: &mut Asm, x: Id) -> Id {
    asm.op(Op::FConvert, T, &[x])
}

pub(super) fn narrow(asm: &mut Asm, x: Id) -> Id {
    asm.op(Op::FConvert, Ty::F32, &[x])
}

/// Horner's rule, the highest coefficient first.
pub(super) fn polynomial(asm: &mut Asm, x: Id, coefficients: &[f64]) -> Id {
    let mut p = asm.f64(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        let product = asm.fmul(T, p, x);
        let coefficient = asm.f64(coefficient);
        p = asm.fadd(T, product, coefficient);
    }
    p
}

/// Natural logarithm of a positive, finite, normal f64.
fn ln64(asm: &mut Asm, x: Id) -> Id {
    let bits = asm.bits(T, x);
    let offset = asm.u64((1023u64 << 52).wrapping_sub(SQRT_HALF));
    let moved = asm.op(Op::IAdd, Ty::U64, &[bits, offset]);
    let (shift, bias) = (asm.u32(52), asm.u64(1023));
    let biased = asm.op(Op::ShiftRightLogical, Ty::U64, &[moved, shift]);
    let k = asm.op(Op::ISub, Ty::U64, &[biased, bias]);
    let raised = asm.op(Op::ShiftLeftLogical, Ty::U64, &[k, shift]);
    let m = asm.op(Op::ISub, Ty::U64, &[bits, raised]);
    let m = asm.float_of(T, m);
    let [one, two, ln2] = [1.0, 2.0, c64::LN_2].map(|value| asm.f64(value));
    let (less, more) = (asm.fsub(T, m, one), asm.fadd(T, m, one));
    let s = asm.fdiv(T, less, more);
    let z = asm.fmul(T, s, s);
    let p = polynomial(asm, z, &LN);
    let (twice, cube) = (asm.fmul(T, s, two), asm.fmul(T, s, z));
    let tail = asm.fmul(T, cube, p);
    let sum = asm.fadd(T, twice, tail);
    let (mantissa, offset) = (asm.u64(0x4330_0000_0000_0000), asm.f64(4_503_599_627_370_496.0 + 1023.0));
    let k = asm.op(Op::BitwiseOr, Ty::U64, &[mantissa, biased]);
    let k = asm.float_of(T, k);
    let k = asm.fsub(T, k, offset);
    let whole = asm.fmul(T, k, ln2);
    asm.fadd(T, sum, whole)
}

fn ln(asm: &mut Asm, x: Id, factor: Option<f64>) -> Id {
    let [zero, one, infinity] = [0.0, 1.0, f32::INFINITY].map(|value| asm.f32(value));
    let (positive, finite) = (asm.is_less(zero, x), asm.is_less(x, infinity));
    let inside = asm.both(positive, finite);
    let d = asm.select(Ty::F32, inside, x, one);
    let d = widen(asm, d);
    let mut y = ln64(asm, d);
    if let Some(factor) = factor {
        let factor = asm.f64(factor);
        y = asm.fmul(T, y, factor);
    }
    let y = narrow(asm, y);
    let above = asm.is_equal(x, infinity);
    let y = asm.select(Ty::F32, above, x, y);
    ends::logarithm(asm, Ty::F32, x, 0.0, y)
}

fn ln1p(asm: &mut Asm, x: Id) -> Id {
    let [zero, minus, infinity] = [0.0, -1.0, f32::INFINITY].map(|value| asm.f32(value));
    let (above, finite) = (asm.is_less(minus, x), asm.is_less(x, infinity));
    let inside = asm.both(above, finite);
    let d = asm.select(Ty::F32, inside, x, zero);
    let d = widen(asm, d);
    let [one, half, third, tiny] = [1.0, 0.5, 1.0 / 3.0, 1e-4].map(|value| asm.f64(value));
    let p = asm.fmul(T, d, third);
    let p = asm.fsub(T, half, p);
    let p = asm.fmul(T, d, p);
    let p = asm.fsub(T, one, p);
    let small = asm.fmul(T, d, p);
    let sum = asm.fadd(T, one, d);
    let (large, size) = (ln64(asm, sum), asm.fabs(T, d));
    let is_small = asm.is_less(size, tiny);
    let y = asm.select(T, is_small, small, large);
    let y = narrow(asm, y);
    let (none, above) = (asm.is_equal(x, zero), asm.is_equal(x, infinity));
    let same = asm.op(Op::LogicalOr, Ty::Bool, &[none, above]);
    let y = asm.select(Ty::F32, same, x, y);
    ends::logarithm(asm, Ty::F32, x, -1.0, y)
}

/// `2ᵉ` in f64, `e` brought within ±200.
fn exp2(asm: &mut Asm, e: Id) -> Id {
    let [low, high, round, one] = [-200.0, 200.0, ROUND, 1.0].map(|value| asm.f64(value));
    let below = asm.is_less(e, low);
    let e = asm.select(T, below, low, e);
    let above = asm.is_less(high, e);
    let e = asm.select(T, above, high, e);
    let shifted = asm.fadd(T, e, round);
    let k = asm.fsub(T, shifted, round);
    let f = asm.fsub(T, e, k);
    let p = polynomial(asm, f, &EXP2);
    let (bits, bias, shift) = (asm.bits(T, shifted), asm.u64(1023), asm.u32(52));
    let biased = asm.op(Op::IAdd, Ty::U64, &[bits, bias]);
    let power = asm.op(Op::ShiftLeftLogical, Ty::U64, &[biased, shift]);
    let power = asm.float_of(T, power);
    let product = asm.fmul(T, p, f);
    let sum = asm.fadd(T, product, one);
    asm.fmul(T, sum, power)
}

/// `∛x`: `2^(⅓ log₂|x|)`, then a step of Newton's.
fn cbrt(asm: &mut Asm, x: Id) -> Id {
    let (size, zero, infinity) = (asm.fabs(Ty::F32, x), asm.f32(0.0), asm.f32(f32::INFINITY));
    let (positive, finite, one) = (asm.is_less(zero, size), asm.is_less(size, infinity), asm.f32(1.0));
    let inside = asm.both(positive, finite);
    let a = asm.select(Ty::F32, inside, size, one);
    let a = widen(asm, a);
    let (log, factor) = (ln64(asm, a), asm.f64(c64::LOG2_E / 3.0));
    let e = asm.fmul(T, log, factor);
    let y = exp2(asm, e);
    // y − (y³ − a)/(3y²)
    let (square, three) = (asm.fmul(T, y, y), asm.f64(3.0));
    let cube = asm.fmul(T, square, y);
    let (error, slope) = (asm.fsub(T, cube, a), asm.fmul(T, square, three));
    let step = asm.fdiv(T, error, slope);
    let y = asm.fsub(T, y, step);
    let y = narrow(asm, y);
    let y = asm.copysign(Ty::F32, y, x);
    asm.select(Ty::F32, inside, y, x)
}

/// `½(eˣ ∓ e⁻ˣ)`, and the series of sinh below 1.
fn hyperbolic(asm: &mut Asm, sine: bool, x: Id) -> Id {
    let d = widen(asm, x);
    let (log2e, half) = (asm.f64(c64::LOG2_E), asm.f64(0.5));
    let e = asm.fmul(T, d, log2e);
    let minus = asm.op(Op::FNegate, T, &[e]);
    let (up, down) = (exp2(asm, e), exp2(asm, minus));
    let y = if sine { asm.fsub(T, up, down) } else { asm.fadd(T, up, down) };
    let mut y = asm.fmul(T, y, half);
    if sine {
        // Σ x^(2k+1)/(2k+1)!, k from 7 down to 1.
        let factorials = [1_307_674_368_000.0, 6_227_020_800.0, 39_916_800.0, 362_880.0, 5_040.0, 120.0, 6.0];
        let z = asm.fmul(T, d, d);
        let p = polynomial(asm, z, &factorials.map(|factorial| 1.0 / factorial));
        let (cube, one) = (asm.fmul(T, d, z), asm.f64(1.0));
        let tail = asm.fmul(T, cube, p);
        let series = asm.fadd(T, d, tail);
        let size = asm.fabs(T, d);
        let small = asm.is_less(size, one);
        y = asm.select(T, small, series, y);
    }
    narrow(asm, y)
}

/// `xʸ = 2^(y log₂|x|)`
pub(super) fn pow(asm: &mut Asm, x: Id, y: Id) -> Id {
    let base = ends::power_base(asm, Ty::F32, x);
    let base = widen(asm, base);
    let (log, log2e, wide) = (ln64(asm, base), asm.f64(c64::LOG2_E), widen(asm, y));
    let log = asm.fmul(T, log, log2e);
    let e = asm.fmul(T, wide, log);
    let magnitude = exp2(asm, e);
    let magnitude = narrow(asm, magnitude);
    ends::power(asm, Ty::F32, x, y, magnitude)
}
