//! Elementwise arithmetic, comparisons, logic and functions of one element. Each is a `#[kernel]` and a method.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use tapeflow_ir::DType;
use tapeflow_macros::kernel;

use super::kernel::map;
use crate::tensor::Tensor;

/// Sum.
#[kernel]
fn add(x: f32, y: f32) -> f32 {
    x + y
}
/// Difference.
#[kernel]
fn sub(x: f32, y: f32) -> f32 {
    x - y
}
/// Product.
#[kernel]
fn mul(x: f32, y: f32) -> f32 {
    x * y
}
/// Quotient.
#[kernel]
fn div(x: f32, y: f32) -> f32 {
    x / y
}
/// Remainder with the sign of the dividend.
#[kernel]
fn rem(x: f32, y: f32) -> f32 {
    x % y
}
#[kernel]
fn neg(x: f32) -> f32 {
    -x
}
#[kernel]
fn pow(x: f32, y: f32) -> f32 {
    x.powf(y)
}
#[kernel]
fn maximum(x: f32, y: f32) -> f32 {
    x.max(y)
}
#[kernel]
fn minimum(x: f32, y: f32) -> f32 {
    x.min(y)
}
#[kernel]
fn eq(x: f32, y: f32) -> bool {
    x == y
}
#[kernel]
fn ne(x: f32, y: f32) -> bool {
    x != y
}
#[kernel]
fn lt(x: f32, y: f32) -> bool {
    x < y
}
#[kernel]
fn le(x: f32, y: f32) -> bool {
    x <= y
}
#[kernel]
fn gt(x: f32, y: f32) -> bool {
    x > y
}
#[kernel]
fn ge(x: f32, y: f32) -> bool {
    x >= y
}
#[kernel]
fn logical_and(x: bool, y: bool) -> bool {
    x && y
}
#[kernel]
fn logical_or(x: bool, y: bool) -> bool {
    x || y
}
#[kernel]
fn logical_not(x: bool) -> bool {
    !x
}
#[kernel]
fn where_(condition: bool, x: f32, y: f32) -> f32 {
    if condition { x } else { y }
}
#[kernel]
fn abs(x: f32) -> f32 {
    x.abs()
}
/// Written as a template: −1 is no constant of unsigned integers, and Rust's `signum` is ±1 at 0.
mod sign {
    use tapeflow_ir::{Extent, Hole, Template, TemplateInput, TemplateRow, Unary};

    pub static TEMPLATE: &Template = &Template {
        name: "sign",
        row: false,
        inputs: &[TemplateInput { name: "x", ty: Hole::Kernel, extent: Extent::Lane }],
        rows: &[TemplateRow::Input(0), TemplateRow::Unary(Unary::Sign, 0)],
        outputs: &[1],
    };
}
#[kernel]
fn floor(x: f32) -> f32 {
    x.floor()
}
#[kernel]
fn ceil(x: f32) -> f32 {
    x.ceil()
}
#[kernel]
fn trunc(x: f32) -> f32 {
    x.trunc()
}
#[kernel]
fn exp(x: f32) -> f32 {
    x.exp()
}
#[kernel]
fn expm1(x: f32) -> f32 {
    x.exp_m1()
}
#[kernel]
fn log(x: f32) -> f32 {
    x.ln()
}
#[kernel]
fn log1p(x: f32) -> f32 {
    x.ln_1p()
}
#[kernel]
fn sqrt(x: f32) -> f32 {
    x.sqrt()
}
#[kernel]
fn rsqrt(x: f32) -> f32 {
    1.0 / x.sqrt()
}
#[kernel]
fn recip(x: f32) -> f32 {
    1.0 / x
}
#[kernel]
fn square(x: f32) -> f32 {
    x * x
}
#[kernel]
fn sin(x: f32) -> f32 {
    x.sin()
}
#[kernel]
fn cos(x: f32) -> f32 {
    x.cos()
}
#[kernel]
fn tanh(x: f32) -> f32 {
    x.tanh()
}
#[kernel]
fn equals_as_float(x: f32, y: f32) -> f32 {
    if x == y { 1.0 } else { 0.0 }
}
#[kernel]
fn select_equal(x: f32, y: f32, value: f32) -> f32 {
    if x == y { value } else { 0.0 }
}

/// The templates that other operations' vjps are written with.
pub(crate) mod templates {
    use tapeflow_ir::Template;

    pub const ADD: &Template = super::add::TEMPLATE;
    pub const DIV: &Template = super::div::TEMPLATE;
    pub const EQUALS_AS_FLOAT: &Template = super::equals_as_float::TEMPLATE;
    pub const SELECT_EQUAL: &Template = super::select_equal::TEMPLATE;
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident($($arg:ident),*) = $kernel:ident;)*) => {
        impl Tensor {$(
            $(#[$doc])*
            #[track_caller]
            pub fn $name(&self $(, $arg: &Tensor)*) -> Tensor {
                let [out] = map($kernel::TEMPLATE, &[self $(, $arg)*]);
                out
            }
        )*}
    };
}

