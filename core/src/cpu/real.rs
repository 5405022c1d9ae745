//! The numbers that the formulas of `math` are written over, so that each is written once for all who compute it.

use std::ops::{Add, Div, Mul, Sub};

/// Adding 1.5·2²³ rounds to an integer and leaves it in the low mantissa bits, without a float-to-int conversion.
pub const ROUND: f32 = 12_582_912.0;

/// What the formulas of f32 are written over: one number, or those in a register of code that is being made
/// (`code::record`). Constants are given by `of`.
pub trait Real: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    /// Result of a comparison.
    type Mask: Copy;
    /// The bits as an integer.
    type Int: Integer<Real = Self>;
    /// A constant.
    fn of(value: f32) -> Self;
    /// `self < low ? low : self`: a NaN goes through.
    fn at_least(self, low: f32) -> Self;
    /// `self > high ? high : self`: a NaN goes through.
    fn at_most(self, high: f32) -> Self;
    /// Without its sign.
    fn abs(self) -> Self;
    /// With the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// `self < other`
    fn less(self, other: Self) -> Self::Mask;
    /// `mask ? yes : no`
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// Its bits.
    fn bits(self) -> Self::Int;
    /// `self · 2ᵏ` for `|k| <= 252`, rounded once where the result is subnormal; `shifted` is `k + ROUND`.
    #[inline(always)]
    fn scaled(self, shifted: Self) -> Self {
        scaled(self, shifted)
    }
}

/// [`Real::scaled`] by two products.
#[inline(always)]
pub fn scaled<R: Real>(x: R, shifted: R) -> R {
    let k = integer(shifted);
    let half = k.halved();
    x * power_of_two::<R>(half) * power_of_two::<R>(k.minus(half))
}

/// The integer that was rounded into `x + ROUND`.
#[inline(always)]
pub fn integer<R: Real>(shifted: R) -> R::Int {
    shifted.bits().plus((ROUND.to_bits() as i32).wrapping_neg())
}

/// `2ᵏ` for `−126 <= k <= 127`.
#[inline(always)]
pub fn power_of_two<R: Real>(k: R::Int) -> R {
    k.plus(127).shifted(23).float()
}

/// Wrapping arithmetic on the bits of a [`Real`].
pub trait Integer: Copy {
    /// Whose bits.
    type Real;
    /// `self + value`
    fn plus(self, value: i32) -> Self;
    /// `self - other`
    fn minus(self, other: Self) -> Self;
    /// `self >> 1`, keeping the sign.
    fn halved(self) -> Self;
    /// `self << bits`
    fn shifted(self, bits: u8) -> Self;
    /// As the bits of a number.
    fn float(self) -> Self::Real;
}

impl Real for f32 {
    type Mask = bool;
    type Int = i32;
    #[inline(always)]
    fn of(value: f32) -> f32 {
        value
    }
    #[inline(always)]
    fn at_least(self, low: f32) -> f32 {
        if self < low { low } else { self }
    }
    #[inline(always)]
    fn at_most(self, high: f32) -> f32 {
        if self > high { high } else { self }
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn copysign(self, sign: f32) -> f32 {
        f32::copysign(self, sign)
    }
    #[inline(always)]
    fn less(self, other: f32) -> bool {
        self < other
    }
    #[inline(always)]
    fn select(mask: bool, yes: f32, no: f32) -> f32 {
        if mask { yes } else { no }
    }
    #[inline(always)]
    fn bits(self) -> i32 {
        self.to_bits() as i32
    }
}

impl Integer for i32 {
    type Real = f32;
    #[inline(always)]
    fn plus(self, value: i32) -> i32 {
        self.wrapping_add(value)
    }
    #[inline(always)]
    fn minus(self, other: i32) -> i32 {
        self.wrapping_sub(other)
    }
    #[inline(always)]
    fn halved(self) -> i32 {
        self >> 1
    }
    #[inline(always)]
    fn shifted(self, bits: u8) -> i32 {
        self << bits
    }
    #[inline(always)]
    fn float(self) -> f32 {
        f32::from_bits(self as u32)
    }
}
