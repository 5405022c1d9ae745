//! The counters of one run: what is left to do, what is ready, what failed.
//! Owns them and their memory orderings; knows no lanes and no threads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::job::Job;
use crate::locks;
use crate::program::kernel::RunError;

/// The end of a list of steps.
const NONE: u32 = u32::MAX;

/// The counters a job needs while it runs; kept between runs so that a steady run allocates nothing.
///
/// It may be used for one job after another; it grows to the largest.
#[derive(Default)]
pub struct RunState {
    steps: Vec<Step>,
    /// Steps not completed yet.
    left: AtomicU32,
    /// The lowest [`position`] that failed.
    failed_at: AtomicU64,
    error: Mutex<Option<(u64, RunError)>>,
}

#[derive(Default)]
struct Step {
    /// Dependencies not completed yet.
    waits: AtomicU32,
    /// Chunks not completed yet.
    chunks: AtomicU32,
    /// The step after this one in a list of ready steps. Written before the list's head is handed on, which publishes
    /// it.
    next: AtomicU32,
}

impl RunState {
    /// No counters yet.
    pub fn new() -> RunState {
        RunState::default()
    }

    /// Sets everything to the start of a run and returns the list of steps that wait for nothing.
    pub(super) fn reset<J: Job>(&mut self, job: &J) -> Option<u32> {
        let steps = job.steps();
        assert!(steps < NONE as usize, "a job has fewer than 2³² - 1 steps");
        if self.steps.len() < steps {
            self.steps.resize_with(steps, Step::default);
        }
        *self.left.get_mut() = steps as u32;
        *self.failed_at.get_mut() = u64::MAX;
        *self.error.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        let mut first = NONE;
        for (index, step) in self.steps[..steps].iter_mut().enumerate().rev() {
            let chunks = job.chunks(index);
            assert!(chunks < NONE as usize, "a step has fewer than 2³² - 1 chunks");
            *step.chunks.get_mut() = chunks as u32;
            *step.waits.get_mut() = job.dependencies(index);
            if *step.waits.get_mut() == 0 {
                *step.next.get_mut() = first;
                first = index as u32;
            }
        }
        assert!(steps == 0 || first != NONE, "a job with steps has one that waits for nothing");
        (first != NONE).then_some(first)
    }

    /// The rest of a list of ready steps.
    pub(super) fn after(&self, step: u32) -> Option<u32> {
        // Relaxed: `next` was written before the list was handed on, and handing on (a deque's push and steal)
        // synchronises.
        let next = self.steps[step as usize].next.load(Ordering::Relaxed);
        (next != NONE).then_some(next)
    }

    /// Counts a chunk of a step off; `true` for the one who counts off the last.
    pub(super) fn complete_chunk(&self, step: u32) -> bool {
        // AcqRel: each subtraction is the partner of those before it. Whoever gets to zero sees what all chunks wrote.
        self.steps[step as usize].chunks.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Counts a step off in its dependents and returns the list of those that became ready, in the order given.
    pub(super) fn release(&self, dependents: &[u32]) -> Option<u32> {
        let (mut first, mut last) = (NONE, NONE);
        for &dependent in dependents {
            let step = &self.steps[dependent as usize];
            // AcqRel: as in `complete_chunk`; whoever gets to zero sees what all dependencies wrote.
            let waited = step.waits.fetch_sub(1, Ordering::AcqRel);
            debug_assert_ne!(waited, 0, "step {dependent} waits for more steps than it says");
            if waited == 1 {
                step.next.store(NONE, Ordering::Relaxed);
                match last {
                    NONE => first = dependent,
                    _ => self.steps[last as usize].next.store(dependent, Ordering::Relaxed),
                }
                last = dependent;
            }
        }
        (first != NONE).then_some(first)
    }

    /// Counts a step off. Comes after `release`, so that a job with ready steps is never over.
    pub(super) fn complete_step(&self) {
        // Release: partner of the Acquire in `is_over`. AcqRel, so that the last one passes on what the others wrote.
        self.left.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether all steps are completed.
    pub(super) fn is_over(&self) -> bool {
        // Acquire: partner of `complete_step`; the caller sees what all steps wrote.
        self.left.load(Ordering::Acquire) == 0
    }

    /// Whether something that comes earlier in the job has failed, so that this position need not run.
    pub(super) fn is_skipped(&self, position: u64) -> bool {
        // Relaxed: seeing a failure late only means running a chunk whose result nobody will read.
        self.failed_at.load(Ordering::Relaxed) < position
    }

    /// Notes a failure; the lowest position is kept.
    #[cold]
    pub(super) fn fail(&self, position: u64, error: RunError) {
        let mut kept = locks::lock(&self.error);
        if kept.as_ref().is_none_or(|(lowest, _)| position < *lowest) {
            *kept = Some((position, error));
            self.failed_at.store(position, Ordering::Relaxed);
        }
    }

    /// The outcome, once the job is over.
    pub(super) fn outcome(&mut self) -> Result<(), RunError> {
        match self.error.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

/// Where a chunk stands in the order of the whole job.
pub(super) fn position(step: u32, chunk: u32) -> u64 {
    u64::from(step) << 32 | u64::from(chunk)
}

/// Where the `finish` of a step stands: after all its chunks.
pub(super) fn finish_position(step: u32) -> u64 {
    position(step, u32::MAX)
}
