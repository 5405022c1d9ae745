//! The value of each operation on single numbers: what the evaluator computes and the simplifier folds.
//! Floats are carried in f64 and integers in i64, whatever their dtype; knows no functions and no rows.

use crate::{Binary, Compare, DType, Unary, math};

/// An integer brought into the range of `dtype`, as wrapping arithmetic does.
pub(crate) const fn wrap(dtype: DType, value: i64) -> i64 {
    match dtype {
        DType::U8 => value as u8 as i64,
        DType::I32 => value as i32 as i64,
        DType::U32 => value as u32 as i64,
        _ => value,
    }
}

/// The least and the greatest integer of `dtype`.
pub(crate) const fn range(dtype: DType) -> (i64, i64) {
    match dtype {
        DType::U8 => (0, u8::MAX as i64),
        DType::I32 => (i32::MIN as i64, i32::MAX as i64),
        DType::U32 => (0, u32::MAX as i64),
        _ => (i64::MIN, i64::MAX),
    }
}

/// All NaNs made one, so that results do not depend on what the processor does with their sign and payload.
pub(crate) fn one_nan(x: f64) -> f64 {
    if x.is_nan() { f64::NAN } else { x }
}

/// `op x` in f64. Rounding the result to f32 gives the f32 operation: exactly for those that IEEE 754 rounds, because
/// 53 ≥ 2 · 24 + 2 (Figueroa 1995, "When is double rounding innocuous?").
pub(crate) fn float_unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x > 0.0 => 1.0,
        Unary::Sign if x < 0.0 => -1.0,
        Unary::Sign if x == 0.0 => 0.0,
        Unary::Sign => x,
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round(),
        Unary::Trunc => x.trunc(),
        Unary::Sqrt => x.sqrt(),
        Unary::Cbrt => x.cbrt(),
        Unary::Exp => x.exp(),
        Unary::Exp2 => x.exp2(),
        Unary::ExpM1 => x.exp_m1(),
        Unary::Ln => x.ln(),
        Unary::Log2 => x.log2(),
        Unary::Log10 => x.log10(),
        Unary::Ln1p => x.ln_1p(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Tanh => x.tanh(),
        Unary::Erf => math::erf(x),
        Unary::Not => undefined(op.name()),
    }
}

/// `op x` for an integer dtype, or for a bool as 0 or 1.
pub(crate) fn int_unary(op: Unary, dtype: DType, x: i64) -> i64 {
    match op {
        Unary::Neg => wrap(dtype, x.wrapping_neg()),
        Unary::Abs => wrap(dtype, x.wrapping_abs()),
        Unary::Sign => x.signum(),
        Unary::Not if dtype == DType::Bool => 1 - x,
        Unary::Not => wrap(dtype, !x),
        _ => undefined(op.name()),
    }
}

/// `a op b` in f64; see [`float_unary`] for rounding to f32.
pub(crate) fn float_binary(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Rem => a % b,
        Binary::Min => min(a, b),
        Binary::Max => -min(-a, -b),
        Binary::Pow => a.powf(b),
        Binary::Atan2 => a.atan2(b),
        Binary::Copysign => a.copysign(b),
        Binary::And | Binary::Or | Binary::Xor => undefined(op.name()),
    }
}

/// IEEE 754-2019 `minimum`.
fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

/// `a op b` for an integer dtype, or for bools as 0 and 1.
pub(crate) fn int_binary(op: Binary, dtype: DType, a: i64, b: i64) -> i64 {
    let value = match op {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div | Binary::Rem if b == 0 => 0,
        Binary::Div => a.wrapping_div(b),
        Binary::Rem => a.wrapping_rem(b),
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Pow | Binary::Atan2 | Binary::Copysign => undefined(op.name()),
    };
    wrap(dtype, value)
}

/// `a op b` for numbers of any one dtype.
pub(crate) fn compare<T: PartialOrd>(op: Compare, a: T, b: T) -> bool {
    match op {
        Compare::Eq => a == b,
        Compare::Ne => a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
    }
}

