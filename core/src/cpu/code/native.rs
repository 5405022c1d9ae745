//! What there are micro-operations for, and the micro-operations of each call: those that its primitive computes with.

use tapeflow_ir::{Binary, Compare, DType, Op, Unary};

use super::record::{Bits, Format, Id, Kind, Micro, Pair, Recorder, Relation, Traced};
use crate::cpu::math;
use crate::cpu::step::Meaning;

/// How a dtype lies in memory, if registers hold it.
fn format(dtype: DType) -> Option<Format> {
    match dtype {
        DType::F32 | DType::I32 | DType::U32 => Some(Format::Word),
        DType::Bool => Some(Format::Byte),
        DType::BF16 => Some(Format::Bf16),
        DType::F16 => Some(Format::F16),
        _ => None,
    }
}

/// Whether there are micro-operations for it.
pub fn is_native(meaning: Meaning) -> bool {
    use DType::{BF16, Bool, F16, F32};
    match meaning {
        Meaning::Same(dtype) => format(dtype).is_some(),
        Meaning::Op(op, from, to) => match op {
            Op::Unary(Unary::Not, _) => from == Bool,
            Op::Unary(op, _) => {
                use Unary::*;
                from == F32 && matches!(op, Neg | Abs | Floor | Ceil | Trunc | Sqrt | Exp | Exp2 | ExpM1 | Tanh | Erf)
            }
            Op::Binary(op, ..) => {
                use Binary::*;
                match from {
                    F32 => matches!(op, Add | Sub | Mul | Div | Min | Max | Copysign),
                    Bool => matches!(op, And | Or | Xor | Min | Max),
                    _ => false,
                }
            }
            Op::Compare(..) | Op::MulAdd(..) | Op::Reduce(..) => from == F32,
            Op::Select(..) => format(to).is_some_and(|format| format.kind() == Kind::Vector),
            Op::Cast(_) => matches!((from, to), (Bool | BF16 | F16, F32) | (F32, Bool | BF16 | F16)),
            _ => false,
        },
    }
}

/// How many operands a call has.
pub fn arity(meaning: Meaning) -> usize {
    match meaning {
        Meaning::Op(Op::Binary(..) | Op::Compare(..), ..) => 2,
        Meaning::Op(Op::Select(..) | Op::MulAdd(..), ..) => 3,
        _ => 1,
    }
}

/// What an operand of a call is.
pub fn operand_format(meaning: Meaning, operand: usize) -> Format {
    match meaning {
        Meaning::Op(Op::Select(..), ..) if operand == 0 => Format::Byte,
        Meaning::Op(_, dtype, _) | Meaning::Same(dtype) => format(dtype).unwrap_or(Format::Word),
    }
}

/// What its result is.
pub fn result_format(meaning: Meaning) -> Format {
    let (Meaning::Op(_, _, dtype) | Meaning::Same(dtype)) = meaning;
    format(dtype).unwrap_or(Format::Word)
}

