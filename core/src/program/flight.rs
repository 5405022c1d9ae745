//! Programs in flight: at most two at a time on the worker pool, so that threads that train side by side hold no more
//! than two arenas. Owns the count; knows no programs.
//!
//! Who finds room counts itself in and takes no lock. Who finds none waits on a condition variable, and whoever lands
//! calls it: one writes `WAITING` and then looks for room, the other makes room and then reads `WAITING`. Both do so in
//! the one order of all `SeqCst` operations, so at least one of them sees what the other has written.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::locks;

/// At once, at most.
pub const MOST: usize = 2;

static NOW: AtomicUsize = AtomicUsize::new(0);
/// The most there ever were.
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// How many threads wait. Changed only with `GATE` locked.
static WAITING: AtomicUsize = AtomicUsize::new(0);
static GATE: Mutex<()> = Mutex::new(());
static LANDED: Condvar = Condvar::new();

/// One program in flight, until it is dropped.
pub struct Flight(());

impl Flight {
    /// Waits until there is room.
    pub fn begin() -> Flight {
        if !takes_off() {
            wait();
        }
        Flight(())
    }
}

/// Counts one program in, if there is room.
fn takes_off() -> bool {
    let more = |now| (now < MOST).then_some(now + 1);
    let before = NOW.fetch_update(SeqCst, SeqCst, more);
    before.map(|before| PEAK.fetch_max(before + 1, Relaxed)).is_ok() // a number by itself
}

#[cold]
fn wait() {
    let mut gate = locks::lock(&GATE);
    WAITING.fetch_add(1, SeqCst);
    while !takes_off() {
        gate = LANDED.wait(gate).unwrap_or_else(PoisonError::into_inner);
    }
    WAITING.fetch_sub(1, SeqCst);
}

impl Drop for Flight {
    fn drop(&mut self) {
        NOW.fetch_sub(1, SeqCst);
        if WAITING.load(SeqCst) != 0 {
            // Who holds the lock and found no room is then waiting, where the call reaches it.
            drop(locks::lock(&GATE));
            LANDED.notify_one();
        }
    }
}

/// The most programs that were ever in flight at once.
pub fn peak() -> usize {
    PEAK.load(Relaxed) // a number by itself
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn a_third_program_waits() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    for _ in 0..50 {
                        let _flight = Flight::begin();
                        most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                        std::thread::yield_now();
                        now.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert!((1..=MOST).contains(&most.load(Relaxed)));
    }
}
