//! Parameters: slots that `backward` reaches, under the paths they have in a model.

use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::locks;
use crate::precision::Precision;
use crate::slot::{Slot, Version};
use crate::tape::site::Site;
use crate::tensor::Tensor;

/// Whom a gradient belongs to; carried by the leaves of all versions.
#[derive(Debug)]
pub(crate) struct Owner {
    path: Mutex<String>,
}

impl Owner {
    pub fn new() -> Arc<Owner> {
        Arc::new(Owner { path: Mutex::default() })
    }

    pub fn path(&self) -> String {
        locks::lock(&self.path).clone()
    }
}

/// A trainable tensor of a module: a [`Slot`] that `backward` reaches, with a path.
#[derive(Clone, Debug)]
pub struct Parameter {
    slot: Slot,
    owner: Arc<Owner>,
}

impl Parameter {
    /// A parameter that starts as `value`, computed now.
    ///
    /// # Errors
    /// An integer tensor; what computing `value` reports.
    #[track_caller]
    pub fn new(value: Tensor) -> Result<Parameter> {
        let owner = Owner::new();
        Ok(Parameter { slot: Slot::with_owner(value, Some(owner.clone()))?, owner })
    }

    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// The current version.
    pub fn tensor(&self) -> Tensor {
        self.slot.tensor()
    }

    /// Replaces the version; see [`Slot::set`].
    ///
    /// # Errors
    /// Another shape or dtype; what computing `value` reports.
    #[track_caller]
    pub fn set(&self, value: &Tensor) -> Result<()> {
        self.slot.set(value)
    }

    /// The place that holds the version.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Its path in the model it belongs to; empty until a model has been walked.
    pub fn path(&self) -> String {
        self.owner.path()
    }

    /// Says under which path the parameter is known.
    pub fn set_path(&self, path: &str) {
        *locks::lock(&self.owner.path) = path.to_owned();
    }

    /// The product `x wᵀ` with its present version, which is read in eight bits if it is kept so; as [`Precision`]
    /// says.
    ///
    /// # Shapes
    /// `x: (…, inputs)`, the parameter `(outputs, inputs)` → `(…, outputs)`
    #[track_caller]
    pub fn linear(&self, x: &Tensor) -> Tensor {
        match self.slot.version() {
            Version::Whole(weight) => x.matmul(&Precision::current().operand(&weight).t()),
            Version::EightBits { codes, scales } => x.linear_int8(&codes, &scales),
            Version::Packed { panels, outputs } => x.linear_packed(&panels, outputs),
        }
    }

    /// The rows of its present version that `index` names; see [`Tensor::embedding`]. No other row is read.
    ///
    /// # Shapes
    /// the parameter `(V, C)`, index `(…)` → `(…, C)`
    #[track_caller]
    pub fn rows(&self, index: &Tensor) -> Tensor {
        match self.slot.version() {
            Version::Whole(table) => table.embedding(index),
            Version::EightBits { codes, scales } => codes.embedding(index).dequantize_int8(&scales.embedding(index)),
            Version::Packed { panels, outputs } => panels.packed_rows(outputs, index),
        }
    }

    /// Keeps it in eight bits; see [`Slot::quantize_int8`].
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn quantize_int8(&self) -> Result<()> {
        self.slot.quantize_int8()
    }

    /// Whether it is kept in eight bits.
    pub fn is_quantized(&self) -> bool {
        self.slot.is_quantized()
    }

    /// Keeps it in panels; see [`Slot::prepack`].
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn prepack(&self) -> Result<()> {
        self.slot.prepack()
    }

    /// Whether it is kept in panels.
    pub fn is_packed(&self) -> bool {
        self.slot.is_packed()
    }

    /// Whether `backward` reaches it.
    pub fn is_trainable(&self) -> bool {
        self.slot.is_trainable()
    }

    /// Keeps `backward` from reaching it (`true`), or lets it again.
    ///
    /// # Errors
    /// A step that is being captured; none otherwise.
    #[track_caller]
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        self.slot.freeze(frozen, Site::here())
    }
}
