//! The pool itself: its threads' lifetime, and the caller's side of a run.
//! Owns the threads and the free seats; knows not how tasks are executed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::job::{Job, run_inline};
use super::participant::Participant;
use super::scratch;
use super::seat::{Callers, Frame, Lane, Open, SEATS, Seat, Task};
use super::sleep::Sleep;
use super::state::RunState;
use super::worker::{Idle, Shared, Worker, is_working, working};
use crate::program::kernel::RunError;

/// A set of threads that run jobs. Dropping it ends the threads and waits for them.
pub struct Pool {
    shared: Arc<Shared>,
    callers: Callers,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, of which the calling thread is one: `Pool::new(1)` spawns none.
    /// 0 stands for as many as the machine can run at once.
    ///
    /// # Errors
    /// The operating system's, if it refuses a thread.
    pub fn new(threads: usize) -> io::Result<Pool> {
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            _ => threads,
        };
        let lanes: Vec<Vec<Lane>> = (0..threads).map(|_| (0..SEATS).map(|_| Lane::new_lifo()).collect()).collect();
        let seats = (0..SEATS).map(|seat| Seat::new(lanes.iter().map(|own| own[seat].stealer()).collect()));
        let shared = Arc::new(Shared {
            seats: seats.collect(),
            open: Open::default(),
            sleep: Sleep::new(),
            closing: AtomicBool::new(false),
        });

        let mut lanes = lanes.into_iter();
        let workers: Vec<Vec<Lane>> = lanes.by_ref().take(threads - 1).collect();
        let callers = Callers::new(lanes.flatten().collect());
        let mut pool = Pool { shared, callers, handles: Vec::with_capacity(threads - 1) };
        for (number, lanes) in workers.into_iter().enumerate() {
            let shared = Arc::clone(&pool.shared);
            let worker = Worker { number, lanes: lanes.into() };
            let name = format!("tapeflow-{}", number + 1);
            pool.handles.push(thread::Builder::new().name(name).spawn(move || worker.run(&shared))?);
        }
        Ok(pool)
    }

    /// How many threads work on a job, the caller included.
    pub fn threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Runs a job to its end. The calling thread helps; several threads may call at once.
    ///
    /// The job runs on the calling thread alone if the pool has no other, if this is called from inside a chunk that
    /// a pool runs, or if more jobs run at once than the pool has seats.
    ///
    /// # Errors
    /// The first error in step and chunk order, the same for any number of threads. No chunk is running any more when
    /// this returns; some that come after the error may have run.
    pub fn run<J: Job>(&self, job: &J, state: &mut RunState) -> Result<(), RunError> {
        if self.handles.is_empty() || is_working() {
            return run_inline(job);
        }
        let Some(taken) = self.callers.take() else {
            return run_inline(job);
        };
        if let Some(first) = state.reset(job) {
            self.run_in(taken.seat, taken.lane(), Frame { job, state }, Task::Steps { first });
        }
        drop(taken);
        state.outcome()
    }

    /// Works on the job in a seat until it is over and everybody has left.
    fn run_in(&self, number: usize, lane: &Lane, frame: Frame<'_>, first: Task) {
        let Shared { seats, open, sleep, .. } = &*self.shared;
        let seat = &seats[number];
        seat.bind(&frame);
        open.open(number);
        working(|| {
            scratch::with(frame.job.scratch_bytes(), |scratch| {
                let mut caller = Participant { frame: &frame, seat, lane, workers: sleep, scratch };
                caller.execute(first);
                let mut idle = Idle::default();
                let over = || frame.state.is_over() && seat.latch.is_empty();
                while !over() {
                    if let Some(task) = seat.steal(seat.caller()) {
                        caller.execute(task);
                        idle = Idle::default();
                    } else if !idle.keep_polling(true) {
                        seat.latch.park(|| over() || seat.has_task());
                        idle = Idle::default();
                    }
                }
            });
        });
        open.close(number);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.sleep.notify(u32::MAX);
        for handle in self.handles.drain(..) {
            // A chunk may own the last handle of the pool that runs it; that worker ends by itself.
            if handle.thread().id() != thread::current().id() {
                // A worker cannot panic: chunks are caught, anything else aborts.
                let _ = handle.join();
            }
        }
    }
}
