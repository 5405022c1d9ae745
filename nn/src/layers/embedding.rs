//! A table whose rows are looked up by token.

use tapeflow_core::{Generator, Parameter, Tensor, default_generator};

use crate::Module;
use crate::error::Result;
use crate::init;
use crate::module::Forward;

/// Looks up rows of a learned table by index.
///
/// # Shapes
/// `indices: (…)`, i64, below `count` → `(…, width)`
/// # Gradient
/// Each row gets the sum of the cotangents of its places.
/// # Errors
/// An index outside the table comes out when the result is computed, and leaves all parameters as they were.
#[derive(Clone, Debug, Module)]
pub struct Embedding {
    /// `(count, width)`
    pub weight: Parameter,
}

impl Embedding {
    /// A table of `count` rows of `width` values, drawn from N(0, 1) as PyTorch does.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(count: usize, width: usize) -> Result<Self> {
        Self::drawn(count, width, 1.0, &default_generator())
    }

    /// The same with standard deviation `std`, drawn from `generator`.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn drawn(count: usize, width: usize, std: f64, generator: &Generator) -> Result<Self> {
        Ok(Embedding { weight: Parameter::new(init::normal([count, width], std, generator))? })
    }
}

impl Forward for Embedding {
    #[track_caller]
    fn forward(&self, indices: &Tensor) -> Tensor {
        self.weight.rows(indices)
    }
}
