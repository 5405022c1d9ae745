//! Logarithms of f64. Method and accuracy as in `double.rs`.

use std::f64::consts as c64;

use rspirv::spirv::Op;

use super::asm::{Asm, Id, Ty};
use super::double::{LN2_HIGH, LN2_LOW, scaled};
use super::ends;
use super::exact::two_sum;
use super::wide::polynomial;

const T: Ty = Ty::F64;

/// `ln x = k ln 2 + s` of a positive, finite `x`: `k` and `s = 2 artanh((m − 1)/(m + 1))`, `√½ <= m < √2`.
fn ln_parts(asm: &mut Asm, x: Id) -> (Id, Id) {
    let (normal, raise) = (asm.f64(f64::MIN_POSITIVE), asm.f64((1u64 << 54) as f64));
    let small = asm.is_less(x, normal);
    let raised = asm.fmul(T, x, raise);
    let x = asm.select(T, small, raised, x);
    let (bits, shift) = (asm.bits(T, x), asm.u32(52));
    let sqrt_half: u64 = 0x3fe6_a09e_667f_3bcd;
    let offset = asm.u64((1023u64 << 52).wrapping_sub(sqrt_half));
    let moved = asm.op(Op::IAdd, Ty::U64, &[bits, offset]);
    let biased = asm.op(Op::ShiftRightLogical, Ty::U64, &[moved, shift]);
    let bias = asm.u64(1023);
    let k = asm.op(Op::ISub, Ty::U64, &[biased, bias]);
    let power = asm.op(Op::ShiftLeftLogical, Ty::U64, &[k, shift]);
    let m = asm.op(Op::ISub, Ty::U64, &[bits, power]);
    let m = asm.float_of(T, m);
    // 2⁵² + biased, less what is too much.
    let (mantissa, base) = (asm.u64(0x4330_0000_0000_0000), asm.f64(4_503_599_627_370_496.0));
    let k = asm.op(Op::BitwiseOr, Ty::U64, &[mantissa, biased]);
    let k = asm.float_of(T, k);
    let k = asm.fsub(T, k, base);
    let (bias, lowered) = (asm.f64(1023.0), asm.f64(1077.0));
    let bias = asm.select(T, small, lowered, bias);
    let k = asm.fsub(T, k, bias);
    let one = asm.f64(1.0);
    let (less, more) = (asm.fsub(T, m, one), asm.fadd(T, m, one));
    let s = asm.fdiv(T, less, more);
    let z = asm.fmul(T, s, s);
    // Σ 2 zᵏ/(2k + 1), z <= 0.0295: the terms left out are below 10⁻¹⁷.
    let coefficients: Vec<f64> = (1..=11).rev().map(|k| 2.0 / f64::from(2 * k + 1)).collect();
    let p = polynomial(asm, z, &coefficients);
    let (twice, cube) = (asm.fadd(T, s, s), asm.fmul(T, s, z));
    let tail = asm.fmul(T, cube, p);
    (k, asm.fadd(T, twice, tail))
}

/// `ln x` of a positive, finite `x` in two parts.
pub(super) fn ln_pair(asm: &mut Asm, x: Id) -> (Id, Id) {
    let (k, s) = ln_parts(asm, x);
    let (high, low) = (scaled(asm, k, LN2_HIGH), scaled(asm, k, LN2_LOW));
    let low = asm.fadd(T, s, low);
    two_sum(asm, high, low)
}

/// `x` where its logarithm is finite, else 1; and whether `x` is infinite.
fn ln_domain(asm: &mut Asm, x: Id) -> (Id, Id) {
    let [zero, one, infinity] = [0.0, 1.0, f64::INFINITY].map(|value| asm.f64(value));
    let (positive, finite) = (asm.is_less(zero, x), asm.is_less(x, infinity));
    let inside = asm.both(positive, finite);
    (asm.select(T, inside, x, one), asm.is_equal(x, infinity))
}

/// `ln x`, times a factor.
pub(super) fn logarithm(asm: &mut Asm, x: Id, factor: Option<f64>) -> Id {
    let (d, endless) = ln_domain(asm, x);
    let (mut y, _) = ln_pair(asm, d);
    if let Some(factor) = factor {
        y = scaled(asm, y, factor);
    }
    let y = asm.select(T, endless, x, y);
    ends::logarithm(asm, T, x, 0.0, y)
}

/// `log₂ x`
pub(super) fn log2(asm: &mut Asm, x: Id) -> Id {
    let (d, endless) = ln_domain(asm, x);
    let (k, s) = ln_parts(asm, d);
    let s = scaled(asm, s, c64::LOG2_E);
    let y = asm.fadd(T, k, s);
    let y = asm.select(T, endless, x, y);
    ends::logarithm(asm, T, x, 0.0, y)
}

/// `ln(1 + x) = ln u + (x − (u − 1))/u`, `u = 1 + x` as rounded.
pub(super) fn ln1p(asm: &mut Asm, x: Id) -> Id {
    let [one, minus, infinity] = [1.0, -1.0, f64::INFINITY].map(|value| asm.f64(value));
    let (above, finite) = (asm.is_less(minus, x), asm.is_less(x, infinity));
    let inside = asm.both(above, finite);
    let d = asm.select(T, inside, x, one);
    let u = asm.fadd(T, one, d);
    let whole = asm.fsub(T, u, one);
    let lost = asm.fsub(T, d, whole);
    let correction = asm.fdiv(T, lost, u);
    let (y, _) = ln_pair(asm, u);
    let y = asm.fadd(T, y, correction);
    let (none, endless) = (asm.is_equal(u, one), asm.is_equal(x, infinity));
    let same = asm.op(Op::LogicalOr, Ty::Bool, &[none, endless]);
    let y = asm.select(T, same, x, y);
    ends::logarithm(asm, T, x, -1.0, y)
}
