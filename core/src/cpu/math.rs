//! Transcendental functions of one f32, branch-free so that loops over them become vector code; and the few scalar
//! functions that need care (NaN and signed zero in `min` and `max`).
//!
//! Method: Cody & Waite, *Software Manual for the Elementary Functions*, 1980: reduce the argument, evaluate a
//! polynomial, undo the reduction in the exponent bits. The polynomials are minimax fits by our own Remez exchange in
//! 40 digits; the error stated beside each is that of the polynomial before rounding. Functions whose reduction loses
//! bits in f32 are computed in f64 and rounded once. No fused multiply-add: every instruction set gives the same bits.

use std::f64::consts as c64;

use super::real::{Integer, ROUND, Real, integer, power_of_two};

/// Adding 1.5·2⁵² rounds to an integer and leaves it in the low mantissa bits, as [`ROUND`] does in f32.
const ROUND64: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts; the first has 9 bits, so that its product with an exponent is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// The value of a polynomial with coefficients `c`, the highest power's first. Horner's rule.
#[inline(always)]
fn polynomial<R: Real>(x: R, c: &[f32]) -> R {
    let mut p = R::of(c[0]);
    for &c in &c[1..] {
        p = p * x + R::of(c);
    }
    p
}

/// `(eʳ − 1 − r) / r²` on |r| <= ½ ln 2; relative error of `eʳ − 1` below 2.4e-10.
#[inline(always)]
fn exp_tail<R: Real>(r: R) -> R {
    polynomial(r, &[0.000_199_143, 0.001_394_109_8, 0.008_333_273, 0.041_666_355, 0.166_666_67, 0.5])
}

/// `eˣ`
#[inline(always)]
pub fn exp<R: Real>(x: R) -> R {
    let x = x.at_least(-104.0).at_most(89.0);
    let shifted = x * R::of(std::f32::consts::LOG2_E) + R::of(ROUND);
    let k = shifted - R::of(ROUND);
    let r = x - k * R::of(LN2_HIGH) - k * R::of(LN2_LOW);
    let y = exp_tail(r) * (r * r) + r + R::of(1.0);
    y.scaled(shifted)
}

/// `2ˣ`
#[inline(always)]
pub fn exp2<R: Real>(x: R) -> R {
    let x = x.at_least(-151.0).at_most(129.0);
    let shifted = x + R::of(ROUND);
    let r = (x - (shifted - R::of(ROUND))) * R::of(std::f32::consts::LN_2);
    let y = exp_tail(r) * (r * r) + r + R::of(1.0);
    y.scaled(shifted)
}

/// `eˣ − 1` for `−40 <= x <= 89`, without care for the smallest arguments.
#[inline(always)]
fn expm1_core<R: Real>(x: R) -> R {
    let shifted = x * R::of(std::f32::consts::LOG2_E) + R::of(ROUND);
    let k = shifted - R::of(ROUND);
    let r = x - k * R::of(LN2_HIGH) - k * R::of(LN2_LOW);
    let p = exp_tail(r) * (r * r) + r;
    // Half the power, so that 2¹²⁸ does not overflow before it must.
    let half = power_of_two::<R>(integer(shifted).plus(-1));
    (half * p + (half - R::of(0.5))) * R::of(2.0)
}

/// `eˣ − 1`
#[inline(always)]
pub fn expm1<R: Real>(x: R) -> R {
    let y = expm1_core(x.at_least(-40.0).at_most(89.0));
    // eˣ − 1 = x to within half a unit in the last place; also keeps −0.
    R::select(x.abs().less(R::of(5e-8)), x, y)
}

/// `tanh x = t / (t + 2)` with `t = e^{2|x|} − 1`
#[inline(always)]
pub fn tanh<R: Real>(x: R) -> R {
    let t = expm1_core((R::of(2.0) * x.abs()).at_least(0.0).at_most(20.0));
    (t / (t + R::of(2.0))).copysign(x)
}

