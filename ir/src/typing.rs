//! The typing rules of the scalar IR, once: the builder, the verifier and the instantiation of templates ask here.
//! Knows types only, no values.

use crate::{DType, Extent, Op, Type, V};
use std::fmt;

/// Why operands do not fit an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeError {
    /// The operation does not exist for that dtype, such as `exp` of `i32`.
    Undefined {
        /// Name of the operation.
        op: &'static str,
        /// Dtype it was given.
        dtype: DType,
    },
    /// Two operands that must have one dtype have two.
    Mismatch {
        /// Name of the operation.
        op: &'static str,
        /// Dtype of the first of them.
        left: DType,
        /// Dtype of the second.
        right: DType,
    },
    /// The condition of a `select` is not a bool.
    Condition {
        /// Its dtype.
        dtype: DType,
    },
    /// A constant that is not of its value's dtype, or not rounded to it.
    Constant {
        /// Dtype of the value.
        dtype: DType,
    },
    /// A parameter that the function does not have.
    NoInput {
        /// Its index.
        index: usize,
        /// How many there are.
        inputs: usize,
    },
    /// A reduction of a value that occurs once per row.
    ReduceOfRow {
        /// Name of the reduction.
        op: &'static str,
    },
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypeError::Undefined { op, dtype } => write!(f, "`{op}` is not defined for {dtype}"),
            TypeError::Mismatch { op, left, right } => {
                write!(f, "the operands of `{op}` have different dtypes, {left} and {right}")
            }
            TypeError::Condition { dtype } => write!(f, "the condition of `select` must be bool, not {dtype}"),
            TypeError::Constant { dtype } => write!(f, "the constant is not a value of {dtype}"),
            TypeError::NoInput { index, inputs } => write!(f, "there is no parameter {index} among {inputs}"),
            TypeError::ReduceOfRow { op } => write!(f, "`{op}` of a value that occurs once per row"),
        }
    }
}

impl std::error::Error for TypeError {}

/// The type of `op`'s result, given the types of its operands. `own` is the dtype wanted of operations whose operands
/// do not determine it: constants, casts and `length`.
pub(crate) fn result_type(op: Op, inputs: &[Type], operand: impl Fn(V) -> Type, own: DType) -> Result<Type, TypeError> {
    let name = op.name();
    let same = |left: Type, right: Type| {
        if left.dtype == right.dtype {
            Ok(Type { dtype: left.dtype, extent: left.extent.max(right.extent) })
        } else {
            Err(TypeError::Mismatch { op: name, left: left.dtype, right: right.dtype })
        }
    };
    let defined = |yes: bool, ty: Type| match yes {
        true => Ok(ty),
        false => Err(TypeError::Undefined { op: name, dtype: ty.dtype }),
    };
    match op {
        Op::Input(index) => {
            let index = index as usize;
            inputs.get(index).copied().ok_or(TypeError::NoInput { index, inputs: inputs.len() })
        }
        Op::Const(constant) => match constant.fits(own) {
            true => Ok(Type::row(own)),
            false => Err(TypeError::Constant { dtype: own }),
        },
        Op::Unary(unary, a) => defined(unary.defined_for(operand(a).dtype), operand(a)),
        Op::Binary(binary, a, b) => {
            let ty = same(operand(a), operand(b))?;
            defined(binary.defined_for(ty.dtype), ty)
        }
        Op::Compare(_, a, b) => {
            let ty = same(operand(a), operand(b))?;
            defined(!ty.dtype.is_half(), ty).map(|ty| Type { dtype: DType::Bool, ..ty })
        }
        Op::Select(condition, a, b) => {
            let (condition, ty) = (operand(condition), same(operand(a), operand(b))?);
            match condition.dtype {
                DType::Bool => Ok(Type { extent: ty.extent.max(condition.extent), ..ty }),
                dtype => Err(TypeError::Condition { dtype }),
            }
        }
        Op::MulAdd(a, b, c) => {
            let ty = same(same(operand(a), operand(b))?, operand(c))?;
            defined(ty.dtype.is_float() && !ty.dtype.is_half(), ty)
        }
        Op::Cast(a) => {
            let from = operand(a).dtype;
            // Half precision is reached from f32 alone, and left to it.
            let halves = |half: DType, other: DType| half.is_half() && other != half && other != DType::F32;
            defined(!halves(own, from) && !halves(from, own), Type { dtype: own, ..operand(a) })
        }
        Op::Reduce(reduce, a) => {
            let ty = operand(a);
            if ty.extent == Extent::Row {
                return Err(TypeError::ReduceOfRow { op: name });
            }
            defined(reduce.defined_for(ty.dtype), Type::row(ty.dtype))
        }
        Op::Length => defined(own.is_float() && !own.is_half(), Type::row(own)),
        Op::Detach(a) => Ok(operand(a)),
    }
}
