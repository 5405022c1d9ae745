//! How the operations are spelled: operators with a number or a `Value` on either side, and methods.
//! Owns the spellings only.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use super::op::Op;
use super::value::Value;

impl From<f64> for Value {
    fn from(data: f64) -> Value {
        Value::new(data)
    }
}

impl From<&Value> for Value {
    fn from(value: &Value) -> Value {
        value.clone()
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident, $assign:ident $assign_method:ident;)*) => {$(
        impl<R: Into<Value>> $trait<R> for Value {
            type Output = Value;
            fn $method(self, right: R) -> Value {
                Value::binary(Op::$trait, self, right.into())
            }
        }

        impl<R: Into<Value>> $trait<R> for &Value {
            type Output = Value;
            fn $method(self, right: R) -> Value {
                Value::binary(Op::$trait, self.clone(), right.into())
            }
        }

        impl $trait<Value> for f64 {
            type Output = Value;
            fn $method(self, right: Value) -> Value {
                Value::binary(Op::$trait, self.into(), right)
            }
        }

        impl $trait<&Value> for f64 {
            type Output = Value;
            fn $method(self, right: &Value) -> Value {
                Value::binary(Op::$trait, self.into(), right.clone())
            }
        }

        impl<R: Into<Value>> $assign<R> for Value {
            fn $assign_method(&mut self, right: R) {
                *self = Value::binary(Op::$trait, self.clone(), right.into());
            }
        }
    )*};
}

operators! {
    Add add, AddAssign add_assign;
    Sub sub, SubAssign sub_assign;
    Mul mul, MulAssign mul_assign;
    Div div, DivAssign div_assign;
}

impl Neg for Value {
    type Output = Value;
    fn neg(self) -> Value {
        Value::unary(Op::Neg, &self)
    }
}

impl Neg for &Value {
    type Output = Value;
    fn neg(self) -> Value {
        Value::unary(Op::Neg, self)
    }
}

impl Sum for Value {
    fn sum<I: Iterator<Item = Value>>(values: I) -> Value {
        values.reduce(|sum, value| sum + value).unwrap_or_else(|| Value::new(0.0))
    }
}

impl<'a> Sum<&'a Value> for Value {
    fn sum<I: Iterator<Item = &'a Value>>(values: I) -> Value {
        values.cloned().sum()
    }
}

impl Value {
    /// `x` to the power of another value (or number), differentiable by both.
    pub fn pow(&self, exponent: impl Into<Value>) -> Value {
        Value::binary(Op::Pow, self.clone(), exponent.into())
    }

    /// `xⁿ` for a constant `n`.
    pub fn powf(&self, n: f64) -> Value {
        Value::unary(Op::Powf(n), self)
    }

    /// `eˣ`
    pub fn exp(&self) -> Value {
        Value::unary(Op::Exp, self)
    }

    /// The natural logarithm.
    pub fn ln(&self) -> Value {
        Value::unary(Op::Ln, self)
    }

    /// `√x`
    pub fn sqrt(&self) -> Value {
        Value::unary(Op::Sqrt, self)
    }

    /// The hyperbolic tangent.
    pub fn tanh(&self) -> Value {
        Value::unary(Op::Tanh, self)
    }

    /// `1 / (1 + e⁻ˣ)`
    pub fn sigmoid(&self) -> Value {
        Value::unary(Op::Sigmoid, self)
    }

    /// `max(x, 0)`; the derivative at 0 is 0.
    pub fn relu(&self) -> Value {
        Value::unary(Op::Relu, self)
    }
}