/// The error function: `x·P(x²)` below 1 (relative error below 3.4e-11), `1 − exp Q(x)` above (`Q ≈ ln erfc`, error of
/// the result below 2.2e-11).
#[inline(always)]
pub fn erf<R: Real>(x: R) -> R {
    let a = x.abs().at_least(0.0).at_most(4.0);
    let near = [
        -9.641_522e-6,
        0.000_112_569_5,
        -0.000_848_282_9,
        0.005_220_945_6,
        -0.026_865_4,
        0.112_837_82,
        -0.376_126_38,
        0.128_379_17,
    ];
    let near = a + a * polynomial(a * a, &near);
    let far = [
        -2.168_673_8e-5,
        0.000_441_335,
        -0.004_204_554_6,
        0.025_208_236,
        -0.108_418_54,
        -0.633_219_96,
        -1.129_578_4,
        0.000_188_036_1,
    ];
    let far = R::of(1.0) - exp(polynomial(a, &far));
    // A NaN fails the comparison and comes out of `exp`.
    R::select(a.less(R::of(1.0)), near, far).copysign(x)
}

/// An integer-valued f64 from a biased one in the low bits: `2⁵² + k` has `k` in its mantissa.
#[inline(always)]
fn float64(k: u64, bias: f64) -> f64 {
    f64::from_bits(0x4330_0000_0000_0000 | k) - (4_503_599_627_370_496.0 + bias)
}

/// Natural logarithm of a positive, finite, normal f64, relative error below 1e-13: `2 artanh s`, `s = (m − 1)/(m +
/// 1)`, `√½ <= m < √2`.
#[inline(always)]
fn ln64(x: f64) -> f64 {
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let bits = x.to_bits();
    let biased = bits.wrapping_sub(SQRT_HALF).wrapping_add(1023 << 52) >> 52;
    let m = f64::from_bits(bits.wrapping_sub(biased.wrapping_sub(1023) << 52));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let p = 0.195_840_206_297_497;
    let p = p * z + 0.221_761_969_801_164_3;
    let p = p * z + 0.285_721_089_802_908_3;
    let p = p * z + 0.399_999_956_233_256_7;
    let p = p * z + 0.666_666_666_757_970_4;
    s * 2.0 + s * z * p + float64(biased, 1023.0) * c64::LN_2
}

/// Puts the special values of a logarithm of `x` where `y`, computed from a stand-in, does not hold.
#[inline(always)]
fn ln_special(x: f32, y: f32) -> f32 {
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// `x` where its logarithm is finite, else 1.
#[inline(always)]
fn ln_domain(x: f32) -> f64 {
    (if (x > 0.0) & (x < f32::INFINITY) { x } else { 1.0 }) as f64
}

/// `ln x`
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    ln_special(x, ln64(ln_domain(x)) as f32)
}

/// `log₂ x`
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    ln_special(x, (ln64(ln_domain(x)) * c64::LOG2_E) as f32)
}

/// `log₁₀ x`
#[inline(always)]
pub fn log10(x: f32) -> f32 {
    ln_special(x, (ln64(ln_domain(x)) * c64::LOG10_E) as f32)
}

/// `ln(1 + x)`
#[inline(always)]
pub fn ln1p(x: f32) -> f32 {
    let inside = (x > -1.0) & (x < f32::INFINITY);
    let d = (if inside { x } else { 0.0 }) as f64;
    // 1 + x drops the low bits of a small x; there three terms of the series suffice.
    let small = d * (1.0 - d * (0.5 - d * (1.0 / 3.0)));
    let y = (if d.abs() < 1e-4 { small } else { ln64(1.0 + d) }) as f32;
    let y = if x == 0.0 || x == f32::INFINITY { x } else { y };
    let y = if x == -1.0 { f32::NEG_INFINITY } else { y };
    if x >= -1.0 { y } else { f32::NAN }
}

/// Whether `sin` and `cos` do not hold: too far for the two-part reduction, infinite or NaN.
#[inline(always)]
pub fn huge_angle(x: f32) -> bool {
    // The negation makes a NaN huge.
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    !(x.abs() <= 1e6)
}

