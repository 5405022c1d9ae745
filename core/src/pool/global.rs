//! The process-wide pool, made at first use.
//! Owns the choice of how many threads; knows not what runs on them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Pool;

static GLOBAL: Mutex<Option<Arc<Pool>>> = Mutex::new(None);

/// The pool that programs run on.
///
/// It has `TAPEFLOW_THREADS` threads, or as many as the machine can run at once, unless [`set_threads`] says otherwise.
pub fn global() -> Arc<Pool> {
    Arc::clone(slot().get_or_insert_with(|| Arc::new(default_pool())))
}

/// Replaces the global pool by one of `threads` threads, the calling one included; 0 for as many as the machine can run
/// at once. Programs that are running end on the pool they began on. Results do not depend on the number of threads.
///
/// # Errors
/// The operating system's, if it refuses a thread; the pool then stays as it was.
pub fn set_threads(threads: usize) -> io::Result<()> {
    let pool = Arc::new(Pool::new(threads)?);
    // The old pool waits for its threads when dropped, so it must outlive the lock.
    let _old = slot().replace(pool);
    Ok(())
}

fn slot() -> MutexGuard<'static, Option<Arc<Pool>>> {
    GLOBAL.lock().unwrap_or_else(PoisonError::into_inner)
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
