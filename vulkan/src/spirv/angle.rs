//! Circular functions of an f32, computed in f64, and the angle of a point. `sin` and `cos` are the CPU device's
//! polynomials; arguments beyond its two-part reduction are reduced by Payne & Hanek, *Radian Reduction for
//! Trigonometric Functions*, SIGNUM Newsletter 18(1), 1983.

use std::f64::consts as c64;

use rspirv::spirv::{GlslStd450Op as GLOp, Op};
use tapeflow_ir::Unary;

use super::asm::{Asm, Id, Ty};
use super::wide::{narrow, polynomial, widen};

const T: Ty = Ty::F64;
const ROUND: f64 = 6_755_399_441_055_744.0;
const HALF_PI_HIGH: u64 = 0x3ff9_21fb_5440_0000;
const HALF_PI_LOW: f64 = 6.077_100_506_506_192e-11;
const SINE: [f64; 4] =
    [2.718_237_322_777_838e-6, -0.000_198_393_271_421_505_62, 0.008_333_329_362_300_987, -0.166_666_666_414_267_45];
const COSINE: [f64; 4] =
    [-2.720_954_946_241_822e-7, 0.000_024_799_511_787_567_8, -0.001_388_888_372_272_889, 0.041_666_666_622_478_52];
/// 2/π · 2⁻³² after the point, most significant word first: enough for arguments below 2¹²⁸ and 64 bits more.
const TWO_OVER_PI: [u32; 8] =
    [0, 0xa2f9_836e, 0x4e44_1529, 0xfc27_57d1, 0xf534_ddc0, 0xdb62_9599, 0x3c43_9041, 0xfe51_63ab];

/// Sine, cosine or tangent.
pub(super) fn circular(asm: &mut Asm, op: Unary, x: Id) -> Id {
    let (size, limit) = (asm.fabs(Ty::F32, x), asm.f32(1e6));
    let near = asm.op(Op::FOrdLessThanEqual, Ty::Bool, &[size, limit]);
    let reduced = asm.either(near, &[T, Ty::U64], |asm| reduce_near(asm, x), |asm| reduce_far(asm, x, size));
    let (r, q) = (reduced[0], reduced[1]);
    let z = asm.fmul(T, r, r);
    let s = polynomial(asm, z, &SINE);
    let cube = asm.fmul(T, r, z);
    let s = asm.fmul(T, cube, s);
    let s = asm.fadd(T, r, s);
    let c = polynomial(asm, z, &COSINE);
    let [one, half] = [1.0, 0.5].map(|value| asm.f64(value));
    let middle = asm.fmul(T, half, z);
    let first = asm.fsub(T, one, middle);
    let square = asm.fmul(T, z, z);
    let tail = asm.fmul(T, square, c);
    let c = asm.fadd(T, first, tail);
    let y = in_quadrant(asm, op, s, c, q);
    let y = narrow(asm, y);
    let [nothing, infinity, nan] = [0.0, f32::INFINITY, f32::NAN].map(|value| asm.f32(value));
    let finite = asm.is_less(size, infinity);
    let y = asm.select(Ty::F32, finite, y, nan);
    if op == Unary::Cos {
        return y;
    }
    // Keeps −0, which the reduction loses.
    let none = asm.is_equal(x, nothing);
    asm.select(Ty::F32, none, x, y)
}

/// Sine, cosine or tangent of `r + q π/2`, given sine and cosine of `r`.
pub(super) fn in_quadrant(asm: &mut Asm, op: Unary, s: Id, c: Id, q: Id) -> Id {
    let [zero, one, two] = [0, 1, 2].map(|value| asm.u64(value));
    let odd = |asm: &mut Asm, q: Id| {
        let last = asm.op(Op::BitwiseAnd, Ty::U64, &[q, one]);
        asm.op(Op::INotEqual, Ty::Bool, &[last, zero])
    };
    if op == Unary::Tan {
        let odd = odd(asm, q);
        let minus = asm.op(Op::FNegate, T, &[c]);
        let (above, below) = (asm.select(T, odd, minus, s), asm.select(T, odd, s, c));
        asm.fdiv(T, above, below)
    } else {
        let q = if op == Unary::Cos { asm.op(Op::IAdd, Ty::U64, &[q, one]) } else { q };
        let odd = odd(asm, q);
        let y = asm.select(T, odd, c, s);
        let bits = asm.bits(T, y);
        let (flip, shift) = (asm.op(Op::BitwiseAnd, Ty::U64, &[q, two]), asm.u32(62));
        let flip = asm.op(Op::ShiftLeftLogical, Ty::U64, &[flip, shift]);
        let bits = asm.op(Op::BitwiseXor, Ty::U64, &[bits, flip]);
        asm.float_of(T, bits)
    }
}

