//! Transcendental functions of one f32, computed in f32: the CPU device's polynomials (`core/src/cpu/math.rs`, which
//! states their method and errors), instruction by instruction, so that both give the same bits. What is computed in
//! f64 and rounded once stands in `wide.rs`, and in `narrow.rs` for devices without f64.

use rspirv::spirv::Op;
use tapeflow_ir::{Binary, Unary};

use super::asm::{Asm, Id, Ty};
use super::{narrow, wide};

const ROUND: f32 = 12_582_912.0;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
const EXP_TAIL: [f32; 6] = [0.000_199_143, 0.001_394_109_8, 0.008_333_273, 0.041_666_355, 0.166_666_67, 0.5];
const ERF_NEAR: [f32; 8] = [
    -9.641_522e-6,
    0.000_112_569_5,
    -0.000_848_282_9,
    0.005_220_945_6,
    -0.026_865_4,
    0.112_837_82,
    -0.376_126_38,
    0.128_379_17,
];
const ERF_FAR: [f32; 8] = [
    -2.168_673_8e-5,
    0.000_441_335,
    -0.004_204_554_6,
    0.025_208_236,
    -0.108_418_54,
    -0.633_219_96,
    -1.129_578_4,
    0.000_188_036_1,
];

const T: Ty = Ty::F32;

/// `op x` of an f32.
pub(super) fn unary(asm: &mut Asm, op: Unary, x: Id) -> Id {
    match op {
        Unary::Exp => exp(asm, x),
        Unary::Exp2 => exp2(asm, x),
        Unary::ExpM1 => expm1(asm, x),
        Unary::Tanh => tanh(asm, x),
        Unary::Erf => erf(asm, x),
        _ if asm.target.has_f64 => wide::unary(asm, op, x),
        _ => narrow::unary(asm, op, x),
    }
}

/// `a op b` of two f32.
pub(super) fn binary(asm: &mut Asm, op: Binary, a: Id, b: Id) -> Id {
    match (op, asm.target.has_f64) {
        (Binary::Pow, true) => wide::pow(asm, a, b),
        (_, true) => wide::atan2(asm, a, b),
        (Binary::Pow, false) => narrow::pow(asm, a, b),
        (_, false) => narrow::atan2(asm, a, b),
    }
}

/// Horner's rule, the highest coefficient first.
pub(super) fn polynomial(asm: &mut Asm, x: Id, coefficients: &[f32]) -> Id {
    let mut p = asm.f32(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        let product = asm.fmul(T, p, x);
        let coefficient = asm.f32(coefficient);
        p = asm.fadd(T, product, coefficient);
    }
    p
}

/// `a · b` and what rounding lost: Dekker's, with Veltkamp's splitting, since a device may round the product of a fused
/// multiply-add.
pub(super) fn product(asm: &mut Asm, a: Id, b: Id) -> [Id; 2] {
    let halves = |asm: &mut Asm, x: Id| {
        let factor = asm.f32(4097.0);
        let scaled = asm.fmul(T, x, factor);
        let rest = asm.fsub(T, scaled, x);
        let high = asm.fsub(T, scaled, rest);
        [high, asm.fsub(T, x, high)]
    };
    let whole = asm.fmul(T, a, b);
    let ([ah, al], [bh, bl]) = (halves(asm, a), halves(asm, b));
    let parts = [(ah, bh), (ah, bl), (al, bh), (al, bl)].map(|(x, y)| asm.fmul(T, x, y));
    let error = asm.fsub(T, parts[0], whole);
    let error = asm.fadd(T, error, parts[1]);
    let error = asm.fadd(T, error, parts[2]);
    [whole, asm.fadd(T, error, parts[3])]
}

pub(super) fn clamp(asm: &mut Asm, x: Id, low: f32, high: f32) -> Id {
    let (low, high) = (asm.f32(low), asm.f32(high));
    let below = asm.is_less(x, low);
    let x = asm.select(T, below, low, x);
    let above = asm.is_less(high, x);
    asm.select(T, above, high, x)
}

/// The integer that was rounded into `x + ROUND`, plus `more`.
pub(super) fn integer(asm: &mut Asm, shifted: Id, more: i32) -> Id {
    let (bits, offset) = (asm.bits(T, shifted), asm.u32((more as u32).wrapping_sub(ROUND.to_bits())));
    asm.op(Op::IAdd, Ty::U32, &[bits, offset])
}

fn power_of_two(asm: &mut Asm, k: Id) -> Id {
    let (bias, shift) = (asm.u32(127), asm.u32(23));
    let biased = asm.op(Op::IAdd, Ty::U32, &[k, bias]);
    let bits = asm.op(Op::ShiftLeftLogical, Ty::U32, &[biased, shift]);
    asm.float_of(T, bits)
}

