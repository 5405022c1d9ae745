//! The methods a kernel may call, each as rows of the IR.
//! Owns the decompositions; formulas that Rust's standard library fixes are Rust's.

use super::model::RowId;
use super::rows::Rows;

/// Writes a method's rows; the receiver is the first of the operands.
type Build = fn(&mut Rows, &[RowId]) -> RowId;

/// One method: its name, the number of its arguments, its rows.
pub struct Method {
    /// As in Rust.
    pub name: &'static str,
    /// Without the receiver.
    pub arguments: usize,
    /// Whether it reduces a `Row`.
    pub reduces: bool,
    /// Its rows.
    pub build: Build,
}

const fn method(name: &'static str, arguments: usize, build: Build) -> Method {
    Method { name, arguments, reduces: false, build }
}

const fn reduction(name: &'static str, build: Build) -> Method {
    Method { name, arguments: 0, reduces: true, build }
}

/// Every method of scalars and rows. `max` and `min` occur twice: along the row, and of two values.
pub const METHODS: &[Method] = &[
    reduction("sum", |r, a| r.reduce("Sum", a[0])),
    reduction("max", |r, a| r.reduce("Max", a[0])),
    reduction("min", |r, a| r.reduce("Min", a[0])),
    reduction("mean", |r, a| {
        let sum = r.reduce("Sum", a[0]);
        let length = r.length();
        r.binary("Div", sum, length)
    }),
    reduction("len", |r, _| r.length()),
    method("detach", 0, |r, a| r.detach(a[0])),
    method("abs", 0, |r, a| r.unary("Abs", a[0])),
    method("floor", 0, |r, a| r.function("Floor", a[0])),
    method("ceil", 0, |r, a| r.function("Ceil", a[0])),
    method("round", 0, |r, a| r.function("Round", a[0])),
    method("trunc", 0, |r, a| r.function("Trunc", a[0])),
    method("sqrt", 0, |r, a| r.function("Sqrt", a[0])),
    method("cbrt", 0, |r, a| r.function("Cbrt", a[0])),
    method("exp", 0, |r, a| r.function("Exp", a[0])),
    method("exp2", 0, |r, a| r.function("Exp2", a[0])),
    method("exp_m1", 0, |r, a| r.function("ExpM1", a[0])),
    method("ln", 0, |r, a| r.function("Ln", a[0])),
    method("log2", 0, |r, a| r.function("Log2", a[0])),
    method("log10", 0, |r, a| r.function("Log10", a[0])),
    method("ln_1p", 0, |r, a| r.function("Ln1p", a[0])),
    method("sin", 0, |r, a| r.function("Sin", a[0])),
    method("cos", 0, |r, a| r.function("Cos", a[0])),
    method("tan", 0, |r, a| r.function("Tan", a[0])),
    method("asin", 0, |r, a| r.function("Asin", a[0])),
    method("acos", 0, |r, a| r.function("Acos", a[0])),
    method("atan", 0, |r, a| r.function("Atan", a[0])),
    method("sinh", 0, |r, a| r.function("Sinh", a[0])),
    method("cosh", 0, |r, a| r.function("Cosh", a[0])),
    method("tanh", 0, |r, a| r.function("Tanh", a[0])),
    method("erf", 0, |r, a| r.function("Erf", a[0])),
    method("max", 1, |r, a| r.binary("Max", a[0], a[1])),
    method("min", 1, |r, a| r.binary("Min", a[0], a[1])),
    method("maximum", 1, |r, a| r.binary("Max", a[0], a[1])),
    method("minimum", 1, |r, a| r.binary("Min", a[0], a[1])),
    method("powf", 1, |r, a| r.binary("Pow", a[0], a[1])),
    method("atan2", 1, |r, a| r.binary("Atan2", a[0], a[1])),
    method("copysign", 1, |r, a| r.binary("Copysign", a[0], a[1])),
    method("wrapping_add", 1, |r, a| r.binary("Add", a[0], a[1])),
    method("wrapping_sub", 1, |r, a| r.binary("Sub", a[0], a[1])),
    method("wrapping_mul", 1, |r, a| r.binary("Mul", a[0], a[1])),
    method("mul_add", 2, |r, a| r.mul_add(a[0], a[1], a[2])),
    method("clamp", 2, |r, a| {
        let raised = r.binary("Max", a[0], a[1]);
        r.binary("Min", raised, a[2])
    }),
    method("signum", 0, signum),
    method("recip", 0, |r, a| {
        let one = r.float(1.0);
        r.binary("Div", one, a[0])
    }),
    method("fract", 0, |r, a| {
        let whole = r.function("Trunc", a[0]);
        r.binary("Sub", a[0], whole)
    }),
    method("log", 1, |r, a| {
        let (x, base) = (r.function("Ln", a[0]), r.function("Ln", a[1]));
        r.binary("Div", x, base)
    }),
    method("powi", 1, powi),
    method("pow", 1, powi),
    method("hypot", 1, hypot),
    method("asinh", 0, asinh),
    method("acosh", 0, acosh),
    method("atanh", 0, atanh),
    method("rem_euclid", 1, rem_euclid),
    method("to_degrees", 0, |r, a| {
        let factor = r.float(180.0 / std::f64::consts::PI);
        r.binary("Mul", a[0], factor)
    }),
    method("to_radians", 0, |r, a| {
        let factor = r.float(std::f64::consts::PI / 180.0);
        r.binary("Mul", a[0], factor)
    }),
    method("is_nan", 0, |r, a| r.compare("Ne", a[0], a[0])),
    method("is_infinite", 0, |r, a| {
        let (magnitude, infinity) = (r.unary("Abs", a[0]), r.float(f64::INFINITY));
        r.compare("Eq", magnitude, infinity)
    }),
    method("is_finite", 0, |r, a| {
        let (magnitude, infinity) = (r.unary("Abs", a[0]), r.float(f64::INFINITY));
        r.compare("Lt", magnitude, infinity)
    }),
];

