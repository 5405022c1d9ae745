//! What the crate has done so far in this process, for tests that look for growth. Owns the counters; knows nothing of
//! those who count.

use std::sync::atomic::{AtomicU64, Ordering};

/// Totals of the process, over all contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Programs handed to a queue.
    pub submits: u64,
    /// Command buffers of programs recorded.
    pub recorded: u64,
    /// Pipelines created.
    pub pipelines: u64,
    /// Blocks of memory taken from a driver.
    pub blocks: u64,
    /// Ranges handed out and not yet given back.
    pub ranges: u64,
    /// Bytes of those ranges.
    pub bytes: u64,
    /// Copy commands submitted.
    pub transfers: u64,
}

pub(crate) struct Counter(AtomicU64);

// Statistics only: nothing is ordered by them.
impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }
}

pub(crate) static SUBMITS: Counter = Counter::new();
pub(crate) static RECORDED: Counter = Counter::new();
pub(crate) static PIPELINES: Counter = Counter::new();
pub(crate) static BLOCKS: Counter = Counter::new();
pub(crate) static RANGES: Counter = Counter::new();
pub(crate) static BYTES: Counter = Counter::new();
pub(crate) static TRANSFERS: Counter = Counter::new();
pub(crate) static MESSAGES: Counter = Counter::new();

/// The totals now.
pub fn counts() -> Counts {
    Counts {
        submits: SUBMITS.get(),
        recorded: RECORDED.get(),
        pipelines: PIPELINES.get(),
        blocks: BLOCKS.get(),
        ranges: RANGES.get(),
        bytes: BYTES.get(),
        transfers: TRANSFERS.get(),
    }
}
