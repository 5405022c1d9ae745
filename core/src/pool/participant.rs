//! A participant: executes tasks of one job.
//! Owns splitting, error handling and the passing on of readiness; knows not where tasks come from, nor when to wait.

use super::job::catching;
use super::seat::{Frame, Lane, Seat, Task};
use super::sleep::Sleep;
use super::state::{finish_position, position};

/// Somebody who works on a job: its caller, or a worker that has entered its seat.
pub(super) struct Participant<'a> {
    pub(super) frame: &'a Frame<'a>,
    pub(super) seat: &'a Seat,
    /// Its own.
    pub(super) lane: &'a Lane,
    /// Where the workers park.
    pub(super) workers: &'a Sleep,
    /// Its own; as long as the job says.
    pub(super) scratch: &'a mut [u8],
}

impl Participant<'_> {
    /// Executes a task, what becomes ready by it, and what is in the lane afterwards.
    ///
    /// A panic that the job's chunks are not to blame for would leave the caller waiting for ever, so it aborts.
    pub(super) fn execute(&mut self, task: Task) {
        let guard = AbortOnUnwind;
        let mut next = Some(task);
        while let Some(task) = next.take().or_else(|| self.lane.pop()) {
            next = match task {
                Task::Steps { first } => self.begin(first),
                Task::Chunks { step, start, end } => self.run_chunks(step, start, end),
            };
        }
        std::mem::forget(guard);
    }

    /// Begins the first of a list of ready steps and leaves the rest to whoever comes.
    fn begin(&mut self, first: u32) -> Option<Task> {
        if let Some(rest) = self.frame.state.after(first) {
            self.offer(Task::Steps { first: rest });
        }
        let Frame { job, state } = self.frame;
        if !state.is_skipped(position(first, 0)) {
            let result = catching(|| {
                // SAFETY: the step is ready, and its chunks are ours alone until they are offered.
                unsafe { job.prepare(first as usize) };
                Ok(())
            });
            result.unwrap_or_else(|error| state.fail(position(first, 0), error));
        }
        match job.chunks(first as usize) {
            0 => self.complete(first),
            chunks => Some(Task::Chunks { step: first, start: 0, end: chunks as u32 }),
        }
    }

    /// Runs the first chunk of a range, after leaving the rest to whoever comes, in halves.
    fn run_chunks(&mut self, step: u32, start: u32, mut end: u32) -> Option<Task> {
        while end - start > 1 {
            let middle = start + (end - start).div_ceil(2);
            self.offer(Task::Chunks { step, start: middle, end });
            end = middle;
        }
        let Frame { job, state } = self.frame;
        let position = position(step, start);
        if !state.is_skipped(position) {
            let scratch = &mut *self.scratch;
            // SAFETY: the chunk is ours alone, and the step is ready.
            let result = catching(|| unsafe { job.run_chunk(step as usize, start as usize, scratch) });
            result.unwrap_or_else(|error| state.fail(position, error));
        }
        if state.complete_chunk(step) { self.complete(step) } else { None }
    }

    /// Completes a step all of whose chunks have run; its dependents that became ready are next.
    fn complete(&mut self, step: u32) -> Option<Task> {
        let Frame { job, state } = self.frame;
        let position = finish_position(step);
        if !state.is_skipped(position) {
            let scratch = &mut *self.scratch;
            // SAFETY: we counted off the last chunk, and nobody has been told yet.
            let result = catching(|| unsafe { job.finish(step as usize, scratch) });
            result.unwrap_or_else(|error| state.fail(position, error));
        }
        let ready = state.release(job.dependents(step as usize));
        state.complete_step();
        ready.map(|first| Task::Steps { first })
    }

    /// Puts a task where others can take it, and wakes those who might.
    fn offer(&self, task: Task) {
        self.lane.push(task);
        self.workers.notify(1);
        self.seat.latch.notify();
    }
}

/// Aborts the process when dropped.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        eprintln!("tapeflow: a job's description panicked; aborting");
        std::process::abort();
    }
}
