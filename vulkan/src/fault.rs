//! Points where a test can make the device fail, in our own layer, since no driver can be asked to. Owns what is armed;
//! knows nothing of what a failure leads to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A range of device memory is refused.
    Allocate,
    /// A block of memory is refused by the driver.
    Block,
    /// The queue refuses a program or a copy, for want of memory.
    Submit,
    /// A wait for the device ends in nothing.
    Wait,
    /// The driver's compiler refuses a shader.
    Pipeline,
    /// The device is lost when a program or a copy is handed to it.
    Lost,
}

static IS_ARMED: AtomicBool = AtomicBool::new(false);
static ARMED: Mutex<Vec<(Fault, u64)>> = Mutex::new(Vec::new());

/// Makes `fault` happen once, in this process, after it could have happened `after` times.
pub fn inject(fault: Fault, after: u64) {
    ARMED.lock().unwrap_or_else(PoisonError::into_inner).push((fault, after));
    IS_ARMED.store(true, Ordering::Relaxed);
}

/// Forgets what was injected and has not happened.
pub fn clear() {
    ARMED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    IS_ARMED.store(false, Ordering::Relaxed);
}

/// Whether `fault` happens here and now.
pub(crate) fn strikes(fault: Fault) -> bool {
    // A test arms before it acts, on the thread that acts or on one that it starts afterwards.
    IS_ARMED.load(Ordering::Relaxed) && strikes_now(fault)
}

#[cold]
fn strikes_now(fault: Fault) -> bool {
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hit = None;
    for (i, (_, left)) in armed.iter_mut().enumerate().filter(|(_, (what, _))| *what == fault) {
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => hit = Some(i),
        }
    }
    hit.map(|i| armed.swap_remove(i)).is_some()
}
