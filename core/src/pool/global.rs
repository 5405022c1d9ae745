//! The process-wide pool, made at first use.
//! Owns the choice of how many threads; knows not what runs on them.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::Pool;
use crate::locks;

static GLOBAL: Mutex<Option<Arc<Pool>>> = Mutex::new(None);

/// How often another pool took the place of the one before. Changed only with `GLOBAL` locked.
static REPLACED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The pool that this thread found last, and what `REPLACED` was then. Looking there takes no lock, and keeps no
    /// pool alive.
    static RECENT: RefCell<(u64, Weak<Pool>)> = const { RefCell::new((0, Weak::new())) };
}

/// The pool that programs run on.
///
/// It has `TAPEFLOW_THREADS` threads, or as many as the machine can run at once, unless [`set_threads`] says otherwise.
pub fn global() -> Arc<Pool> {
    RECENT.with_borrow_mut(|(at, pool)| {
        // Acquire: partner of the Release in `set_threads`.
        if *at == REPLACED.load(Ordering::Acquire)
            && let Some(pool) = pool.upgrade()
        {
            return pool;
        }
        let mut slot = slot();
        let found = Arc::clone(slot.get_or_insert_with(|| Arc::new(default_pool())));
        (*at, *pool) = (REPLACED.load(Ordering::Relaxed), Arc::downgrade(&found));
        found
    })
}

/// Replaces the global pool by one of `threads` threads, the calling one included; 0 for as many as the machine can run
/// at once. Programs that are running end on the pool they began on. Results do not depend on the number of threads.
///
/// # Errors
/// The operating system's, if it refuses a thread; the pool then stays as it was.
pub fn set_threads(threads: usize) -> io::Result<()> {
    let pool = Arc::new(Pool::new(threads)?);
    let mut slot = slot();
    // Release: partner of the Acquire in `global`. Who sees the number before finds the pool before, as a moment ago.
    REPLACED.fetch_add(1, Ordering::Release);
    let old = slot.replace(pool);
    // The old pool waits for its threads when dropped, so it must outlive the lock.
    drop(slot);
    drop(old);
    Ok(())
}

fn slot() -> MutexGuard<'static, Option<Arc<Pool>>> {
    locks::lock(&GLOBAL)
}

fn default_pool() -> Pool {
    let wish = std::env::var("TAPEFLOW_THREADS").ok();
    let threads = match wish.as_deref().map(str::trim) {
        None | Some("") => 0,
        Some(text) => text.parse().unwrap_or_else(|_| {
            tracing::warn!("TAPEFLOW_THREADS is {text:?}, not a number of threads; using all");
            0
        }),
    };
    Pool::new(threads).unwrap_or_else(|error| {
        tracing::warn!("cannot start {threads} threads ({error}); computing on the calling thread alone");
        Pool::new(1).unwrap_or_else(|_| unreachable!("a pool of one spawns no thread"))
    })
}