/// `x = q π/2 + r` by a product in two parts.
fn reduce_near(asm: &mut Asm, x: Id) -> Vec<Id> {
    let x = widen(asm, x);
    let [ratio, round, high, low] =
        [c64::FRAC_2_PI, ROUND, f64::from_bits(HALF_PI_HIGH), HALF_PI_LOW].map(|value| asm.f64(value));
    let product = asm.fmul(T, x, ratio);
    let shifted = asm.fadd(T, product, round);
    let k = asm.fsub(T, shifted, round);
    let (high, low) = (asm.fmul(T, k, high), asm.fmul(T, k, low));
    let r = asm.fsub(T, x, high);
    let r = asm.fsub(T, r, low);
    vec![r, asm.bits(T, shifted)]
}

/// The same from the fraction of `x · 2/π`, in integers.
fn reduce_far(asm: &mut Asm, x: Id, size: Id) -> Vec<Id> {
    let [fraction, quadrant] = fraction(asm, size);
    let fraction = asm.convert_signed(Op::ConvertSToF, Ty::U64, T, fraction);
    let scale = asm.f64(c64::FRAC_PI_2 / 18_446_744_073_709_551_616.0);
    let r = asm.fmul(T, fraction, scale);
    // Of −x: both negated.
    let (zero, nothing) = (asm.u64(0), asm.f32(0.0));
    let minus = asm.is_less(x, nothing);
    let (negated, other) = (asm.op(Op::FNegate, T, &[r]), asm.op(Op::ISub, Ty::U64, &[zero, quadrant]));
    vec![asm.select(T, minus, negated, r), asm.select(Ty::U64, minus, other, quadrant)]
}

/// `|x| · 2/π` of a large `|x|`: what is left of the nearest quadrant, times 2⁶⁴ as an i64, and the quadrant modulo 4.
pub(super) fn fraction(asm: &mut Asm, size: Id) -> [Id; 2] {
    let bits = asm.bits(Ty::F32, size);
    let (shift, below, hidden, bias) = (asm.u32(23), asm.u32(0x7f_ffff), asm.u32(0x80_0000), asm.u32(127 + 23));
    let exponent = asm.op(Op::ShiftRightLogical, Ty::U32, &[bits, shift]);
    let m = asm.op(Op::BitwiseAnd, Ty::U32, &[bits, below]);
    let m = asm.op(Op::BitwiseOr, Ty::U32, &[m, hidden]);
    let m = asm.op(Op::UConvert, Ty::U64, &[m]);
    // |x| = m · 2^e. Bits of the constant before number e + 30 only give multiples of 4 quadrants: of the 96 bits from
    // there on, times m, the highest of the lowest 96 weighs 2 quadrants.
    let (e, skipped, two) = (asm.op(Op::ISub, Ty::U32, &[exponent, bias]), asm.u32(30), asm.u32(2));
    let begin = asm.op(Op::IAdd, Ty::U32, &[e, skipped]);
    let (five, rest) = (asm.u32(5), asm.u32(31));
    let word = asm.op(Op::ShiftRightLogical, Ty::U32, &[begin, five]);
    let within = asm.op(Op::BitwiseAnd, Ty::U32, &[begin, rest]);
    // Words word, word + 1, … of the constant, by selection.
    let picked: Vec<Id> = (0..4usize)
        .map(|at| {
            let mut value = asm.u32(TWO_OVER_PI[at]);
            for start in 1..TWO_OVER_PI.len() - at {
                let (number, other) = (asm.u32(start as u32), asm.u32(TWO_OVER_PI[start + at]));
                let here = asm.op(Op::IEqual, Ty::Bool, &[word, number]);
                value = asm.select(Ty::U32, here, other, value);
            }
            asm.op(Op::UConvert, Ty::U64, &[value])
        })
        .collect();
    let half = asm.u32(32);
    let shifted: Vec<Id> = (0..3)
        .map(|at| {
            let high = asm.op(Op::ShiftLeftLogical, Ty::U64, &[picked[at], half]);
            let pair = asm.op(Op::BitwiseOr, Ty::U64, &[high, picked[at + 1]]);
            let pair = asm.op(Op::ShiftLeftLogical, Ty::U64, &[pair, within]);
            asm.op(Op::ShiftRightLogical, Ty::U64, &[pair, half])
        })
        .collect();
    // The product's bits below 2⁹⁶, of which the highest 64 are kept.
    let products: Vec<Id> = shifted.iter().map(|&word| asm.op(Op::IMul, Ty::U64, &[m, word])).collect();
    let carry = asm.op(Op::ShiftRightLogical, Ty::U64, &[products[2], half]);
    let middle = asm.op(Op::IAdd, Ty::U64, &[products[1], carry]);
    let top = asm.op(Op::ShiftLeftLogical, Ty::U64, &[products[0], half]);
    let top = asm.op(Op::IAdd, Ty::U64, &[top, middle]);
    // Two bits of quadrant, then the fraction; rounded to the nearest quadrant so that |fraction| <= ½.
    let (sixty_two, one) = (asm.u32(62), asm.u64(1 << 61));
    let rounded = asm.op(Op::IAdd, Ty::U64, &[top, one]);
    let quadrant = asm.op(Op::ShiftRightLogical, Ty::U64, &[rounded, sixty_two]);
    [asm.op(Op::ShiftLeftLogical, Ty::U64, &[top, two]), quadrant]
}

