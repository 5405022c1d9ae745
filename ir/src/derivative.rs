//! THE derivative table: for each operation, what the cotangent of its result gives to each of its operands.
//! Rules are written in IR, so derivatives differentiate again; how cotangents flow and meet stands in `vjp.rs`.
//!
//! Conventions at points without a derivative, as PyTorch has them: `|x|` and `sign` give 0 at 0, ties of `min` and
//! `max` share evenly, rounding gives 0 everywhere.

use crate::{Binary, Builder, Compare, DType, Op, Reduce, Unary, V};
use std::f64::consts::{FRAC_2_SQRT_PI, LN_2, LN_10};

/// One operand's share of a cotangent.
pub(crate) struct Share {
    /// The operand.
    pub to: V,
    /// What it gets.
    pub value: V,
    /// It gets it only where the bool is as said, and 0 elsewhere: a selection, never a product, because elsewhere the
    /// value may be infinite or NaN.
    pub only: Option<(V, bool)>,
}

/// Shorthand for writing formulas; every operation is of the cotangent's dtype.
struct Formula<'b> {
    b: &'b mut Builder,
    dtype: DType,
}

impl Formula<'_> {
    fn num(&mut self, x: f64) -> V {
        self.b.float(self.dtype, x)
    }
    fn f(&mut self, op: Unary, x: V) -> V {
        self.b.unary(op, x)
    }
    fn neg(&mut self, x: V) -> V {
        self.b.unary(Unary::Neg, x)
    }
    fn add(&mut self, x: V, y: V) -> V {
        self.b.binary(Binary::Add, x, y)
    }
    fn sub(&mut self, x: V, y: V) -> V {
        self.b.binary(Binary::Sub, x, y)
    }
    fn mul(&mut self, x: V, y: V) -> V {
        self.b.binary(Binary::Mul, x, y)
    }
    fn div(&mut self, x: V, y: V) -> V {
        self.b.binary(Binary::Div, x, y)
    }
    fn scale(&mut self, k: f64, x: V) -> V {
        let k = self.num(k);
        self.mul(k, x)
    }
    fn plus(&mut self, x: V, k: f64) -> V {
        let k = self.num(k);
        self.add(x, k)
    }
    fn minus_from(&mut self, k: f64, x: V) -> V {
        let k = self.num(k);
        self.sub(k, x)
    }
}

/// The shares of the operands of `op`, whose value is `y` and the cotangent of that `c`. An operand that is not
/// mentioned gets nothing: it is no float, or the derivative is zero everywhere.
pub(crate) fn shares(b: &mut Builder, op: Op, y: V, c: V) -> Vec<Share> {
    let dtype = b.ty(c).dtype;
    let give = |to, value| Share { to, value, only: None };
    match op {
        Op::Input(_) | Op::Const(_) | Op::Compare(..) | Op::Length | Op::Detach(_) => Vec::new(),
        Op::Unary(op, x) => {
            unary(&mut Formula { b, dtype }, op, x, y, c).map(|value| give(x, value)).into_iter().collect()
        }
        Op::Binary(op, u, v) => binary(&mut Formula { b, dtype }, op, [u, v], y, c),
        Op::Select(condition, u, v) => vec![
            Share { to: u, value: c, only: Some((condition, true)) },
            Share { to: v, value: c, only: Some((condition, false)) },
        ],
        Op::MulAdd(u, v, w) => {
            let (to_u, to_v) = (b.binary(Binary::Mul, c, v), b.binary(Binary::Mul, c, u));
            vec![give(u, to_u), give(v, to_v), give(w, c)]
        }
        Op::Cast(x) => {
            let from = b.ty(x).dtype;
            match from.is_float() {
                true if from == dtype => vec![give(x, c)],
                true => vec![give(x, b.cast(c, from))],
                false => Vec::new(),
            }
        }
        // Every element gets the row's cotangent.
        Op::Reduce(Reduce::Sum, x) => vec![give(x, c)],
        // The elements equal to the extreme share it evenly.
        Op::Reduce(Reduce::Max | Reduce::Min, x) => {
            let is_extreme = b.compare(Compare::Eq, x, y);
            let one = b.cast(is_extreme, dtype);
            let count = b.reduce(Reduce::Sum, one);
            let value = b.binary(Binary::Div, c, count);
            vec![Share { to: x, value, only: Some((is_extreme, true)) }]
        }
    }
}

