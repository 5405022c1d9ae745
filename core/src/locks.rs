//! How locks are taken: counted where debug assertions are on, so that tests can show what takes none. Owns the count;
//! knows nothing of what is locked.
//!
//! Threads of the pool park and are woken under mutexes of their own (`pool::sleep`), which are not counted.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(debug_assertions)]
static TAKEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Notes that a lock is about to be taken.
fn note() {
    #[cfg(debug_assertions)]
    TAKEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed); // a number by itself
}

/// How many locks all threads have taken so far; `None` where they are not counted.
pub fn locks_taken() -> Option<u64> {
    #[cfg(debug_assertions)]
    return Some(TAKEN.load(std::sync::atomic::Ordering::Relaxed));
    #[cfg(not(debug_assertions))]
    None
}

/// Locks. What a panic left behind under a lock is whole: nothing here panics between two writes that belong together.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    note();
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks, unless somebody else has the lock.
pub(crate) fn try_lock<T: ?Sized>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    use std::sync::TryLockError::{Poisoned, WouldBlock};
    note();
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(Poisoned(guard)) => Some(guard.into_inner()),
        Err(WouldBlock) => None,
    }
}

/// Locks for reading, beside other readers.
pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    note();
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing.
pub(crate) fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    note();
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
