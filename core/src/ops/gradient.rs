//! The nodes that `backward` and `grad` record. They compute nothing: the differentiate pass replaces them.

use std::borrow::Cow;

use super::{Op, Primitive};
use crate::compile::fuse::Lower;
use crate::error::Problem;
use crate::reference::Array;
use crate::tape::TensorType;

/// The cotangents of all inputs after the root (and its own cotangent, if `seeded`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gradient {
    /// Whether input 1 is the root's cotangent; else it is one.
    pub seeded: bool,
}

impl Gradient {
    /// The first input that a cotangent is wanted for.
    pub fn first_wrt(&self) -> usize {
        1 + usize::from(self.seeded)
    }
}

/// One result of a [`Gradient`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GradientOf {
    pub index: usize,
}

/// The gradient that `op` is, if it is one.
pub(crate) fn as_gradient(op: &Op) -> Option<Gradient> {
    match op {
        Op::Gradient(g) => Some(g.clone()),
        _ => None,
    }
}

/// Which result of a gradient `op` is, if it is one.
pub(crate) fn as_gradient_of(op: &Op) -> Option<usize> {
    match op {
        Op::GradientOf(g) => Some(g.index),
        _ => None,
    }
}

const EXPANDED: &str = "invariant: gradients are expanded before anything is lowered";

impl Primitive for Gradient {
    fn name(&self) -> Cow<'static, str> {
        "gradient".into()
    }

    fn lower(&self, _: &mut Lower<'_>) -> Result<(), Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }

    fn evaluate(&self, _: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }
}

impl Primitive for GradientOf {
    fn name(&self) -> Cow<'static, str> {
        format!("gradient of {}", self.index).into()
    }

    fn lower(&self, _: &mut Lower<'_>) -> Result<(), Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }

    fn evaluate(&self, _: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }
}