/// The micro-operations of one call, as its primitive computes it.
pub fn micro(recorder: &Recorder, meaning: Meaning, [a, b, c]: [Id; 3]) -> Id {
    let Meaning::Op(op, from, to) = meaning else { return a };
    let x = Traced::new(recorder, a);
    match op {
        Op::Unary(op, _) => match op {
            Unary::Not => recorder.push(Micro::Not(a)),
            Unary::Neg => recorder.pair(Pair::Xor, a, recorder.constant(-0.0)),
            Unary::Abs => recorder.pair(Pair::And, a, recorder.push(Micro::Constant(0x7fff_ffff))),
            Unary::Floor => recorder.push(Micro::Round(a, 0x09)),
            Unary::Ceil => recorder.push(Micro::Round(a, 0x0a)),
            Unary::Trunc => recorder.push(Micro::Round(a, 0x0b)),
            Unary::Sqrt => recorder.push(Micro::Sqrt(a)),
            Unary::Exp => math::exp(x).id(),
            Unary::Exp2 => math::exp2(x).id(),
            Unary::ExpM1 => math::expm1(x).id(),
            Unary::Tanh => math::tanh(x).id(),
            Unary::Erf => math::erf(x).id(),
            other => unreachable!("{other:?} is not native"),
        },
        Op::Binary(op, ..) if from == DType::Bool => match op {
            Binary::And | Binary::Min => recorder.push(Micro::Bits(Bits::And, a, b)),
            Binary::Or | Binary::Max => recorder.push(Micro::Bits(Bits::Or, a, b)),
            _ => recorder.push(Micro::Bits(Bits::Xor, a, b)),
        },
        Op::Binary(op, ..) => match op {
            Binary::Add => recorder.pair(Pair::Add, a, b),
            Binary::Sub => recorder.pair(Pair::Sub, a, b),
            Binary::Mul => recorder.pair(Pair::Mul, a, b),
            Binary::Div => recorder.pair(Pair::Div, a, b),
            Binary::Min => extreme(recorder, Pair::Smaller, Pair::Or, a, b),
            Binary::Max => extreme(recorder, Pair::Larger, Pair::And, a, b),
            Binary::Copysign => recorder.push(Micro::CopySign(a, b)),
            other => unreachable!("{other:?} is not native"),
        },
        Op::Compare(op, ..) => {
            let relation = match op {
                Compare::Eq => Relation::Eq,
                Compare::Ne => Relation::Ne,
                Compare::Lt => Relation::Lt,
                Compare::Le => Relation::Le,
                Compare::Gt => Relation::Gt,
                Compare::Ge => Relation::Ge,
            };
            recorder.push(Micro::Compare(relation, a, b))
        }
        Op::Select(..) => recorder.push(Micro::Select(a, b, c)),
        Op::MulAdd(..) => recorder.push(Micro::MulAdd(a, b, c)),
        Op::Cast(_) if from == DType::Bool => recorder.push(Micro::Float(a)),
        Op::Cast(_) if from.is_half() => a,
        Op::Cast(_) if to == DType::BF16 => bf16(recorder, a),
        Op::Cast(_) if to == DType::F16 => recorder.push(Micro::RoundF16(a)),
        Op::Cast(_) => recorder.push(Micro::Compare(Relation::Ne, a, recorder.constant(0.0))),
        other => unreachable!("{other:?} is not native"),
    }
}

/// `half::bf16_from_f32`, as the number that it stands for.
fn bf16(recorder: &Recorder, a: Id) -> Id {
    let constant = |bits: u32| recorder.push(Micro::Constant(bits));
    let high = recorder.push(Micro::ShiftRight(a, 16));
    let odd = recorder.pair(Pair::And, high, constant(1));
    let rounded = recorder.pair(Pair::IntAdd, a, constant(0x7fff));
    let rounded = recorder.pair(Pair::IntAdd, rounded, odd);
    let sign = recorder.pair(Pair::And, a, constant(0x8000_0000));
    let quiet = recorder.pair(Pair::Or, sign, constant(0x7fc0_0000));
    let nan = recorder.push(Micro::Compare(Relation::Unordered, a, a));
    let number = recorder.push(Micro::Select(nan, quiet, rounded));
    recorder.pair(Pair::And, number, constant(0xffff_0000))
}

/// `math::min32` and `max32`: NaN if either is; −0 is smaller than +0.
pub fn extreme(recorder: &Recorder, pair: Pair, zeros: Pair, a: Id, b: Id) -> Id {
    let chosen = recorder.pair(pair, a, b);
    let equal = recorder.push(Micro::Compare(Relation::Eq, a, b));
    let both = recorder.pair(zeros, a, b);
    let chosen = recorder.push(Micro::Select(equal, both, chosen));
    let nan = recorder.push(Micro::Compare(Relation::Unordered, a, a));
    recorder.push(Micro::Select(nan, a, chosen))
}
