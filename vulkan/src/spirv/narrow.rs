//! Transcendental functions of one f32 where the device has no f64: within some units in the last place over the whole
//! range, other than the device's own, which may be off by thousands and know no ends. Owns what `wide.rs` computes
//! elsewhere.
//!
//! Polynomials: Moshier, *Cephes Mathematical Library* (`logf`, `sinf`, `cosf`).

use rspirv::spirv::{GlslStd450Op as GLOp, Op};
use tapeflow_ir::Unary;

use super::asm::{Asm, Id, Ty};
use super::math::{clamp, exp, exp2, expm1, integer, polynomial, product};
use super::{angle, ends};

const T: Ty = Ty::F32;
const ROUND: f32 = 12_582_912.0;
const SQRT_HALF: u32 = 0x3f35_04f3;
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
const LOG10_2: [f32; 2] = [0.300_781_25, 2.487_456_6e-4];
/// What is left of log₂ e beyond its f32.
const LOG2_E_LOW: f32 = 1.925_963e-8;
const LN: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_9e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_5e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];
/// π/2 in three parts; the first two have so few bits that their products with a number of quadrants are exact.
const HALF_PI: [f32; 3] = [1.570_312_5, 4.837_513e-4, 7.549_79e-8];
/// Up to here those parts are enough.
const NEAR: f32 = 8192.0;
const SINE: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
const COSINE: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];

/// `op x`
pub(super) fn unary(asm: &mut Asm, op: Unary, x: Id) -> Id {
    match op {
        Unary::Ln | Unary::Log2 | Unary::Log10 => {
            let y = logarithm(asm, op, x);
            ends::logarithm(asm, T, x, 0.0, y)
        }
        Unary::Ln1p => ln1p(asm, x),
        Unary::Sin | Unary::Cos | Unary::Tan => circular(asm, op, x),
        Unary::Asin | Unary::Acos => {
            let one = asm.f32(1.0);
            let (less, more) = (asm.fsub(T, one, x), asm.fadd(T, one, x));
            let square = asm.fmul(T, less, more);
            let other = asm.glsl(GLOp::Sqrt, T, &[square]);
            let (y, x_side) = if op == Unary::Asin { (x, other) } else { (other, x) };
            let y = angle::atan2(asm, T, y, x_side, 1);
            let (size, nan) = (asm.fabs(T, x), asm.f32(f32::NAN));
            let inside = asm.op(Op::FOrdLessThanEqual, Ty::Bool, &[size, one]);
            asm.select(T, inside, y, nan)
        }
        Unary::Atan => {
            let one = asm.f32(1.0);
            angle::atan2(asm, T, x, one, 1)
        }
        Unary::Cbrt => cbrt(asm, x),
        _ => hyperbolic(asm, op == Unary::Sinh, x),
    }
}

/// The logarithm of a positive, finite `x` taken apart: `x = 2ᵏ m` with `√½ <= m < √2`, and `ln m = f + y` where `f = m
/// − 1` is exact and `y` small against it.
fn ln_parts(asm: &mut Asm, x: Id) -> [Id; 3] {
    let (normal, raise) = (asm.f32(f32::MIN_POSITIVE), asm.f32((1 << 24) as f32));
    let small = asm.is_less(x, normal);
    let raised = asm.fmul(T, x, raise);
    let x = asm.select(T, small, raised, x);
    let (bits, shift, bias) = (asm.bits(T, x), asm.u32(23), asm.u32(127));
    let offset = asm.u32((127_u32 << 23).wrapping_sub(SQRT_HALF));
    let moved = asm.op(Op::IAdd, Ty::U32, &[bits, offset]);
    let biased = asm.op(Op::ShiftRightLogical, Ty::U32, &[moved, shift]);
    let k = asm.op(Op::ISub, Ty::U32, &[biased, bias]);
    let power = asm.op(Op::ShiftLeftLogical, Ty::U32, &[k, shift]);
    let m = asm.op(Op::ISub, Ty::U32, &[bits, power]);
    let m = asm.float_of(T, m);
    let k = asm.convert_signed(Op::ConvertSToF, Ty::U32, T, k);
    let (lowered, one, half) = (asm.f32(24.0), asm.f32(1.0), asm.f32(0.5));
    let lowered = asm.fsub(T, k, lowered);
    let k = asm.select(T, small, lowered, k);
    let f = asm.fsub(T, m, one);
    let z = asm.fmul(T, f, f);
    let p = polynomial(asm, f, &LN);
    let p = asm.fmul(T, p, f);
    let p = asm.fmul(T, p, z);
    let halved = asm.fmul(T, half, z);
    [k, f, asm.fsub(T, p, halved)]
}

