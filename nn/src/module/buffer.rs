//! A cell for what a module keeps but does not learn.

use tapeflow_core::{Slot, Tensor};

use crate::error::Result;

/// A tensor that is saved with a module but gets no gradient: running statistics, tables, an optimizer's state.
///
/// Like a parameter it is a cell that names an immutable version; clones are the same cell.
#[derive(Clone, Debug)]
pub struct Buffer {
    slot: Slot,
}

impl Buffer {
    /// A cell that begins as `value`, computed now.
    ///
    /// # Errors
    /// What computing `value` reports.
    #[track_caller]
    pub fn new(value: Tensor) -> Result<Self> {
        Ok(Buffer { slot: Slot::new(value.detach())? })
    }

    /// The present version.
    pub fn tensor(&self) -> Tensor {
        self.slot.tensor()
    }

    /// Names another version; what was recorded before keeps reading the old one.
    ///
    /// # Errors
    /// Another shape or dtype; what computing `value` reports. The old version then stays.
    #[track_caller]
    pub fn set(&self, value: &Tensor) -> Result<()> {
        Ok(self.slot.set(&value.detach())?)
    }

    /// Names another version from the next step of an optimizer on, whose program computes it too: how a layer keeps
    /// running statistics without waiting for them. Until then [`Buffer::tensor`] gives `value`.
    ///
    /// # Errors
    /// A mistake in `value`, another shape or dtype.
    #[track_caller]
    pub fn stage(&self, value: &Tensor) -> Result<()> {
        Ok(self.slot.stage(&value.detach())?)
    }

    /// The place that holds the version.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}
