//! What a slot keeps, behind its lock. Owns who must be asked before the version is looked at: a captured step that has
//! it on lease. Every look comes by here.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::capture::Lease;
use crate::locks;
use crate::tensor::Tensor;

/// A version as it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub value: Tensor,
    pub form: Form,
    /// Of the captured step that took or read the version last.
    lease: Option<Arc<Lease>>,
}

/// What the tensor that is kept says of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It is the version.
    Whole,
    /// Codes of eight bits; see [`Tensor::quantize_int8`].
    EightBits,
    /// Panels of a weight of so many rows; see [`Tensor::prepack`].
    Packed(usize),
}

impl Kept {
    pub fn new(value: Tensor, form: Form) -> Kept {
        Kept { value, form, lease: None }
    }

    /// From now on the step is asked before anybody looks at the version.
    pub fn lend_to(&mut self, lease: &Arc<Lease>) {
        if self.lease.is_none() {
            self.lease = Some(lease.clone());
        }
    }

    /// Asks the step that has the version, unless it is `own`.
    fn recall(&mut self, own: Option<&Arc<Lease>>) {
        if let Some(lease) = self.lease.take_if(|lease| own.is_none_or(|own| !Arc::ptr_eq(own, lease))) {
            lease.recall();
        }
    }
}

/// The place of a version.
#[derive(Debug)]
pub(super) struct Place(Mutex<Kept>);

impl Place {
    pub fn new(kept: Kept) -> Place {
        Place(Mutex::new(kept))
    }

    /// Locks; no step has the version afterwards, but for one that is running.
    pub fn lock(&self) -> MutexGuard<'_, Kept> {
        self.lock_for(None)
    }

    /// As `lock`, for the step that is running with lease `own`.
    pub fn lock_for(&self, own: Option<&Arc<Lease>>) -> MutexGuard<'_, Kept> {
        let mut kept = locks::lock(&self.0);
        kept.recall(own);
        kept
    }

    /// As `lock_for`, unless somebody holds the slot at the moment.
    pub fn try_lock_for(&self, own: &Arc<Lease>) -> Option<MutexGuard<'_, Kept>> {
        let mut kept = locks::try_lock(&self.0)?;
        kept.recall(Some(own));
        Some(kept)
    }
}