/// `ln x`, `log₂ x` or `log₁₀ x` of a positive `x`.
fn logarithm(asm: &mut Asm, op: Unary, x: Id) -> Id {
    let [k, f, y] = ln_parts(asm, x);
    let part = |asm: &mut Asm, factor: f32| {
        let factor = asm.f32(factor);
        asm.fmul(T, k, factor)
    };
    let scaled = |asm: &mut Asm, factor: f32| {
        let (sum, factor) = (asm.fadd(T, f, y), asm.f32(factor));
        asm.fmul(T, sum, factor)
    };
    let y = match op {
        Unary::Log2 => {
            let s = scaled(asm, std::f32::consts::LOG2_E);
            asm.fadd(T, s, k)
        }
        Unary::Log10 => {
            let (low, high) = (part(asm, LOG10_2[1]), part(asm, LOG10_2[0]));
            let s = scaled(asm, std::f32::consts::LOG10_E);
            let s = asm.fadd(T, s, low);
            asm.fadd(T, s, high)
        }
        _ => {
            let (low, high) = (part(asm, LN2[1]), part(asm, LN2[0]));
            let y = asm.fadd(T, y, low);
            let s = asm.fadd(T, f, y);
            asm.fadd(T, s, high)
        }
    };
    let infinity = asm.f32(f32::INFINITY);
    let endless = asm.is_equal(x, infinity);
    asm.select(T, endless, x, y)
}

/// `ln(1 + x) = ln u + (x − (u − 1))/u`, `u = 1 + x` as rounded.
fn ln1p(asm: &mut Asm, x: Id) -> Id {
    let [one, infinity] = [1.0, f32::INFINITY].map(|value| asm.f32(value));
    let u = asm.fadd(T, one, x);
    let whole = asm.fsub(T, u, one);
    let lost = asm.fsub(T, x, whole);
    let correction = asm.fdiv(T, lost, u);
    let y = logarithm(asm, Unary::Ln, u);
    let y = asm.fadd(T, y, correction);
    let (none, endless) = (asm.is_equal(u, one), asm.is_equal(x, infinity));
    let same = asm.op(Op::LogicalOr, Ty::Bool, &[none, endless]);
    let y = asm.select(T, same, x, y);
    ends::logarithm(asm, T, x, -1.0, y)
}

/// `a + b` and what rounding lost (Knuth).
fn two_sum(asm: &mut Asm, a: Id, b: Id) -> [Id; 2] {
    let sum = asm.fadd(T, a, b);
    let of_b = asm.fsub(T, sum, a);
    let of_a = asm.fsub(T, sum, of_b);
    let (rest_a, rest_b) = (asm.fsub(T, a, of_a), asm.fsub(T, b, of_b));
    [sum, asm.fadd(T, rest_a, rest_b)]
}

/// `log₂ x` of a positive, finite `x` in three parts: an integer, and the rest with what rounding lost of it.
fn log2_parts(asm: &mut Asm, x: Id) -> [Id; 3] {
    let [k, f, y] = ln_parts(asm, x);
    let [high, low] = two_sum(asm, f, y);
    let (factor, rest) = (asm.f32(std::f32::consts::LOG2_E), asm.f32(LOG2_E_LOW));
    let [s, lost] = product(asm, high, factor);
    let (low, rest) = (asm.fmul(T, low, factor), asm.fmul(T, high, rest));
    let error = asm.fadd(T, lost, low);
    [k, s, asm.fadd(T, error, rest)]
}

