//! Counters of what the process keeps: the caches, which must not grow in a steady loop, and the tape.
//! Owns no cache; it only asks them.

use crate::compile::key;
use crate::ops::kernel;
use crate::tape::{self, site};

/// How much the caches hold. A loop whose steps are alike leaves all of it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheCounts {
    /// Programs that were ever compiled.
    pub programs_compiled: u64,
    /// Programs that are kept.
    pub programs_kept: usize,
    /// Kernel templates that were instantiated, counted by dtype.
    pub kernels: usize,
    /// Module paths that were interned.
    pub paths: usize,
}

/// What the caches hold now.
pub fn cache_counts() -> CacheCounts {
    let (programs_compiled, programs_kept) = key::counts();
    CacheCounts { programs_compiled, programs_kept, kernels: kernel::instances(), paths: site::interned() }
}

/// How many nodes the tape holds: tensors that are alive, and what they still depend on.
pub fn tape_nodes() -> usize {
    tape::lock().alive()
}
