//! What there are micro-operations for, and the micro-operations of each call: those that its primitive computes with.

use tapeflow_ir::{Binary, Compare, DType, Op, Unary};

use super::record::{Bits, Id, Kind, Micro, Pair, Recorder, Relation, Traced};
use crate::cpu::math;
use crate::cpu::step::Meaning;

fn kind(dtype: DType) -> Option<Kind> {
    match dtype {
        DType::F32 | DType::I32 | DType::U32 => Some(Kind::Vector),
        DType::Bool => Some(Kind::Mask),
        _ => None,
    }
}

/// Whether there are micro-operations for it.
pub fn is_native(meaning: Meaning) -> bool {
    use DType::{Bool, F32};
    match meaning {
        Meaning::Same(dtype) => kind(dtype).is_some(),
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
            Op::Select(..) => kind(to) == Some(Kind::Vector),
            Op::Cast(_) => matches!((from, to), (Bool, F32) | (F32, Bool)),
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
pub fn operand_kind(meaning: Meaning, operand: usize) -> Kind {
    let vector_or_mask = |dtype| kind(dtype).unwrap_or(Kind::Vector);
    match meaning {
        Meaning::Op(Op::Select(..), ..) if operand == 0 => Kind::Mask,
        Meaning::Op(_, dtype, _) | Meaning::Same(dtype) => vector_or_mask(dtype),
    }
}

/// The micro-operations of one call, as its primitive computes it.
pub fn micro(recorder: &Recorder, meaning: Meaning, [a, b, c]: [Id; 3]) -> Id {
    let Meaning::Op(op, from, _) = meaning else { return a };
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
        Op::Cast(_) => recorder.push(Micro::Compare(Relation::Ne, a, recorder.constant(0.0))),
        other => unreachable!("{other:?} is not native"),
    }
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