/// `xʸ = 2^(y log₂|x|)`, the exponent in two parts.
pub(super) fn pow(asm: &mut Asm, x: Id, y: Id) -> Id {
    let base = ends::power_base(asm, T, x);
    let [k, s, of_s] = log2_parts(asm, base);
    // Beyond, every power but that of 1 has left the range.
    let factor = clamp(asm, y, -1e12, 1e12);
    let [whole, of_whole] = product(asm, factor, k);
    let [part, of_part] = product(asm, factor, s);
    let of_s = asm.fmul(T, factor, of_s);
    let [e, lost] = two_sum(asm, whole, part);
    let error = asm.fadd(T, of_whole, of_part);
    let error = asm.fadd(T, error, of_s);
    let error = asm.fadd(T, error, lost);
    let magnitude = exp2(asm, e);
    let (ln2, limit, zero) = (asm.f32(std::f32::consts::LN_2), asm.f32(0.5), asm.f32(0.0));
    let size = asm.fabs(T, error);
    let modest = asm.is_less(size, limit);
    let error = asm.select(T, modest, error, zero);
    let error = asm.fmul(T, error, ln2);
    let correction = asm.fmul(T, magnitude, error);
    let corrected = asm.fadd(T, magnitude, correction);
    let infinity = asm.f32(f32::INFINITY);
    let finite = asm.is_less(magnitude, infinity);
    let magnitude = asm.select(T, finite, corrected, magnitude);
    ends::power(asm, T, x, y, magnitude)
}

/// The angle of the point `(x, y)`.
pub(super) fn atan2(asm: &mut Asm, y: Id, x: Id) -> Id {
    angle::atan2(asm, T, y, x, 1)
}

/// `∛x`: `2^(⅓ log₂|x|)`, then a step of Newton's.
fn cbrt(asm: &mut Asm, x: Id) -> Id {
    let (size, zero, infinity, one) = (asm.fabs(T, x), asm.f32(0.0), asm.f32(f32::INFINITY), asm.f32(1.0));
    let (positive, finite) = (asm.is_less(zero, size), asm.is_less(size, infinity));
    let plain = asm.both(positive, finite);
    let a = asm.select(T, plain, size, one);
    // So that the square of the result is normal.
    let [tiny, raise, lower, third, three] =
        [1e-30, 2f32.powi(72), 2f32.powi(-24), 1.0 / 3.0, 3.0].map(|value| asm.f32(value));
    let small = asm.is_less(a, tiny);
    let raised = asm.fmul(T, a, raise);
    let a = asm.select(T, small, raised, a);
    let [k, s, _] = log2_parts(asm, a);
    let log = asm.fadd(T, k, s);
    let e = asm.fmul(T, log, third);
    let y = exp2(asm, e);
    let square = asm.fmul(T, y, y);
    let cube = asm.fmul(T, square, y);
    let (error, slope) = (asm.fsub(T, cube, a), asm.fmul(T, square, three));
    let step = asm.fdiv(T, error, slope);
    let y = asm.fsub(T, y, step);
    let lowered = asm.fmul(T, y, lower);
    let y = asm.select(T, small, lowered, y);
    let y = asm.copysign(T, y, x);
    asm.select(T, plain, y, x)
}

/// `½(eˣ ∓ e⁻ˣ)`; from 40 on, `½ eˣ` in two factors.
fn hyperbolic(asm: &mut Asm, sine: bool, x: Id) -> Id {
    let [half, one, limit] = [0.5, 1.0, 40.0].map(|value| asm.f32(value));
    let size = asm.fabs(T, x);
    let inside = clamp(asm, size, 0.0, 40.0);
    let near = if sine {
        // ½(t + t/(t + 1)), t = eᵃ − 1
        let t = expm1(asm, inside);
        let more = asm.fadd(T, t, one);
        let rest = asm.fdiv(T, t, more);
        let sum = asm.fadd(T, t, rest);
        asm.fmul(T, sum, half)
    } else {
        let e = exp(asm, inside);
        let (up, down) = (asm.fmul(T, half, e), asm.fdiv(T, half, e));
        asm.fadd(T, up, down)
    };
    let halved = asm.fmul(T, size, half);
    let e = exp(asm, halved);
    let far = asm.fmul(T, e, half);
    let far = asm.fmul(T, far, e);
    let large = asm.is_less(limit, size);
    let y = asm.select(T, large, far, near);
    if sine { asm.copysign(T, y, x) } else { y }
}

