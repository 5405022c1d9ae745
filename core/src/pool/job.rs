//! What the pool runs, and the simplest way to run it: in order, on the calling thread.
//! Owns the [`Job`] interface and how a panic becomes an error; knows no threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::scratch;
use crate::program::kernel::RunError;

/// A dataflow of steps, each cut into chunks.
///
/// Steps are numbered in a topological order: every dependent of a step has a higher number than the step itself.
/// `steps`, `chunks`, `dependents`, `dependencies` and `scratch_bytes` describe the job and stay the same while it
/// runs; a panic in one of them aborts the process. A panic in `run_chunk` or `finish` becomes `RunError::Panic`.
pub trait Job: Sync {
    /// How many steps.
    fn steps(&self) -> usize;
    /// How many chunks a step has; may be 0, its `finish` is called all the same.
    fn chunks(&self, step: usize) -> usize;
    /// The steps that wait for this one, each once.
    fn dependents(&self, step: usize) -> &[u32];
    /// How many steps this one waits for.
    fn dependencies(&self, step: usize) -> u32;
    /// Begins a step.
    ///
    /// # Safety
    /// Called once per run and step, after all steps that this one waits for have finished and before its chunks.
    unsafe fn prepare(&self, step: usize);
    /// Runs one chunk. `scratch` has `scratch_bytes` bytes, 64-byte aligned, of unspecified content.
    ///
    /// # Errors
    /// Whatever goes wrong; everything that comes later in step and chunk order is then skipped.
    ///
    /// # Safety
    /// Called once per run and chunk, after all steps that this one waits for have finished.
    unsafe fn run_chunk(&self, step: usize, chunk: usize, scratch: &mut [u8]) -> Result<(), RunError>;
    /// Completes a step.
    ///
    /// # Errors
    /// As for `run_chunk`.
    ///
    /// # Safety
    /// Called once per run and step, after all its chunks and before any chunk of its dependents.
    unsafe fn finish(&self, step: usize, scratch: &mut [u8]) -> Result<(), RunError>;
    /// Bytes of scratch that any chunk or `finish` needs.
    fn scratch_bytes(&self) -> usize;
}

/// Runs all steps in order on the calling thread: no atomics, no wake-up, no allocation once the thread's scratch has
/// grown.
///
/// # Errors
/// The first error in step and chunk order; nothing after it is run. A panic is `RunError::Panic`.
pub fn run_inline<J: Job + ?Sized>(job: &J) -> Result<(), RunError> {
    scratch::with(job.scratch_bytes(), |scratch| {
        catching(|| {
            for step in 0..job.steps() {
                // SAFETY: steps are numbered topologically, so everything this one waits for has finished.
                unsafe { job.prepare(step) };
                for chunk in 0..job.chunks(step) {
                    // SAFETY: as above.
                    unsafe { job.run_chunk(step, chunk, scratch)? };
                }
                // SAFETY: all chunks have run, and dependents have higher numbers.
                unsafe { job.finish(step, scratch)? };
            }
            Ok(())
        })
    })
}

/// Calls `work` and turns a panic into an error.
///
/// What the panic left half done is output of the failed run, which nobody reads; hence the assertion of unwind safety.
pub(super) fn catching(work: impl FnOnce() -> Result<(), RunError>) -> Result<(), RunError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(RunError::Panic(message(&*payload))))
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}
