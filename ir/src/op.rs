//! The operations of the scalar IR: the rows that templates and functions are made of.
//! Owns their names and arities; the derivative of each stands in `derivative.rs`, its value in `arithmetic.rs`.

use crate::DType;
use std::fmt;

/// One operand. Rounding is IEEE; functions of the mathematics library may differ by a few units in the last place
/// between devices, and never between runs on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// `-x`
    Neg,
    /// `|x|`
    Abs,
    /// `-1`, `0` or `1` (0 for ±0, unlike Rust's `signum`; NaN stays NaN), as NumPy's `sign`.
    Sign,
    /// Towards −∞.
    Floor,
    /// Towards +∞.
    Ceil,
    /// Half away from zero, as Rust's `round`.
    Round,
    /// Towards zero.
    Trunc,
    /// `√x`
    Sqrt,
    /// `∛x`
    Cbrt,
    /// `eˣ`
    Exp,
    /// `2ˣ`
    Exp2,
    /// `eˣ − 1`
    ExpM1,
    /// `ln x`
    Ln,
    /// `log₂ x`
    Log2,
    /// `log₁₀ x`
    Log10,
    /// `ln(1 + x)`
    Ln1p,
    /// Sine, radians.
    Sin,
    /// Cosine, radians.
    Cos,
    /// Tangent, radians.
    Tan,
    /// Inverse sine.
    Asin,
    /// Inverse cosine.
    Acos,
    /// Inverse tangent.
    Atan,
    /// Hyperbolic sine.
    Sinh,
    /// Hyperbolic cosine.
    Cosh,
    /// Hyperbolic tangent.
    Tanh,
    /// The error function.
    Erf,
    /// Logical not of a bool; bitwise not of an integer.
    Not,
}

/// Two operands of one dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// `a + b` (integers wrap)
    Add,
    /// `a − b` (integers wrap)
    Sub,
    /// `a · b` (integers wrap)
    Mul,
    /// `a / b`; integers truncate, and division by zero gives 0.
    Div,
    /// Remainder with the sign of `a`, as Rust's `%`; by zero gives 0 for integers.
    Rem,
    /// The smaller; NaN if either is NaN, as NumPy's `minimum`; −0 is smaller than +0 (IEEE 754-2019 `minimum`).
    Min,
    /// The larger; NaN if either is NaN, as NumPy's `maximum`; +0 is larger than −0 (IEEE 754-2019 `maximum`).
    Max,
    /// `aᵇ`
    Pow,
    /// The angle of the point `(b, a)`.
    Atan2,
    /// Magnitude of `a`, sign of `b`.
    Copysign,
    /// Logical or bitwise and.
    And,
    /// Logical or bitwise or.
    Or,
    /// Logical or bitwise exclusive or.
    Xor,
}

/// Two operands of one dtype, giving a bool. Comparisons with NaN are false, except `Ne`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// `a == b`
    Eq,
    /// `a != b`
    Ne,
    /// `a < b`
    Lt,
    /// `a <= b`
    Le,
    /// `a > b`
    Gt,
    /// `a >= b`
    Ge,
}

/// A reduction along the last axis. `Sum` has a fixed arithmetic: see [`crate::reduce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// Sum; 0 of nothing.
    Sum,
    /// Largest, by [`Binary::Max`]; −∞ (or the smallest integer) of nothing; NaN if any is NaN.
    Max,
    /// Smallest, by [`Binary::Min`]; +∞ (or the largest integer) of nothing; NaN if any is NaN.
    Min,
}

