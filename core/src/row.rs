//! `Row`, the proxy that bodies of row kernels are type-checked against, and what all kernel values have in common.
//! Owns types and signatures only: nothing here computes on rows, `#[kernel]` writes templates for that.

use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Rem, RemAssign, Sub, SubAssign};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for super::Row {}
}

/// A float value of a kernel: a scalar, or a [`Row`].
pub trait Lanes: Copy + Default + sealed::Sealed {
    /// What an elementwise function of this and another value gives: a `Row` if either is one.
    type With<Other: Lanes>: Lanes;

    /// The same value with no derivative.
    fn detach(self) -> Self;

    /// The error function.
    fn erf(self) -> Self;
}

impl Lanes for f32 {
    type With<Other: Lanes> = Other;

    fn detach(self) -> f32 {
        self
    }

    fn erf(self) -> f32 {
        tapeflow_ir::math::erf(f64::from(self)) as f32
    }
}

impl Lanes for f64 {
    type With<Other: Lanes> = Other;

    fn detach(self) -> f64 {
        self
    }

    fn erf(self) -> f64 {
        tapeflow_ir::math::erf(self)
    }
}

impl Lanes for Row {
    type With<Other: Lanes> = Row;

    fn detach(self) -> Row {
        self
    }

    fn erf(self) -> Row {
        self
    }
}

/// The same value with no derivative: in a `#[kernel]` the cotangent stops here.
///
/// # Example
/// ```
/// assert_eq!(tapeflow_core::detach(2.0_f32), 2.0);
/// ```
pub fn detach<T: Lanes>(x: T) -> T {
    x.detach()
}

/// The error function.
///
/// # Formula
/// `erf x = 2/√π · ∫₀ˣ exp(−t²) dt`
///
/// # Example
/// ```
/// assert!((tapeflow_core::erf(0.5_f32) - 0.520_499_9).abs() < 1e-6);
/// ```
pub fn erf<T: Lanes>(x: T) -> T {
    x.erf()
}

/// One row of a tensor along its last axis, in the body of a row kernel.
///
/// Arithmetic and functions act on every element, alone or with a scalar; [`max`](Row::max), [`min`](Row::min),
/// [`sum`](Row::sum) and [`mean`](Row::mean) reduce the row to a scalar; `if x > 0.0 { a } else { b }` chooses for
/// every element. A row has no values in the host program: the body is only type-checked, and what it says is run by
/// `#[kernel]`'s template. So every method here gives a `Row` or 0 and never panics.
///
/// # Formula
/// `#[kernel] fn softmax(x: Row) -> Row { let e = (x - x.max()).exp(); e / e.sum() }` is, for a row of length n,
/// `yᵢ = exp(xᵢ − max x) / Σⱼ exp(xⱼ − max x)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    _private: (),
}

/// What two rows are to each other, as far as types go.
const ROW: Row = Row { _private: () };

impl From<f32> for Row {
    /// A value that differs between elements although its type is a scalar's: `if x > 0.0 { 1.0 } else { 0.0 }`.
    fn from(_: f32) -> Row {
        ROW
    }
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])* pub fn $name(self) -> f32 { 0.0 })*
    };
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident),*))*) => {
        $($(#[$doc])* pub fn $name(self $(, $argument: impl Lanes)*) -> Row { $(let _ = $argument;)* self })*
    };
}

macro_rules! predicates {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])* pub fn $name(self) -> bool { false })*
    };
}

#[allow(clippy::len_without_is_empty)] // a row's length is a float of the kernel's dtype
impl Row {
    reductions! {
        /// The largest element; NaN if any is NaN.
        max
        /// The smallest element; NaN if any is NaN.
        min
        /// The sum of the elements, in tapeflow's fixed order.
        sum
        /// The sum divided by the length.
        mean
        /// The number of elements.
        len
    }