methods! {
    /// `xʸ`, element by element; shapes broadcast.
    pow(exponent) = pow;
    /// The larger of each pair, NaN if either is; the gradient of equal elements is shared.
    maximum(other) = maximum;
    /// The smaller of each pair, NaN if either is; the gradient of equal elements is shared.
    minimum(other) = minimum;
    /// `x == y`, element by element, as bool; shapes broadcast.
    eq(other) = eq;
    /// `x != y`, element by element, as bool.
    ne(other) = ne;
    /// `x < y`, element by element, as bool.
    lt(other) = lt;
    /// `x <= y`, element by element, as bool.
    le(other) = le;
    /// `x > y`, element by element, as bool.
    gt(other) = gt;
    /// `x >= y`, element by element, as bool.
    ge(other) = ge;
    /// Both, of bools.
    logical_and(other) = logical_and;
    /// Either, of bools.
    logical_or(other) = logical_or;
    /// Not, of bools.
    logical_not() = logical_not;
    /// Elements of `x` where this (bool) is true, of `y` elsewhere; shapes broadcast. The gradient goes to the chosen
    /// one only.
    where_(x, y) = where_;
    /// `|x|`; its derivative at 0 is 0.
    abs() = abs;
    /// −1, 0 or 1; NaN stays NaN.
    sign() = sign;
    /// The integer below; its derivative is 0.
    floor() = floor;
    /// The integer above; its derivative is 0.
    ceil() = ceil;
    /// The integer towards zero; its derivative is 0.
    trunc() = trunc;
    /// `eˣ`
    exp() = exp;
    /// `eˣ − 1`, exact near 0.
    expm1() = expm1;
    /// The natural logarithm.
    log() = log;
    /// `ln(1 + x)`, exact near 0.
    log1p() = log1p;
    /// `√x`
    sqrt() = sqrt;
    /// `1/√x`
    rsqrt() = rsqrt;
    /// `1/x`
    recip() = recip;
    /// `x²`
    square() = square;
    /// Sine, radians.
    sin() = sin;
    /// Cosine, radians.
    cos() = cos;
    /// Hyperbolic tangent.
    tanh() = tanh;
}

impl Tensor {
    /// `xᵖ` for a host exponent.
    #[track_caller]
    pub fn powf(&self, exponent: f64) -> Tensor {
        // Small whole powers are exact products; their derivatives need no logarithm.
        match exponent {
            1.0 => self.clone(),
            2.0 => self.square(),
            3.0 => &self.square() * self,
            _ => self.pow(&self.number(exponent)),
        }
    }

    /// Limits elements to `low..=high`.
    #[track_caller]
    pub fn clamp(&self, low: f64, high: f64) -> Tensor {
        self.maximum(&self.number(low)).minimum(&self.number(high))
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $kernel:ident) => {
        impl $trait<&Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                let [out] = map($kernel::TEMPLATE, &[self, other]);
                out
            }
        }
        impl $trait<Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                $trait::$method(self, &other)
            }
        }
        impl $trait<&Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                $trait::$method(&self, other)
            }
        }
        impl $trait<Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                $trait::$method(&self, &other)
            }
        }
        operator!(@host $trait, $method, f64 i64);
    };
    (@host $trait:ident, $method:ident, $($host:ty)*) => {$(
        impl $trait<$host> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: $host) -> Tensor {
                $trait::$method(self, &self.number(other as f64))
            }
        }
        impl $trait<$host> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: $host) -> Tensor {
                $trait::$method(&self, other)
            }
        }
        impl $trait<&Tensor> for $host {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                $trait::$method(&other.number(self as f64), other)
            }
        }
        impl $trait<Tensor> for $host {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                $trait::$method(self, &other)
            }
        }
    )*};
}

operator!(Add, add, add);
operator!(Sub, sub, sub);
operator!(Mul, mul, mul);
operator!(Div, div, div);
operator!(Rem, rem, rem);

impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        let [out] = map(neg::TEMPLATE, &[self]);
        out
    }
}

impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        -&self
    }
}

/// dtypes that `x + 1` and the like accept a host number for.
pub(crate) fn host_value_fits(value: f64, dtype: DType) -> bool {
    match dtype {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => true,
        DType::Bool => value == 0.0 || value == 1.0,
        DType::U8 => value.fract() == 0.0 && (0.0..=255.0).contains(&value),
        DType::I32 => value.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value),
        DType::U32 => value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value),
        DType::I64 => value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0,
    }
}