impl Unary {
    /// Every one, in declaration order.
    pub const ALL: [Unary; 27] = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Floor,
        Unary::Ceil,
        Unary::Round,
        Unary::Trunc,
        Unary::Sqrt,
        Unary::Cbrt,
        Unary::Exp,
        Unary::Exp2,
        Unary::ExpM1,
        Unary::Ln,
        Unary::Log2,
        Unary::Log10,
        Unary::Ln1p,
        Unary::Sin,
        Unary::Cos,
        Unary::Tan,
        Unary::Asin,
        Unary::Acos,
        Unary::Atan,
        Unary::Sinh,
        Unary::Cosh,
        Unary::Tanh,
        Unary::Erf,
        Unary::Not,
    ];

    /// The name in errors and dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Sign => "sign",
            Unary::Floor => "floor",
            Unary::Ceil => "ceil",
            Unary::Round => "round",
            Unary::Trunc => "trunc",
            Unary::Sqrt => "sqrt",
            Unary::Cbrt => "cbrt",
            Unary::Exp => "exp",
            Unary::Exp2 => "exp2",
            Unary::ExpM1 => "exp_m1",
            Unary::Ln => "ln",
            Unary::Log2 => "log2",
            Unary::Log10 => "log10",
            Unary::Ln1p => "ln_1p",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Tan => "tan",
            Unary::Asin => "asin",
            Unary::Acos => "acos",
            Unary::Atan => "atan",
            Unary::Sinh => "sinh",
            Unary::Cosh => "cosh",
            Unary::Tanh => "tanh",
            Unary::Erf => "erf",
            Unary::Not => "not",
        }
    }

    /// Whether the operation exists for values of that dtype.
    pub const fn defined_for(self, dtype: DType) -> bool {
        match self {
            _ if dtype.is_half() => false,
            Unary::Neg | Unary::Abs | Unary::Sign => dtype.is_float() || dtype.is_int(),
            Unary::Not => !dtype.is_float(),
            _ => dtype.is_float(),
        }
    }
}

impl fmt::Display for Unary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Binary {
    /// Every one, in declaration order.
    pub const ALL: [Binary; 13] = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Rem,
        Binary::Min,
        Binary::Max,
        Binary::Pow,
        Binary::Atan2,
        Binary::Copysign,
        Binary::And,
        Binary::Or,
        Binary::Xor,
    ];

    /// The name in errors and dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Rem => "rem",
            Binary::Min => "min",
            Binary::Max => "max",
            Binary::Pow => "pow",
            Binary::Atan2 => "atan2",
            Binary::Copysign => "copysign",
            Binary::And => "and",
            Binary::Or => "or",
            Binary::Xor => "xor",
        }
    }

    /// Whether the operation exists for values of that dtype.
    pub const fn defined_for(self, dtype: DType) -> bool {
        match self {
            _ if dtype.is_half() => false,
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Rem | Binary::Min | Binary::Max => {
                dtype.is_float() || dtype.is_int()
            }
            Binary::Pow | Binary::Atan2 | Binary::Copysign => dtype.is_float(),
            Binary::And | Binary::Or | Binary::Xor => !dtype.is_float(),
        }
    }

    /// Whether swapping the operands never changes a bit of the result (NaNs count as one value).
    pub const fn commutes(self) -> bool {
        matches!(self, Binary::Add | Binary::Mul | Binary::Min | Binary::Max | Binary::And | Binary::Or | Binary::Xor)
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Compare {
    /// Every one, in declaration order.
    pub const ALL: [Compare; 6] = [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge];

    /// The name in errors and dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Compare::Eq => "eq",
            Compare::Ne => "ne",
            Compare::Lt => "lt",
            Compare::Le => "le",
            Compare::Gt => "gt",
            Compare::Ge => "ge",
        }
    }

    /// The comparison that holds with the operands swapped.
    pub const fn swapped(self) -> Compare {
        match self {
            Compare::Eq => Compare::Eq,
            Compare::Ne => Compare::Ne,
            Compare::Lt => Compare::Gt,
            Compare::Le => Compare::Ge,
            Compare::Gt => Compare::Lt,
            Compare::Ge => Compare::Le,
        }
    }
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Reduce {
    /// Every one, in declaration order.
    pub const ALL: [Reduce; 3] = [Reduce::Sum, Reduce::Max, Reduce::Min];

    /// The name in errors and dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Reduce::Sum => "sum",
            Reduce::Max => "max",
            Reduce::Min => "min",
        }
    }

    /// Whether the reduction exists for values of that dtype.
    pub const fn defined_for(self, dtype: DType) -> bool {
        !matches!(dtype, DType::Bool | DType::F16 | DType::BF16)
    }
}

impl fmt::Display for Reduce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