    functions! {
        /// The same row with no derivative.
        detach()
        /// Absolute value.
        abs()
        /// ±1 by the sign bit; NaN of NaN.
        signum()
        /// `1 / x`
        recip()
        /// `√x`
        sqrt()
        /// `∛x`
        cbrt()
        /// `eˣ`
        exp()
        /// `2ˣ`
        exp2()
        /// `eˣ − 1`
        exp_m1()
        /// Natural logarithm.
        ln()
        /// Logarithm to base 2.
        log2()
        /// Logarithm to base 10.
        log10()
        /// `ln(1 + x)`
        ln_1p()
        /// Logarithm to a base.
        log(base)
        /// Sine, radians.
        sin()
        /// Cosine, radians.
        cos()
        /// Tangent, radians.
        tan()
        /// Inverse sine.
        asin()
        /// Inverse cosine.
        acos()
        /// Inverse tangent.
        atan()
        /// The angle of the point `(x, self)`.
        atan2(x)
        /// Hyperbolic sine.
        sinh()
        /// Hyperbolic cosine.
        cosh()
        /// Hyperbolic tangent.
        tanh()
        /// Inverse hyperbolic sine.
        asinh()
        /// Inverse hyperbolic cosine.
        acosh()
        /// Inverse hyperbolic tangent.
        atanh()
        /// The error function.
        erf()
        /// Towards −∞.
        floor()
        /// Towards +∞.
        ceil()
        /// Half away from zero.
        round()
        /// Towards zero.
        trunc()
        /// What `trunc` drops.
        fract()
        /// Power with a float exponent.
        powf(exponent)
        /// The larger of each element and the other's; NaN if either is NaN.
        maximum(other)
        /// The smaller of each element and the other's; NaN if either is NaN.
        minimum(other)
        /// Limits every element.
        clamp(low, high)
        /// `self · factor + term`, rounded once.
        mul_add(factor, term)
        /// `√(self² + other²)`
        hypot(other)
        /// The magnitude of self with the other's sign.
        copysign(sign)
        /// The remainder that is never negative.
        rem_euclid(divisor)
        /// From radians.
        to_degrees()
        /// From degrees.
        to_radians()
    }

    /// Power with an integer exponent.
    pub fn powi(self, _exponent: i32) -> Row {
        self
    }

    /// Sine and cosine.
    pub fn sin_cos(self) -> (Row, Row) {
        (self, self)
    }

    predicates! {
        /// Whether each element is NaN.
        is_nan
        /// Whether each element is ±∞.
        is_infinite
        /// Whether each element is neither NaN nor ±∞.
        is_finite
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $assign:ident $assign_method:ident),*) => {$(
        impl $trait for Row {
            type Output = Row;
            fn $method(self, _: Row) -> Row {
                self
            }
        }
        impl $trait<f32> for Row {
            type Output = Row;
            fn $method(self, _: f32) -> Row {
                self
            }
        }
        impl $trait<Row> for f32 {
            type Output = Row;
            fn $method(self, row: Row) -> Row {
                row
            }
        }
        impl $assign for Row {
            fn $assign_method(&mut self, _: Row) {}
        }
        impl $assign<f32> for Row {
            fn $assign_method(&mut self, _: f32) {}
        }
    )*};
}

operators! {
    Add add AddAssign add_assign,
    Sub sub SubAssign sub_assign,
    Mul mul MulAssign mul_assign,
    Div div DivAssign div_assign,
    Rem rem RemAssign rem_assign
}

impl Neg for Row {
    type Output = Row;
    fn neg(self) -> Row {
        self
    }
}

/// Comparisons choose for every element in a kernel; here, where there are no elements, none is true.
macro_rules! comparisons {
    ($($left:ty, $right:ty);*) => {$(
        impl PartialEq<$right> for $left {
            fn eq(&self, _: &$right) -> bool {
                false
            }
        }
        impl PartialOrd<$right> for $left {
            fn partial_cmp(&self, _: &$right) -> Option<Ordering> {
                None
            }
        }
    )*};
}

comparisons! { Row, Row; Row, f32; f32, Row }
