//! The two half-precision formats: their bits from and to f32. Owns the formulas; who loads and stores is not its
//! matter.
//!
//! Branch-free, so that loops over them become vector code. Results round to nearest, ties to even; what is beyond the
//! largest number becomes an infinity, every NaN the quiet one of its sign. Other dtypes go through f32, as in PyTorch.

use crate::DType;

/// What is above f32's exponents of f16, as bits of f32: the least number that has none, 2¹⁶.
const F16_END: u32 = 143 << 23;
/// The least normal f16, 2⁻¹⁴, as bits of f32.
const F16_NORMAL: u32 = 113 << 23;
/// ½: added to a number below 2⁻¹⁴ it rounds it to multiples of 2⁻²⁴, the least f16.
const HALF: u32 = 126 << 23;
/// Between the biases of the exponents of f32 and f16.
const REBIAS: u32 = 112 << 23;
const INFINITY: u32 = 0x7f80_0000;
const SIGN: u32 = 0x8000_0000;

/// A select that stays one in vector code.
#[inline(always)]
const fn pick(condition: bool, yes: u32, no: u32) -> u32 {
    if condition { yes } else { no }
}

/// The bits of the nearest bf16.
///
/// ```
/// use tapeflow_ir::half::{bf16_from_f32, bf16_to_f32};
/// assert_eq!(bf16_from_f32(1.0), 0x3f80);
/// assert_eq!(bf16_to_f32(bf16_from_f32(1.01)), 1.0078125);
/// ```
#[inline(always)]
pub const fn bf16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff).wrapping_add(bits >> 16 & 1);
    let quiet = bits & SIGN | 0x7fc0_0000;
    (pick(bits & !SIGN > INFINITY, quiet, rounded) >> 16) as u16
}

/// The number that the bits of a bf16 stand for.
#[inline(always)]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The bits of the nearest f16 (Giesen, "Float → half conversion").
///
/// ```
/// use tapeflow_ir::half::{f16_from_f32, f16_to_f32};
/// assert_eq!(f16_from_f32(1.0), 0x3c00);
/// assert_eq!(f16_to_f32(f16_from_f32(65519.0)), 65504.0);
/// assert_eq!(f16_to_f32(f16_from_f32(65520.0)), f32::INFINITY);
/// ```
#[inline(always)]
pub fn f16_from_f32(x: f32) -> u16 {
    let sign = x.to_bits() & SIGN;
    let bits = x.to_bits() ^ sign;
    let normal = bits.wrapping_sub(REBIAS).wrapping_add(0xfff).wrapping_add(bits >> 13 & 1) >> 13;
    let small = (f32::from_bits(bits) + f32::from_bits(HALF)).to_bits().wrapping_sub(HALF);
    let large = pick(bits > INFINITY, 0x7e00, 0x7c00);
    let size = pick(bits < F16_NORMAL, small, pick(bits >= F16_END, large, normal));
    (sign >> 16 | size) as u16
}

/// The number that the bits of an f16 stand for.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = (bits as u32 & 0x8000) << 16;
    let shifted = (bits as u32 & 0x7fff) << 13;
    let normal = shifted.wrapping_add(REBIAS);
    let exponent = shifted & 0x7c00 << 13;
    // Subnormal: a mantissa with the least exponent, less what that exponent alone is.
    let small = (f32::from_bits(normal.wrapping_add(1 << 23)) - f32::from_bits(F16_NORMAL)).to_bits();
    let size = pick(exponent == 0, small, pick(exponent == 0x7c00 << 13, normal.wrapping_add(REBIAS), normal));
    f32::from_bits(sign | size)
}

/// `x` rounded to `dtype`, which is f16, bf16 or f32 (a wider dtype keeps it).
///
/// ```
/// use tapeflow_ir::{DType, half::rounded};
/// assert_eq!(rounded(DType::BF16, 0.1), 0.10009765625);
/// assert_eq!(rounded(DType::F16, 1e6), f64::INFINITY);
/// ```
pub fn rounded(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(x as f32),
        DType::F16 => f64::from(f16_to_f32(f16_from_f32(x as f32))),
        DType::BF16 => f64::from(bf16_to_f32(bf16_from_f32(x as f32))),
        _ => x,
    }
}