/// What is meant by names other libraries use.
pub const SYNONYMS: &[(&str, &str)] = &[
    ("log1p", "ln_1p"),
    ("expm1", "exp_m1"),
    ("square", "powi(2)"),
    ("rsqrt", "sqrt().recip()"),
    ("sign", "signum"),
    ("reciprocal", "recip"),
    ("neg", "the operator `-`"),
    ("fmod", "the operator `%`"),
    ("isnan", "is_nan"),
    ("average", "mean"),
    ("relu", "max(0.0)"),
];

/// Rust's `signum`: ±1 by the sign bit, NaN of NaN; of an integer -1, 0 or 1.
fn signum(r: &mut Rows, a: &[RowId]) -> RowId {
    if r.is_integer(a[0]) {
        return r.unary("Sign", a[0]);
    }
    let one = r.float(1.0);
    let sign = r.binary("Copysign", one, a[0]);
    let is_nan = r.compare("Ne", a[0], a[0]);
    r.select(is_nan, a[0], sign)
}

/// A literal exponent becomes products by squaring (Knuth, The Art of Computer Programming 2, 4.6.3).
fn powi(r: &mut Rows, a: &[RowId]) -> RowId {
    let literal = r.integer_literal(a[1]).filter(|n| n.unsigned_abs() <= 64);
    let Some(exponent) = literal else {
        let exponent = r.cast(a[1], super::model::Ty::Kernel);
        return r.binary("Pow", a[0], exponent);
    };
    let (mut square, mut product, mut rest) = (a[0], None, exponent.unsigned_abs());
    while rest > 0 {
        if rest & 1 == 1 {
            product = Some(product.map_or(square, |p| r.binary("Mul", p, square)));
        }
        rest >>= 1;
        if rest > 0 {
            square = r.binary("Mul", square, square);
        }
    }
    match product {
        None if r.is_integer(a[0]) => r.integer(1),
        None => r.float(1.0),
        Some(product) if exponent < 0 => {
            let one = r.float(1.0);
            r.binary("Div", one, product)
        }
        Some(product) => product,
    }
}

