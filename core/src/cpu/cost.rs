//! Rough costs of operations, for cutting chunks and deciding what runs inline. Measured on one machine with AVX-512;
//! only the order of magnitude counts.

use tapeflow_ir::{Binary, DType, Op, Unary};

/// Nanoseconds per element.
pub fn cost(op: Op, dtype: DType) -> f64 {
    let wide = if dtype.size() == 8 { 2.0 } else { 1.0 };
    wide * match op {
        Op::Input(_) => 0.05,
        Op::Const(_) | Op::Length | Op::Detach(_) => 0.0,
        Op::Unary(op, _) => match op {
            Unary::Neg | Unary::Abs | Unary::Sign | Unary::Not | Unary::Floor | Unary::Ceil => 0.05,
            Unary::Round | Unary::Trunc | Unary::Sqrt => 0.1,
            Unary::Exp | Unary::Exp2 | Unary::ExpM1 | Unary::Tanh if dtype == DType::F32 => 0.3,
            Unary::Erf | Unary::Ln | Unary::Log2 | Unary::Log10 | Unary::Ln1p | Unary::Sin | Unary::Cos
                if dtype == DType::F32 =>
            {
                0.8
            }
            _ => 10.0,
        },
        Op::Binary(op, ..) => match op {
            Binary::Pow if dtype == DType::F32 => 2.0,
            Binary::Pow | Binary::Rem | Binary::Atan2 => 10.0,
            Binary::Div => 0.1,
            _ => 0.05,
        },
        Op::MulAdd(..) | Op::Compare(..) | Op::Select(..) | Op::Cast(_) | Op::Reduce(..) => 0.06,
    }
}