/// `c · dy/dx`, using y again where that is shorter. None where the derivative is zero everywhere.
fn unary(m: &mut Formula, op: Unary, x: V, y: V, c: V) -> Option<V> {
    Some(match op {
        Unary::Neg => m.neg(c),
        Unary::Abs => {
            let sign = m.f(Unary::Sign, x);
            m.mul(c, sign)
        }
        Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc | Unary::Not => return None,
        // 1 / 2y
        Unary::Sqrt => {
            let twice = m.scale(2.0, y);
            m.div(c, twice)
        }
        // 1 / 3y²
        Unary::Cbrt => {
            let square = m.mul(y, y);
            let thrice = m.scale(3.0, square);
            m.div(c, thrice)
        }
        Unary::Exp => m.mul(c, y),
        Unary::Exp2 => {
            let slope = m.scale(LN_2, y);
            m.mul(c, slope)
        }
        Unary::ExpM1 => {
            let slope = m.plus(y, 1.0);
            m.mul(c, slope)
        }
        Unary::Ln => m.div(c, x),
        Unary::Log2 => {
            let slope = m.scale(LN_2, x);
            m.div(c, slope)
        }
        Unary::Log10 => {
            let slope = m.scale(LN_10, x);
            m.div(c, slope)
        }
        Unary::Ln1p => {
            let slope = m.plus(x, 1.0);
            m.div(c, slope)
        }
        Unary::Sin => {
            let cos = m.f(Unary::Cos, x);
            m.mul(c, cos)
        }
        Unary::Cos => {
            let sin = m.f(Unary::Sin, x);
            let product = m.mul(c, sin);
            m.neg(product)
        }
        // 1 + y²
        Unary::Tan => {
            let square = m.mul(y, y);
            let slope = m.plus(square, 1.0);
            m.mul(c, slope)
        }
        Unary::Asin => {
            let root = root_of_one_minus_square(m, x);
            m.div(c, root)
        }
        Unary::Acos => {
            let root = root_of_one_minus_square(m, x);
            let share = m.div(c, root);
            m.neg(share)
        }
        // 1 / (1 + x²)
        Unary::Atan => {
            let square = m.mul(x, x);
            let slope = m.plus(square, 1.0);
            m.div(c, slope)
        }
        Unary::Sinh => {
            let cosh = m.f(Unary::Cosh, x);
            m.mul(c, cosh)
        }
        Unary::Cosh => {
            let sinh = m.f(Unary::Sinh, x);
            m.mul(c, sinh)
        }
        // 1 − y²
        Unary::Tanh => {
            let square = m.mul(y, y);
            let slope = m.minus_from(1.0, square);
            m.mul(c, slope)
        }
        // 2/√π · e^(−x²)
        Unary::Erf => {
            let square = m.mul(x, x);
            let exponent = m.neg(square);
            let bell = m.f(Unary::Exp, exponent);
            let slope = m.scale(FRAC_2_SQRT_PI, bell);
            m.mul(c, slope)
        }
    })
}

/// `√((1 − x)(1 + x))`, which keeps its digits near ±1 where `1 − x²` loses them.
fn root_of_one_minus_square(m: &mut Formula, x: V) -> V {
    let (below, above) = (m.minus_from(1.0, x), m.plus(x, 1.0));
    let product = m.mul(below, above);
    m.f(Unary::Sqrt, product)
}