/// `s · √((x/s)² + (y/s)²)`, s = max(|x|, |y|): no overflow between. `s` is detached, since the value does not depend
/// on it; where it is 0 or infinite it is 1.
fn hypot(r: &mut Rows, a: &[RowId]) -> RowId {
    let (x, y) = (r.function("Abs", a[0]), r.function("Abs", a[1]));
    let largest = r.binary("Max", x, y);
    let (zero, one, infinity) = (r.float(0.0), r.float(1.0), r.float(f64::INFINITY));
    let (is_zero, is_infinite) = (r.compare("Eq", largest, zero), r.compare("Eq", largest, infinity));
    let unusable = r.binary("Or", is_zero, is_infinite);
    let scale = r.select(unusable, one, largest);
    let scale = r.detach(scale);
    let (x, y) = (r.binary("Div", a[0], scale), r.binary("Div", a[1], scale));
    let (x, y) = (r.binary("Mul", x, x), r.binary("Mul", y, y));
    let sum = r.binary("Add", x, y);
    let root = r.unary("Sqrt", sum);
    r.binary("Mul", scale, root)
}

/// `s · ln(1 + (t + t²/(1 + √(1 + t²))))` with t = |x|, s = ±1 (Kahan 1987, Branch Cuts for Complex Elementary
/// Functions); beyond 10⁹, where t² is all of 1 + t², it is `s · (ln t + ln 2)`. `s` is detached so that the derivative
/// at 0 is 1.
fn asinh(r: &mut Rows, a: &[RowId]) -> RowId {
    let one = r.float(1.0);
    let sign = r.binary("Copysign", one, a[0]);
    let sign = r.detach(sign);
    let t = r.binary("Mul", a[0], sign);
    let limit = r.float(1e9);
    let is_large = r.compare("Gt", t, limit);
    let small = r.select(is_large, one, t);
    let square = r.binary("Mul", small, small);
    let root = r.binary("Add", one, square);
    let root = r.unary("Sqrt", root);
    let below = r.binary("Add", one, root);
    let excess = r.binary("Div", square, below);
    let sum = r.binary("Add", small, excess);
    let near = r.unary("Ln1p", sum);
    let large = r.select(is_large, t, one);
    let (large, ln_2) = (r.unary("Ln", large), r.float(std::f64::consts::LN_2));
    let far = r.binary("Add", large, ln_2);
    let magnitude = r.select(is_large, far, near);
    r.binary("Mul", sign, magnitude)
}

/// `ln(x + √(x − 1) · √(x + 1))`, NaN below 1, as in Rust's standard library.
fn acosh(r: &mut Rows, a: &[RowId]) -> RowId {
    let one = r.float(1.0);
    let (below, above) = (r.binary("Sub", a[0], one), r.binary("Add", a[0], one));
    let (below, above) = (r.unary("Sqrt", below), r.unary("Sqrt", above));
    let product = r.binary("Mul", below, above);
    let sum = r.binary("Add", a[0], product);
    r.unary("Ln", sum)
}

/// `½ · ln(1 + 2x / (1 − x))`, as in Rust's standard library.
fn atanh(r: &mut Rows, a: &[RowId]) -> RowId {
    let (half, one, two) = (r.float(0.5), r.float(1.0), r.float(2.0));
    let double = r.binary("Mul", two, a[0]);
    let rest = r.binary("Sub", one, a[0]);
    let ratio = r.binary("Div", double, rest);
    let logarithm = r.unary("Ln1p", ratio);
    r.binary("Mul", half, logarithm)
}

/// The remainder that is never negative: `r = a % b; if r < 0 { r + |b| } else { r }`, as in Rust's standard library.
fn rem_euclid(r: &mut Rows, a: &[RowId]) -> RowId {
    let remainder = r.binary("Rem", a[0], a[1]);
    let zero = if r.is_integer(a[0]) { r.integer(0) } else { r.float(0.0) };
    let is_negative = r.compare("Lt", remainder, zero);
    let magnitude = r.unary("Abs", a[1]);
    let raised = r.binary("Add", remainder, magnitude);
    r.select(is_negative, raised, remainder)
}
