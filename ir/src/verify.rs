//! Checks that a function is what every reader of the IR relies on: SSA order, types, extents, arity.

use crate::typing::{TypeError, result_type};
use crate::{Extent, Op, ScalarFn, Type, V};
use std::fmt;

/// What is wrong with a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// A value reads itself, a later value, or one that does not exist.
    Order {
        /// The value.
        value: V,
        /// What it reads.
        operand: V,
    },
    /// Operands that do not fit the operation.
    Operands {
        /// The value.
        value: V,
        /// What does not fit.
        error: TypeError,
    },
    /// A value's type is not what its operands make it.
    WrongType {
        /// The value.
        value: V,
        /// The type it has.
        declared: Type,
        /// The type it should have.
        expected: Type,
    },
    /// An output that is not a value of the function.
    Output {
        /// Index of the output.
        index: usize,
        /// What it names.
        value: V,
    },
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerifyError::Order { value, operand } => write!(f, "{value} reads {operand}, which is not before it"),
            VerifyError::Operands { value, error } => write!(f, "{value}: {error}"),
            VerifyError::WrongType { value, declared, expected } => {
                write!(f, "{value} is declared {declared}, its operands make it {expected}")
            }
            VerifyError::Output { index, value } => write!(f, "output {index} is {value}, which does not exist"),
        }
    }
}

impl std::error::Error for VerifyError {}

impl ScalarFn {
    /// Checks the function; the first mistake in order of the values is given.
    ///
    /// # Errors
    /// A value that reads what is not before it, operands that do not fit, a declared type that does not follow from
    /// the operands, an output that does not exist.
    pub fn verify(&self) -> Result<(), VerifyError> {
        for (index, &(op, declared)) in self.values.iter().enumerate() {
            let value = V(index as u32);
            if let Some(operand) = op.operands().find(|operand| operand.0 as usize >= index) {
                return Err(VerifyError::Order { value, operand });
            }
            let expected = result_type(op, &self.inputs, |v| self.ty(v), declared.dtype)
                .map_err(|error| VerifyError::Operands { value, error })?;
            let repeats = matches!(op, Op::Cast(_)) && declared == Type { extent: Extent::Lane, ..expected };
            if declared != expected && !repeats {
                return Err(VerifyError::WrongType { value, declared, expected });
            }
        }
        match self.outputs.iter().enumerate().find(|(_, output)| output.0 as usize >= self.values.len()) {
            Some((index, &value)) => Err(VerifyError::Output { index, value }),
            None => Ok(()),
        }
    }
}
