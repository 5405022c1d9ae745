//! Whether the thread is training: what dropout and normalisation layers ask.

use std::cell::Cell;

thread_local! {
    static TRAINING: Cell<bool> = const { Cell::new(true) };
}

/// Whether layers behave as in training (the default).
pub fn is_training() -> bool {
    TRAINING.get()
}

/// Layers behave as in training (or not) while `f` runs on this thread.
pub fn with_training<T>(training: bool, f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            TRAINING.set(self.0);
        }
    }
    let _restore = Restore(TRAINING.replace(training));
    f()
}
