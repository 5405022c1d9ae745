//! Ctrl-C: the first ends the run after its step, with everything saved; the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

static STOP: AtomicBool = AtomicBool::new(false);

/// Whether the run is to end after its present step.
pub fn is_wanted() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Listens for Ctrl-C from now on.
pub fn at_ctrl_c() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nending after this step; press Ctrl-C again to end at once");
    })
    .map_err(|e| Failure::Run(format!("cannot listen for Ctrl-C: {e}")))
}
