//! The operations: each one's value and derivatives side by side.
//! Owns the formulas; knows no graph.

/// An operation on one or two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Op {
    /// Given, not computed.
    Leaf,
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    /// A power with a constant exponent.
    Powf(f64),
    Neg,
    Exp,
    Ln,
    Sqrt,
    Tanh,
    Sigmoid,
    Relu,
}

impl Op {
    /// The value at `x` (and `y`, if the operation has two operands), and its derivatives by `x` and by `y`.
    pub(super) fn evaluate(self, x: f64, y: f64) -> (f64, [f64; 2]) {
        match self {
            Op::Leaf => (x, [1.0, 0.0]),
            Op::Add => (x + y, [1.0, 1.0]),
            Op::Sub => (x - y, [1.0, -1.0]),
            Op::Mul => (x * y, [y, x]),
            Op::Div => (x / y, [1.0 / y, -x / (y * y)]),
            Op::Pow => (x.powf(y), [power_slope(x, y), power_slope_by_exponent(x, y)]),
            Op::Powf(n) => (x.powf(n), [power_slope(x, n), 0.0]),
            Op::Neg => (-x, [-1.0, 0.0]),
            Op::Exp => (x.exp(), [x.exp(), 0.0]),
            Op::Ln => (x.ln(), [1.0 / x, 0.0]),
            Op::Sqrt => (x.sqrt(), [0.5 / x.sqrt(), 0.0]),
            Op::Tanh => (x.tanh(), [1.0 - x.tanh().powi(2), 0.0]),
            Op::Sigmoid => (sigmoid(x), [sigmoid(x) * sigmoid(-x), 0.0]),
            Op::Relu => (if x < 0.0 { 0.0 } else { x }, [if x > 0.0 { 1.0 } else { 0.0 }, 0.0]),
        }
    }

    /// How the operation is written in a drawing.
    pub(super) fn symbol(self) -> String {
        match self {
            Op::Leaf => String::new(),
            Op::Add => "+".into(),
            Op::Sub | Op::Neg => "-".into(),
            Op::Mul => "*".into(),
            Op::Div => "/".into(),
            Op::Pow => "pow".into(),
            Op::Powf(n) => format!("pow {n}"),
            Op::Exp => "exp".into(),
            Op::Ln => "ln".into(),
            Op::Sqrt => "sqrt".into(),
            Op::Tanh => "tanh".into(),
            Op::Sigmoid => "sigmoid".into(),
            Op::Relu => "relu".into(),
        }
    }
}

/// `σ(x) = 1 / (1 + e⁻ˣ)`
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `∂xⁿ/∂x = n xⁿ⁻¹`, and 0 for the constant x⁰, also where xⁿ⁻¹ is infinite.
fn power_slope(x: f64, n: f64) -> f64 {
    if n == 0.0 { 0.0 } else { n * x.powf(n - 1.0) }
}

/// `∂xⁿ/∂n = xⁿ ln x`, continued by its limit 0 to x = 0.
fn power_slope_by_exponent(x: f64, n: f64) -> f64 {
    if x == 0.0 && n >= 0.0 { 0.0 } else { x.powf(n) * x.ln() }
}