/// Sine of `x + quadrant·π/2` in f64: reduction by multiples of π/2 in two parts (the first has 33 bits), then the
/// polynomial of sine (relative error below 5e-12) or cosine (below 1.1e-13).
#[inline(always)]
fn sine(x: f32, quadrant: u64) -> f32 {
    const HALF_PI_HIGH: f64 = f64::from_bits(0x3ff9_21fb_5440_0000);
    const HALF_PI_LOW: f64 = 6.077_100_506_506_192e-11;
    let x = x as f64;
    let shifted = x * c64::FRAC_2_PI + ROUND64;
    let k = shifted - ROUND64;
    let r = x - k * HALF_PI_HIGH - k * HALF_PI_LOW;
    let z = r * r;
    let s = 2.718_237_322_777_838e-6;
    let s = s * z - 0.000_198_393_271_421_505_62;
    let s = s * z + 0.008_333_329_362_300_987;
    let s = s * z - 0.166_666_666_414_267_45;
    let s = r + r * z * s;
    let c = -2.720_954_946_241_822e-7;
    let c = c * z + 0.000_024_799_511_787_567_8;
    let c = c * z - 0.001_388_888_372_272_889;
    let c = c * z + 0.041_666_666_622_478_52;
    let c = 1.0 - 0.5 * z + z * z * c;
    let q = shifted.to_bits().wrapping_add(quadrant);
    let y = if q & 1 == 0 { s } else { c };
    f64::from_bits(y.to_bits() ^ (q & 2) << 62) as f32
}

/// Sine, unless [`huge_angle`].
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    let y = sine(x, 0);
    // Keeps −0, which the reduction loses.
    if x == 0.0 { x } else { y }
}

/// Cosine, unless [`huge_angle`].
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    sine(x, 1)
}

/// Whether [`pow`] does not hold.
#[inline(always)]
pub fn pow_rare(x: f32, y: f32) -> bool {
    // Infinities and NaNs fail the comparisons of magnitudes.
    let plain = (x != 0.0) & (x.abs() < f32::INFINITY) & (y.abs() < f32::INFINITY);
    !plain
}

/// `xʸ = 2^(y log₂|x|)` in f64, negative for an odd `y` of a negative `x`; unless [`pow_rare`].
#[inline(always)]
pub fn pow(x: f32, y: f32) -> f32 {
    let a = x.abs();
    let a = (if (a > 0.0) & (a < f32::INFINITY) { a } else { 1.0 }) as f64;
    let e = y as f64 * (ln64(a) * c64::LOG2_E);
    let e = if e < -200.0 { -200.0 } else { e };
    let e = if e > 200.0 { 200.0 } else { e };
    let shifted = e + ROUND64;
    let f = e - (shifted - ROUND64);
    // (2ᶠ − 1)/f on |f| <= ½, error of 2ᶠ below 8e-13.
    let p = 1.326_353_132_428_911_7e-6;
    let p = p * f + 0.000_015_310_030_140_107_503;
    let p = p * f + 0.000_154_034_153_158_039_4;
    let p = p * f + 0.001_333_345_083_477_319_8;
    let p = p * f + 0.009_618_129_219_644_933;
    let p = p * f + 0.055_504_109_407_706_1;
    let p = p * f + 0.240_226_506_955_534_24;
    let p = p * f + 0.693_147_180_546_137_4;
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    let magnitude = ((p * f + 1.0) * power) as f32;
    // From 2²⁴ on every f32 is an even integer; below, adding and subtracting 2²³ rounds, exactly if `y` was an
    // integer.
    let b = y.abs();
    let large = b >= 16_777_216.0;
    let b = if large { 0.0 } else { b };
    let half = (b * 0.5 + 8_388_608.0) - 8_388_608.0;
    let whole = (b >= 8_388_608.0) | ((b + 8_388_608.0) - 8_388_608.0 == b);
    let odd = whole & (half * 2.0 != b);
    // The sign bit where odd, all bits of a NaN where not whole, if the base is negative.
    let sign = if odd { 0x8000_0000 } else { 0 };
    let sign = if whole { sign } else { 0x7fff_ffff };
    let sign = if x < 0.0 { sign } else { 0 };
    f32::from_bits(magnitude.to_bits() | sign)
}

macro_rules! extremes {
    ($t:ty, $min:ident, $max:ident) => {
        /// The smaller; NaN if either is; −0 is smaller than +0.
        #[inline(always)]
        pub fn $min(a: $t, b: $t) -> $t {
            let r = if a < b { a } else { b };
            let r = if a == b { <$t>::from_bits(a.to_bits() | b.to_bits()) } else { r };
            if a.is_nan() { a } else { r }
        }

        /// The larger; NaN if either is; +0 is larger than −0.
        #[inline(always)]
        pub fn $max(a: $t, b: $t) -> $t {
            let r = if a > b { a } else { b };
            let r = if a == b { <$t>::from_bits(a.to_bits() & b.to_bits()) } else { r };
            if a.is_nan() { a } else { r }
        }
    };
}
extremes!(f32, min32, max32);
extremes!(f64, min64, max64);
