//! The latch: how a caller waits for its job, and how the job is kept alive for those who help.
//! Owns the count of visitors and the caller's parking place; knows no steps and no tasks.

use super::sleep::Sleep;
use super::sync::{AtomicU32, Ordering};

/// Counts the workers that look at the caller's job.
pub(super) struct Latch {
    visitors: AtomicU32,
    caller: Sleep,
}

impl Latch {
    pub(super) fn new() -> Latch {
        Latch { visitors: AtomicU32::new(0), caller: Sleep::new() }
    }

    /// A worker is about to look at the job. It holds one of the job's tasks, so the job is not over.
    pub(super) fn enter(&self) {
        // Relaxed: the caller cannot miss this visitor, for it looks for visitors once the job is over, and the job is
        // over only after this worker has counted off the task it holds, with Release.
        self.visitors.fetch_add(1, Ordering::Relaxed);
    }

    /// A worker will not look at the job again.
    pub(super) fn leave(&self) {
        // Release: all this worker did to the job comes before what the caller does after `is_empty`.
        self.visitors.fetch_sub(1, Ordering::Release);
        // Even if the job is not over: the caller may be waiting for this very worker when it is.
        self.caller.notify(1);
    }

    /// Whether all visitors have left. Only meaningful to the caller, and once its job is over.
    pub(super) fn is_empty(&self) -> bool {
        // Acquire: partner of the Release in `leave`.
        self.visitors.load(Ordering::Acquire) == 0
    }

    /// There is something new for the caller to help with.
    pub(super) fn notify(&self) {
        self.caller.notify(1);
    }

    /// Parks the caller until a worker leaves or there is something new, unless `ready`.
    pub(super) fn park(&self, ready: impl FnOnce() -> bool) {
        self.caller.park(ready);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use super::Latch;

    /// Two workers hold a task each, look at the job, count their tasks off and leave; loom checks that no look
    /// overlaps the caller taking its job back, and that the caller wakes up.
    #[test]
    fn the_caller_returns_after_the_last_visitor() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::new((Latch::new(), AtomicU32::new(2), UnsafeCell::new(0)));
            let workers = [(); 2].map(|()| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (latch, left, job) = &*shared;
                    latch.enter();
                    left.fetch_sub(1, Ordering::AcqRel);
                    // SAFETY: the latch keeps the job alive; loom checks it.
                    job.with(|job| assert_eq!(unsafe { *job }, 0));
                    latch.leave();
                })
            });
            let (latch, left, job) = &*shared;
            let over = || left.load(Ordering::Acquire) == 0 && latch.is_empty();
            while !over() {
                latch.park(over);
            }
            // SAFETY: everybody has left; loom checks it.
            job.with_mut(|job| unsafe { *job = 1 });
            for worker in workers {
                worker.join().unwrap();
            }
        });
    }
}
