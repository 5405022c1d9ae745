//! Programs in flight: at most two at a time on the worker pool, so that threads that train side by side hold no more
//! than two arenas. Owns the count; knows no programs.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// At once, at most.
pub const MOST: usize = 2;

struct Count {
    now: usize,
    /// The most there ever were.
    peak: usize,
}

static COUNT: Mutex<Count> = Mutex::new(Count { now: 0, peak: 0 });
static LANDED: Condvar = Condvar::new();

fn count() -> MutexGuard<'static, Count> {
    COUNT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One program in flight, until it is dropped.
pub struct Flight(());

impl Flight {
    /// Waits until there is room.
    pub fn begin() -> Flight {
        let mut count = LANDED.wait_while(count(), |c| c.now >= MOST).unwrap_or_else(PoisonError::into_inner);
        count.now += 1;
        count.peak = count.peak.max(count.now);
        Flight(())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        count().now -= 1;
        LANDED.notify_one();
    }
}

/// The most programs that were ever in flight at once.
pub fn peak() -> usize {
    count().peak
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