fn binary(m: &mut Formula, op: Binary, [u, v]: [V; 2], y: V, c: V) -> Vec<Share> {
    let give = |to, value| Share { to, value, only: None };
    match op {
        Binary::Add => vec![give(u, c), give(v, c)],
        Binary::Sub => vec![give(u, c), give(v, m.neg(c))],
        Binary::Mul => vec![give(u, m.mul(c, v)), give(v, m.mul(c, u))],
        // 1/v and −y/v
        Binary::Div => {
            let to_u = m.div(c, v);
            let product = m.mul(to_u, y);
            vec![give(u, to_u), give(v, m.neg(product))]
        }
        // u − v · trunc(u / v), of which trunc is flat
        Binary::Rem => {
            let quotient = m.div(u, v);
            let turns = m.f(Unary::Trunc, quotient);
            let product = m.mul(c, turns);
            vec![give(u, c), give(v, m.neg(product))]
        }
        // The winner gets all, ties half each, and with a NaN both get all of it: as torch.minimum and torch.maximum.
        Binary::Min | Binary::Max => {
            let (tie, less, more) =
                (m.b.compare(Compare::Eq, u, v), m.b.compare(Compare::Lt, u, v), m.b.compare(Compare::Gt, u, v));
            let half = m.scale(0.5, c);
            let value = m.b.select(tie, half, c);
            let (u_loses, v_loses) = if op == Binary::Max { (less, more) } else { (more, less) };
            vec![
                Share { to: u, value, only: Some((u_loses, false)) },
                Share { to: v, value, only: Some((v_loses, false)) },
            ]
        }
        Binary::Pow => pow(m, u, v, y, c),
        // u' = v / (u² + v²), v' = −u / (u² + v²)
        Binary::Atan2 => {
            let (uu, vv) = (m.mul(u, u), m.mul(v, v));
            let square = m.add(uu, vv);
            let part = m.div(c, square);
            let (to_u, to_v) = (m.mul(part, v), m.mul(part, u));
            vec![give(u, to_u), give(v, m.neg(to_v))]
        }
        // ±1, and 0 where u is 0; flat in v.
        Binary::Copysign => {
            let one = m.num(1.0);
            let (sign_u, sign_v) = (m.b.binary(op, one, u), m.b.binary(op, one, v));
            let sign = m.mul(sign_u, sign_v);
            let zero = m.num(0.0);
            let at_zero = m.b.compare(Compare::Eq, u, zero);
            let value = m.mul(c, sign);
            vec![Share { to: u, value, only: Some((at_zero, false)) }]
        }
        Binary::And | Binary::Or | Binary::Xor => Vec::new(),
    }
}

/// `yᵤ = v · uᵛ⁻¹`, 0 where v is 0; `yᵥ = y · ln u`, 0 where u is 0 and v ≥ 0. A constant exponent keeps to
/// multiplications where it can.
fn pow(m: &mut Formula, u: V, v: V, y: V, c: V) -> Vec<Share> {
    let exponent = match m.b.op(v) {
        Op::Const(constant) => constant.as_float(),
        _ => None,
    };
    let zero = m.num(0.0);
    let to_u = match exponent {
        Some(0.0) => None,
        Some(1.0) => Some((c, None)),
        Some(n) => {
            let power = match n {
                2.0 => u,
                3.0 => m.mul(u, u),
                _ => {
                    let lower = m.num(n - 1.0);
                    m.b.binary(Binary::Pow, u, lower)
                }
            };
            let slope = m.scale(n, power);
            Some((m.mul(c, slope), None))
        }
        None => {
            let one = m.num(1.0);
            let lower = m.sub(v, one);
            let power = m.b.binary(Binary::Pow, u, lower);
            let slope = m.mul(v, power);
            let flat = m.b.compare(Compare::Eq, v, zero);
            Some((m.mul(c, slope), Some((flat, false))))
        }
    };
    let mut shares: Vec<Share> = to_u.into_iter().map(|(value, only)| Share { to: u, value, only }).collect();
    if exponent.is_none() {
        let at_zero = m.b.compare(Compare::Eq, u, zero);
        let upward = m.b.compare(Compare::Ge, v, zero);
        let flat = m.b.binary(Binary::And, at_zero, upward);
        let ln = m.f(Unary::Ln, u);
        let slope = m.mul(y, ln);
        shares.push(Share { to: v, value: m.mul(c, slope), only: Some((flat, false)) });
    }
    shares
}
