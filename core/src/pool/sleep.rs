//! Sleep: where idle threads park until there is something new.
//! Owns the parking protocol; knows not what the threads wait for.
//!
//! A publisher makes work visible, then calls [`Sleep::notify`]. A sleeper calls [`Sleep::park`] with a test that looks
//! for work. No wake-up is lost, because each side writes, fences, then reads what the other has written:
//!
//! ```text
//! publisher                         sleeper (holding the mutex)
//!   publish work                      sleepers += 1
//!   fence(SeqCst)        ⟷            fence(SeqCst)
//!   read sleepers                     look for work
//! ```
//!
//! The two fences are each other's partners: one of them is first in the order of all SeqCst fences. If it is the
//! publisher's, the sleeper sees the work and does not park. If it is the sleeper's, the publisher sees it counted and
//! takes the mutex, which it gets only once the sleeper waits on the condition variable, where the signal reaches it.
//!
//! `sleepers` counts those who have not been called yet: the publisher takes off whom it calls, so that the next one
//! does not call the same threads again while they are still waking up. A thread that was called looks for work
//! again, and again before it parks, so it also finds what was published in the meantime.

use super::sync::{AtomicU32, Condvar, Mutex, MutexGuard, Ordering, fence};

/// A place to park.
pub(super) struct Sleep {
    /// Parked threads that were not called yet. Changed only with `calls` locked.
    sleepers: AtomicU32,
    /// How many parked threads were called and have not woken yet.
    calls: Mutex<u32>,
    wake: Condvar,
}

impl Sleep {
    pub(super) fn new() -> Sleep {
        Sleep { sleepers: AtomicU32::new(0), calls: Mutex::new(0), wake: Condvar::new() }
    }

    /// Parks until called, unless `ready` finds that there is something to do. May return for no reason.
    pub(super) fn park(&self, ready: impl FnOnce() -> bool) {
        let mut calls = self.lock();
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        // Partner: the fence in `notify`.
        fence(Ordering::SeqCst);
        if ready() {
            // We hold the mutex, so nobody has called us yet: the count is still ours to take back.
            self.sleepers.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        while *calls == 0 {
            calls = self.wake.wait(calls).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *calls -= 1;
    }

    /// Calls up to `count` parked threads. What they are to find must have been published before.
    pub(super) fn notify(&self, count: u32) {
        // Partner: the fence in `park`.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            self.call(count);
        }
    }

    #[cold]
    fn call(&self, count: u32) {
        let mut calls = self.lock();
        let called = count.min(self.sleepers.load(Ordering::Relaxed));
        self.sleepers.fetch_sub(called, Ordering::Relaxed);
        *calls += called;
        drop(calls);
        for _ in 0..called {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, u32> {
        self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test --release -p tapeflow-core loom`.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use super::Sleep;

    /// Takes one piece of work, parking as long as there is none.
    fn take(sleep: &Sleep, work: &AtomicU32) {
        let some = || work.load(Ordering::Relaxed) != 0;
        let taken = || work.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        while !taken() {
            sleep.park(some);
        }
    }

    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let shared = Arc::new((Sleep::new(), AtomicU32::new(0)));
            let sleeper = {
                let shared = shared.clone();
                thread::spawn(move || take(&shared.0, &shared.1))
            };
            shared.1.fetch_add(1, Ordering::Relaxed);
            shared.0.notify(1);
            sleeper.join().unwrap();
        });
    }

    #[test]
    fn two_publications_reach_two_sleepers() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::new((Sleep::new(), AtomicU32::new(0)));
            let sleepers = [(); 2].map(|()| {
                let shared = shared.clone();
                thread::spawn(move || take(&shared.0, &shared.1))
            });
            for _ in 0..2 {
                shared.1.fetch_add(1, Ordering::Relaxed);
                shared.0.notify(1);
            }
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
        });
    }
}