/// Float → integer: saturates, NaN gives 0.
pub(crate) fn float_to_int(dtype: DType, x: f64) -> i64 {
    let (low, high) = range(dtype);
    (x as i64).clamp(low, high)
}

/// Integer → float, rounded once.
pub(crate) fn int_to_float(narrow: bool, x: i64) -> f64 {
    if narrow { f64::from(x as f32) } else { x as f64 }
}

fn undefined(op: &str) -> ! {
    panic!("`{op}` is evaluated for a dtype it is not defined for; `verify` rejects such functions")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// f32 operations through f64 give the bits of the native ones, on random bit patterns.
    #[test]
    fn double_rounding_is_innocuous() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f32::from_bits((state >> 32) as u32)
        };
        let same = |wide: f64, native: f32| {
            let narrow = wide as f32;
            assert!(narrow.to_bits() == native.to_bits() || narrow.is_nan() && native.is_nan(), "{wide} {native}");
        };
        for _ in 0..200_000 {
            let (a, b) = (next(), next());
            let (x, y) = (f64::from(a), f64::from(b));
            same(float_binary(Binary::Add, x, y), a + b);
            same(float_binary(Binary::Sub, x, y), a - b);
            same(float_binary(Binary::Mul, x, y), a * b);
            same(float_binary(Binary::Div, x, y), a / b);
            same(float_binary(Binary::Rem, x, y), a % b);
            same(float_unary(Unary::Sqrt, x), a.sqrt());
            same(float_unary(Unary::Round, x), a.round());
        }
    }

    #[test]
    fn extremes_and_zeros() {
        let bits = |op, a, b| float_binary(op, a, b).to_bits();
        for (a, b) in [(0.0, -0.0), (-0.0, 0.0)] {
            assert_eq!(bits(Binary::Max, a, b), 0.0f64.to_bits());
            assert_eq!(bits(Binary::Min, a, b), (-0.0f64).to_bits());
        }
        assert_eq!(float_binary(Binary::Max, 1.0, 2.0), 2.0);
        assert_eq!(float_binary(Binary::Min, f64::NEG_INFINITY, 2.0), f64::NEG_INFINITY);
        assert!(float_binary(Binary::Max, f64::NAN, 2.0).is_nan());
        assert!(float_binary(Binary::Min, 2.0, f64::NAN).is_nan());
        assert_eq!(float_unary(Unary::Sign, -0.0).to_bits(), 0);
        assert!(float_unary(Unary::Sign, f64::NAN).is_nan());
    }

    #[test]
    fn integers_wrap_and_division_is_total() {
        let int = int_binary;
        assert_eq!(int(Binary::Add, DType::U8, 250, 10), 4);
        assert_eq!(int(Binary::Sub, DType::U32, 0, 1), i64::from(u32::MAX));
        assert_eq!(int(Binary::Div, DType::I32, i64::from(i32::MIN), -1), i64::from(i32::MIN));
        assert_eq!(int(Binary::Div, DType::I64, i64::MIN, -1), i64::MIN);
        assert_eq!(int(Binary::Div, DType::I32, 7, 0), 0);
        assert_eq!(int(Binary::Rem, DType::I32, 7, 0), 0);
        assert_eq!(int(Binary::Rem, DType::I32, -7, 4), -3);
        assert_eq!(int(Binary::Mul, DType::I32, 1 << 30, 4), 0);
        assert_eq!(int_unary(Unary::Not, DType::Bool, 0), 1);
        assert_eq!(int_unary(Unary::Not, DType::U8, 1), 254);
        assert_eq!(int_unary(Unary::Abs, DType::I32, i64::from(i32::MIN)), i64::from(i32::MIN));
    }

    #[test]
    fn casts_saturate() {
        assert_eq!(float_to_int(DType::U8, 300.0), 255);
        assert_eq!(float_to_int(DType::U8, -3.0), 0);
        assert_eq!(float_to_int(DType::I32, f64::NAN), 0);
        assert_eq!(float_to_int(DType::I32, -2.9), -2);
        assert_eq!(float_to_int(DType::I64, f64::INFINITY), i64::MAX);
        assert_eq!(int_to_float(true, (1 << 24) + 1), f64::from(1 << 24));
    }
}
