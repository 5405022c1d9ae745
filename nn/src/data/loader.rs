//! A thread that prepares the next batch while the present one is used.
//!
//! Owns the thread and the channel; what a batch is, and which one belongs to a step, is its maker's business.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, bounded};

use tapeflow_core::mark;

use crate::error::{Error, Result};

/// An iterator over batches that are made ahead of time by a thread of their own, in order.
///
/// Batches must be a pure function of the step. An error, or a panic in the maker, comes out in its place and ends the
/// iteration. Dropping the loader ends the thread.
///
/// ```
/// use tapeflow_nn::data::Loader;
/// let squares: Vec<u64> = Loader::new(0..4, |step| Ok(step * step)).collect::<tapeflow_nn::Result<_>>()?;
/// assert_eq!(squares, [0, 1, 4, 9]);
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct Loader<B> {
    /// `None` once the loader is being dropped.
    batches: Option<Receiver<Result<B>>>,
    thread: Option<JoinHandle<()>>,
}

/// How many batches lie ready: one in use, one waiting, is enough for batches of equal cost.
const AHEAD: usize = 2;

impl<B: Send + 'static> Loader<B> {
    /// Starts making the batches of `steps`.
    pub fn new(steps: Range<u64>, make: impl Fn(u64) -> Result<B> + Send + 'static) -> Self {
        let (sender, receiver) = bounded(AHEAD);
        let work = move || {
            for step in steps {
                let batch = catch_unwind(AssertUnwindSafe(|| make(step)))
                    .unwrap_or_else(|panic| Err(Error::Loader(format!("step {step}: {}", said(&*panic)))));
                let last = batch.is_err();
                // The receiver is gone when the loader was dropped; nobody wants the rest then.
                if sender.send(batch).is_err() || last {
                    return;
                }
            }
        };
        match std::thread::Builder::new().name("tapeflow-loader".into()).spawn(work) {
            Ok(thread) => Loader { batches: Some(receiver), thread: Some(thread) },
            Err(e) => {
                let (sender, receiver) = bounded(1);
                // A fresh channel with one place and its receiver at hand takes one message.
                let _ = sender.send(Err(Error::Loader(format!("it could not be started: {e}"))));
                Loader { batches: Some(receiver), thread: None }
            }
        }
    }
}

impl<B> Iterator for Loader<B> {
    type Item = Result<B>;

    fn next(&mut self) -> Option<Result<B>> {
        let batch = self.batches.as_ref()?.recv().ok()?;
        Some(mark().map_err(Error::from).and(batch))
    }
}

impl<B> Drop for Loader<B> {
    fn drop(&mut self) {
        // The thread may be waiting for a free place; without a receiver it gives up.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the maker was caught and passed on as an error.
            let _ = thread.join();
        }
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_and_a_panic_come_out_in_their_place_and_end_it() {
        let failing = |step| if step == 2 { Err(Error::Configuration("no".into())) } else { Ok(step) };
        let got: Vec<_> = Loader::new(0..5, failing).collect();
        assert_eq!(got.len(), 3);
        assert!(got[2].is_err());

        let panicking = |step| if step == 1 { panic!("broken at {step}") } else { Ok(step) };
        let got: Vec<_> = Loader::new(0..5, panicking).collect();
        assert_eq!(got.len(), 2);
        assert_eq!(got[1].as_ref().unwrap_err().to_string(), "the loader's thread ended: step 1: broken at 1");
    }

    #[test]
    fn a_loader_that_is_dropped_early_ends_its_thread() {
        let mut loader = Loader::new(0..u64::MAX, Ok);
        assert_eq!(loader.next().unwrap().unwrap(), 0);
        drop(loader);
        assert_eq!(Loader::new(3..3, Ok).count(), 0);
    }
}
