//! What is handed through a request when a recording is going on: spans of its phases, and the runs of its programs.
//! Owns how a run becomes events; knows not what becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Phase;
use super::bound::Bound;
use super::store::{Event, RunId, Store, What};
use crate::device::Kind;
use crate::driver::StepTime;
use crate::pool::Job;
use crate::program::kernel::RunError;
use crate::program::work::Described;
use crate::tape::site::Site;

/// A recording that is going on.
#[derive(Clone)]
pub(crate) struct Recorder(pub(super) Arc<Store>);

/// A phase, until it is dropped.
pub(crate) struct Span<'r> {
    store: &'r Store,
    phase: Phase,
    start: u64,
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        self.store.push(Event { what: What::Phase(self.phase), start: self.start, end: self.store.now() });
    }
}

/// Times a phase, if there is a recording.
pub(crate) fn span(recorder: Option<&Recorder>, phase: Phase) -> Option<Span<'_>> {
    recorder.map(|Recorder(store)| Span { store, phase, start: store.now() })
}

impl Recorder {
    /// For the runs of a graph whose nodes were recorded at these sites, by canonical number.
    pub fn watch(&self, sites: Arc<[Site]>) -> Watch {
        Watch { recorder: self.clone(), sites }
    }
}

/// A recording, and the sites of the graph that is run.
pub(crate) struct Watch {
    pub recorder: Recorder,
    sites: Arc<[Site]>,
}

impl Watch {
    /// A run of these kernels begins.
    pub fn begin(&self, on: Kind, kernels: &Arc<[Described]>) -> Option<WatchedRun> {
        let store = self.recorder.0.clone();
        let bound = store.bounds.find(on, kernels, &self.sites)?;
        let run = RunId { bound: bound.number, number: store.next_run() };
        let start = store.now();
        Some(WatchedRun { store, bound, run, start })
    }
}

/// A run that is recorded, until it is dropped.
pub(crate) struct WatchedRun {
    store: Arc<Store>,
    bound: Arc<Bound>,
    run: RunId,
    start: u64,
}

impl WatchedRun {
    /// Times a phase of the run.
    pub fn span(&self, phase: Phase) -> Span<'_> {
        Span { store: &self.store, phase, start: self.store.now() }
    }

    /// The job with its chunks timed.
    pub fn timed<'j, J: Job>(&'j self, job: &'j J) -> Timed<'j, J> {
        let first = (0..job.steps()).map(|_| AtomicU64::new(u64::MAX)).collect();
        Timed { job, watched: self, first }
    }

    /// Notes the steps that a device ran: their numbers, and their begins and ends in nanoseconds since the run began
    /// there. Its clock is another: the last step is taken to have ended when it was waited for, unless that is too
    /// early for the run. Without them, all is known to have happened since it was submitted.
    pub fn note_steps(&self, steps: &[StepTime]) {
        for &StepTime { step, begin, end } in steps {
            if let Some(taken) = self.bound.taken.get(step as usize) {
                taken.add(end - begin);
                taken.busy.fetch_add(end - begin, Relaxed); // a number by itself
            }
        }
        let length = steps.iter().map(|s| s.end).max();
        self.store.push_on(self.bound.on, self.run, self.start, length, steps);
    }
}

impl Drop for WatchedRun {
    fn drop(&mut self) {
        self.store.push(Event { what: What::Run(self.run), start: self.start, end: self.store.now() });
    }
}

/// A job whose chunks are timed.
pub(crate) struct Timed<'j, J> {
    job: &'j J,
    watched: &'j WatchedRun,
    /// When each step began.
    first: Vec<AtomicU64>,
}

impl<J: Job> Job for Timed<'_, J> {
    fn steps(&self) -> usize {
        self.job.steps()
    }
    fn chunks(&self, step: usize) -> usize {
        self.job.chunks(step)
    }
    fn dependents(&self, step: usize) -> &[u32] {
        self.job.dependents(step)
    }
    fn dependencies(&self, step: usize) -> u32 {
        self.job.dependencies(step)
    }
    fn scratch_bytes(&self) -> usize {
        self.job.scratch_bytes()
    }

    unsafe fn prepare(&self, step: usize) {
        let WatchedRun { store, bound, .. } = self.watched;
        let start = store.now();
        // SAFETY: as our caller promised.
        unsafe { self.job.prepare(step) }
        self.first[step].fetch_min(start, Relaxed); // as in `run_chunk`
        bound.taken[step].busy.fetch_add(store.now() - start, Relaxed); // as there
    }

    unsafe fn run_chunk(&self, step: usize, chunk: usize, scratch: &mut [u8]) -> Result<(), RunError> {
        let WatchedRun { store, bound, run, .. } = self.watched;
        let start = store.now();
        // SAFETY: as our caller promised.
        let result = unsafe { self.job.run_chunk(step, chunk, scratch) };
        let end = store.now();
        self.first[step].fetch_min(start, Relaxed); // ordered by the pool's count of chunks
        bound.taken[step].busy.fetch_add(end - start, Relaxed); // a number by itself
        store.push(Event { what: What::Chunk(*run, step as u32, chunk as u32), start, end });
        result
    }

    unsafe fn finish(&self, step: usize, scratch: &mut [u8]) -> Result<(), RunError> {
        let WatchedRun { store, bound, run, .. } = self.watched;
        let start = store.now();
        // SAFETY: as our caller promised.
        let result = unsafe { self.job.finish(step, scratch) };
        let end = store.now();
        let first = self.first[step].load(Relaxed).min(start); // as above
        bound.taken[step].add(end - first);
        if bound.kernels[step].finishes {
            bound.taken[step].busy.fetch_add(end - start, Relaxed);
            store.push(Event { what: What::Finish(*run, step as u32), start, end });
        }
        result
    }
}