/// The angle of the point `(x, y)`, floats of type `ty`: the series of the arctangent after `halvings`, each `atan a =
/// 2 atan(a/(1 + √(1 + a²)))`. One is enough for 10⁻¹², two for 10⁻¹⁶ in f64.
pub(super) fn atan2(asm: &mut Asm, ty: Ty, y: Id, x: Id, halvings: u32) -> Id {
    let [zero, one, infinity] = [0.0, 1.0, f64::INFINITY].map(|value| asm.float(ty, value));
    let (a, b) = (asm.fabs(ty, y), asm.fabs(ty, x));
    // The smaller over the larger; 1 for two infinities, 0 for two zeros.
    let steep = asm.is_less(b, a);
    let (above, below) = (asm.select(ty, steep, b, a), asm.select(ty, steep, a, b));
    let ratio = asm.fdiv(ty, above, below);
    let (endless, none) = (asm.is_equal(above, infinity), asm.is_equal(below, zero));
    let ratio = asm.select(ty, endless, one, ratio);
    let mut t = asm.select(ty, none, zero, ratio);
    for _ in 0..halvings {
        let square = asm.fmul(ty, t, t);
        let sum = asm.fadd(ty, one, square);
        let root = asm.glsl(GLOp::Sqrt, ty, &[sum]);
        let more = asm.fadd(ty, one, root);
        t = asm.fdiv(ty, t, more);
    }
    let z = asm.fmul(ty, t, t);
    // Σ (−1)ᵏ zᵏ/(2k + 1), where z <= 0.172 or 0.0396: the terms left out are below 2·10⁻¹² and 10⁻¹⁷.
    let terms = if halvings == 1 { 14 } else { 12 };
    let coefficients: Vec<f64> =
        (0..terms).rev().map(|k| if k % 2 == 0 { 1.0 } else { -1.0 } / f64::from(2 * k + 1)).collect();
    let mut series = asm.float(ty, coefficients[0]);
    for &coefficient in &coefficients[1..] {
        let (product, coefficient) = (asm.fmul(ty, series, z), asm.float(ty, coefficient));
        series = asm.fadd(ty, product, coefficient);
    }
    let angle = asm.fmul(ty, t, series);
    let scale = asm.float(ty, f64::from(1 << halvings));
    let angle = asm.fmul(ty, angle, scale);
    let (quarter, half) = (asm.float(ty, c64::FRAC_PI_2), asm.float(ty, c64::PI));
    let other = asm.fsub(ty, quarter, angle);
    let angle = asm.select(ty, steep, other, angle);
    let (sign, least) = (asm.bits(ty, x), asm.int(Asm::bits_of(ty), 0));
    let left = asm.op(Op::SLessThan, Ty::Bool, &[sign, least]);
    let mirrored = asm.fsub(ty, half, angle);
    let angle = asm.select(ty, left, mirrored, angle);
    let angle = asm.copysign(ty, angle, y);
    let (lost, other, nan) = (asm.is_nan(y), asm.is_nan(x), asm.float(ty, f64::NAN));
    let lost = asm.op(Op::LogicalOr, Ty::Bool, &[lost, other]);
    asm.select(ty, lost, nan, angle)
}