/// Sine, cosine or tangent.
fn circular(asm: &mut Asm, op: Unary, x: Id) -> Id {
    let (size, limit) = (asm.fabs(T, x), asm.f32(NEAR));
    let near = asm.op(Op::FOrdLessThanEqual, Ty::Bool, &[size, limit]);
    let reduced = asm.either(near, &[T, Ty::U32], |asm| reduce_near(asm, x), |asm| reduce_far(asm, x, size));
    let (r, q) = (reduced[0], reduced[1]);
    let z = asm.fmul(T, r, r);
    let s = polynomial(asm, z, &SINE);
    let cube = asm.fmul(T, r, z);
    let s = asm.fmul(T, cube, s);
    let s = asm.fadd(T, r, s);
    let c = polynomial(asm, z, &COSINE);
    let [one, half] = [1.0, 0.5].map(|value| asm.f32(value));
    let middle = asm.fmul(T, half, z);
    let first = asm.fsub(T, one, middle);
    let square = asm.fmul(T, z, z);
    let tail = asm.fmul(T, square, c);
    let c = asm.fadd(T, first, tail);
    let y = in_quadrant(asm, op, s, c, q);
    let [nothing, infinity, nan] = [0.0, f32::INFINITY, f32::NAN].map(|value| asm.f32(value));
    let finite = asm.is_less(size, infinity);
    let y = asm.select(T, finite, y, nan);
    if op == Unary::Cos {
        return y;
    }
    // Keeps −0, which the reduction loses.
    let none = asm.is_equal(x, nothing);
    asm.select(T, none, x, y)
}

/// Sine, cosine or tangent of `r + q π/2`, given sine and cosine of `r`.
fn in_quadrant(asm: &mut Asm, op: Unary, s: Id, c: Id, q: Id) -> Id {
    let [zero, one, two] = [0, 1, 2].map(|value| asm.u32(value));
    let has = |asm: &mut Asm, q: Id, bit: Id| {
        let bit = asm.op(Op::BitwiseAnd, Ty::U32, &[q, bit]);
        asm.op(Op::INotEqual, Ty::Bool, &[bit, zero])
    };
    if op == Unary::Tan {
        let odd = has(asm, q, one);
        let minus = asm.op(Op::FNegate, T, &[c]);
        let (above, below) = (asm.select(T, odd, minus, s), asm.select(T, odd, s, c));
        return asm.fdiv(T, above, below);
    }
    let q = if op == Unary::Cos { asm.op(Op::IAdd, Ty::U32, &[q, one]) } else { q };
    let (odd, flips) = (has(asm, q, one), has(asm, q, two));
    let y = asm.select(T, odd, c, s);
    let minus = asm.op(Op::FNegate, T, &[y]);
    asm.select(T, flips, minus, y)
}

/// `x = q π/2 + r` by a product in three parts.
fn reduce_near(asm: &mut Asm, x: Id) -> Vec<Id> {
    let (ratio, round) = (asm.f32(std::f32::consts::FRAC_2_PI), asm.f32(ROUND));
    let turns = asm.fmul(T, x, ratio);
    let shifted = asm.fadd(T, turns, round);
    let k = asm.fsub(T, shifted, round);
    let mut r = x;
    for part in HALF_PI {
        let part = asm.f32(part);
        let by = asm.fmul(T, k, part);
        r = asm.fsub(T, r, by);
    }
    vec![r, integer(asm, shifted, 0)]
}

/// The same in integers.
fn reduce_far(asm: &mut Asm, x: Id, size: Id) -> Vec<Id> {
    let [fraction, quadrant] = angle::fraction(asm, size);
    let fraction = asm.convert_signed(Op::ConvertSToF, Ty::U64, T, fraction);
    let quadrant = asm.op(Op::UConvert, Ty::U32, &[quadrant]);
    let scale = asm.f32((std::f64::consts::FRAC_PI_2 / 18_446_744_073_709_551_616.0) as f32);
    let r = asm.fmul(T, fraction, scale);
    // Of −x: both negated.
    let (zero, nothing) = (asm.u32(0), asm.f32(0.0));
    let minus = asm.is_less(x, nothing);
    let (negated, other) = (asm.op(Op::FNegate, T, &[r]), asm.op(Op::ISub, Ty::U32, &[zero, quadrant]));
    vec![asm.select(T, minus, negated, r), asm.select(Ty::U32, minus, other, quadrant)]
}