fn scale(asm: &mut Asm, y: Id, k: Id) -> Id {
    let one = asm.u32(1);
    let half = asm.op(Op::ShiftRightArithmetic, Ty::U32, &[k, one]);
    let rest = asm.op(Op::ISub, Ty::U32, &[k, half]);
    let (half, rest) = (power_of_two(asm, half), power_of_two(asm, rest));
    let y = asm.fmul(T, y, half);
    asm.fmul(T, y, rest)
}

/// `eʳ − 1` on |r| <= ½ ln 2.
fn exp_part(asm: &mut Asm, r: Id) -> Id {
    let (tail, square) = (polynomial(asm, r, &EXP_TAIL), asm.fmul(T, r, r));
    let product = asm.fmul(T, tail, square);
    asm.fadd(T, product, r)
}

/// `x = k ln 2 + r`: the shifted `k`, and `eʳ − 1`.
fn reduced(asm: &mut Asm, x: Id) -> (Id, Id) {
    let [log2e, round, high, low] = [std::f32::consts::LOG2_E, ROUND, LN2_HIGH, LN2_LOW].map(|value| asm.f32(value));
    let product = asm.fmul(T, x, log2e);
    let shifted = asm.fadd(T, product, round);
    let k = asm.fsub(T, shifted, round);
    let (high, low) = (asm.fmul(T, k, high), asm.fmul(T, k, low));
    let r = asm.fsub(T, x, high);
    let r = asm.fsub(T, r, low);
    (shifted, exp_part(asm, r))
}

pub(super) fn exp(asm: &mut Asm, x: Id) -> Id {
    let x = clamp(asm, x, -104.0, 89.0);
    let (shifted, p) = reduced(asm, x);
    let one = asm.f32(1.0);
    let (y, k) = (asm.fadd(T, p, one), integer(asm, shifted, 0));
    scale(asm, y, k)
}

pub(super) fn exp2(asm: &mut Asm, x: Id) -> Id {
    let x = clamp(asm, x, -151.0, 129.0);
    let [round, ln2, one] = [ROUND, std::f32::consts::LN_2, 1.0].map(|value| asm.f32(value));
    let shifted = asm.fadd(T, x, round);
    let k = asm.fsub(T, shifted, round);
    let rest = asm.fsub(T, x, k);
    let r = asm.fmul(T, rest, ln2);
    let p = exp_part(asm, r);
    let (y, k) = (asm.fadd(T, p, one), integer(asm, shifted, 0));
    scale(asm, y, k)
}

fn expm1_core(asm: &mut Asm, x: Id) -> Id {
    let (shifted, p) = reduced(asm, x);
    let k = integer(asm, shifted, -1);
    let half = power_of_two(asm, k);
    let [low, two] = [0.5, 2.0].map(|value| asm.f32(value));
    let (product, rest) = (asm.fmul(T, half, p), asm.fsub(T, half, low));
    let sum = asm.fadd(T, product, rest);
    asm.fmul(T, sum, two)
}

pub(super) fn expm1(asm: &mut Asm, x: Id) -> Id {
    let inside = clamp(asm, x, -40.0, 89.0);
    let y = expm1_core(asm, inside);
    let (size, tiny) = (asm.fabs(T, x), asm.f32(5e-8));
    let small = asm.is_less(size, tiny);
    asm.select(T, small, x, y)
}

fn tanh(asm: &mut Asm, x: Id) -> Id {
    let (size, two) = (asm.fabs(T, x), asm.f32(2.0));
    let twice = asm.fmul(T, two, size);
    let twice = clamp(asm, twice, 0.0, 20.0);
    let t = expm1_core(asm, twice);
    let more = asm.fadd(T, t, two);
    let y = asm.fdiv(T, t, more);
    asm.copysign(T, y, x)
}

fn erf(asm: &mut Asm, x: Id) -> Id {
    let size = asm.fabs(T, x);
    let a = clamp(asm, size, 0.0, 4.0);
    let z = asm.fmul(T, a, a);
    let p = polynomial(asm, z, &ERF_NEAR);
    let near = asm.fmul(T, a, p);
    let near = asm.fadd(T, a, near);
    let q = polynomial(asm, a, &ERF_FAR);
    let (q, one) = (exp(asm, q), asm.f32(1.0));
    let far = asm.fsub(T, one, q);
    let inside = asm.is_less(a, one);
    let y = asm.select(T, inside, near, far);
    asm.copysign(T, y, x)
}
