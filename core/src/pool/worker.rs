//! Workers: threads that look for tasks in all open seats, and park when there are none.
//! Owns the search for work and the patience of idle threads; knows not what a task does.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::participant::Participant;
use super::scratch;
use super::seat::{Lane, Open, Seat, Task};
use super::sleep::Sleep;

/// How long an idle thread polls before it parks when no job is running. To wake a parked thread takes 5 µs to 50 µs.
const PATIENCE: Duration = Duration::from_micros(50);
/// The same while some job is running: its steps are about 100 µs apart, and after one that cannot be shared the next
/// may be.
const PATIENCE_BETWEEN_STEPS: Duration = Duration::from_micros(200);

/// After how long it lets other threads go first: one of them may be what it waits for, if the machine is busy.
const PATIENCE_WITH_PROCESSOR: Duration = Duration::from_micros(10);

/// What all threads of a pool share.
pub(super) struct Shared {
    pub(super) seats: Box<[Seat]>,
    pub(super) open: Open,
    /// Where workers park.
    pub(super) sleep: Sleep,
    /// Set when the pool is dropped; workers then end.
    pub(super) closing: AtomicBool,
}

impl Shared {
    fn has_task(&self) -> bool {
        self.open.seats(0).any(|seat| self.seats[seat].has_task())
    }

    fn is_closing(&self) -> bool {
        // Relaxed: nothing is read on the strength of it, and `Sleep`'s fences order it against parking.
        self.closing.load(Ordering::Relaxed)
    }
}

thread_local! {
    static WORKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is working on a pool's job already.
pub(super) fn is_working() -> bool {
    WORKING.get()
}

/// Marks this thread as working on a pool's job while `work` runs.
pub(super) fn working<R>(work: impl FnOnce() -> R) -> R {
    WORKING.set(true);
    let result = work();
    WORKING.set(false);
    result
}

/// A worker thread.
pub(super) struct Worker {
    /// Among the participants of each seat.
    pub(super) number: usize,
    /// Its own, one per seat. Empty except in the seat it works in.
    pub(super) lanes: Box<[Lane]>,
}

impl Worker {
    /// Works until the pool closes.
    pub(super) fn run(self, shared: &Shared) {
        working(|| {
            let mut idle = Idle::default();
            while !shared.is_closing() {
                if let Some((seat, task)) = self.find(shared) {
                    self.visit(shared, seat, task);
                    idle = Idle::default();
                } else if !idle.keep_polling(shared.open.any()) {
                    shared.sleep.park(|| shared.is_closing() || shared.has_task());
                    idle = Idle::default();
                }
            }
        });
    }

    /// A task, and the seat it is from. Workers begin at different seats, so that several jobs share them evenly.
    fn find(&self, shared: &Shared) -> Option<(usize, Task)> {
        shared.open.seats(self.number).find_map(|seat| Some((seat, shared.seats[seat].steal(self.number)?)))
    }

    /// Helps with the job in a seat, beginning with a task taken from it, until nothing is left in the lane.
    fn visit(&self, shared: &Shared, seat: usize, task: Task) {
        let lane = &self.lanes[seat];
        let seat = &shared.seats[seat];
        seat.latch.enter();
        {
            // SAFETY: we entered with one of the seat's tasks in hand, and the frame is not used after this block.
            let frame = unsafe { seat.frame() };
            scratch::with(frame.job.scratch_bytes(), |scratch| {
                Participant { frame, seat, lane, workers: &shared.sleep, scratch }.execute(task);
            });
        }
        seat.latch.leave();
    }
}

/// The patience of a thread that has found nothing to do.
#[derive(Default)]
pub(super) struct Idle {
    since: Option<Instant>,
}

impl Idle {
    /// Waits a moment; `false` when it is time to park.
    pub(super) fn keep_polling(&mut self, running: bool) -> bool {
        let elapsed = self.since.get_or_insert_with(Instant::now).elapsed();
        if elapsed < PATIENCE_WITH_PROCESSOR {
            for _ in 0..8 {
                std::hint::spin_loop();
            }
        } else {
            std::thread::yield_now();
        }
        elapsed < if running { PATIENCE_BETWEEN_STEPS } else { PATIENCE }
    }
}
