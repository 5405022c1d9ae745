//! Recompute regions: which nodes backward computes a second time instead of keeping them. Owns the thread's current
//! region; what becomes of the nodes stands with the differentiate pass.

use std::cell::RefCell;
use std::sync::Arc;

/// One call of [`recompute`]; nodes recorded during it name it.
#[derive(Debug)]
pub(crate) struct Region {
    outer: Option<Arc<Region>>,
}

impl Region {
    /// What is recorded on this thread at the moment belongs to it.
    pub fn current() -> Option<Arc<Region>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// The region it lies in.
    pub fn outer(&self) -> Option<&Arc<Region>> {
        self.outer.as_ref()
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Region>>> = const { RefCell::new(None) };
}

/// Keeps a recompute region entered until it is dropped.
#[must_use = "the region ends when this is dropped"]
pub struct RecomputeScope {
    outer: Option<Arc<Region>>,
    // Leaving on another thread would mix up both threads' regions.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Drop for RecomputeScope {
    fn drop(&mut self) {
        CURRENT.set(self.outer.take());
    }
}

/// Enters a region of its own on this thread.
pub fn recompute_scope() -> RecomputeScope {
    let outer = Region::current();
    CURRENT.set(Some(Arc::new(Region { outer: outer.clone() })));
    RecomputeScope { outer, _not_send: std::marker::PhantomData }
}

/// What `f` records keeps no intermediate values for backward: they are computed again there, from what `f` was given.
/// Less memory for more time; PyTorch's `torch.utils.checkpoint`. Chen et al. 2016, arXiv:1604.06174.
///
/// Results, gradients and random numbers have the same bits with and without it. Regions may lie in each other: the
/// inner one is then computed once more for the outer one.
///
/// # Example
/// ```
/// # use tapeflow_core::{Parameter, Tensor, recompute};
/// let w = Parameter::new(Tensor::from_vec(vec![0.5f32, -1.0], [2]))?;
/// let y = recompute(|| w.tensor().tanh().exp()).sum();
/// let plain = w.tensor().tanh().exp().sum();
/// let gradient = |y: Tensor| y.backward()?.get(&w).unwrap().to_vec::<f32>();
/// assert_eq!(gradient(y)?, gradient(plain)?);
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
pub fn recompute<T>(f: impl FnOnce() -> T) -> T {
    let _scope = recompute_scope();
    f()
}
