//! Seats: where a job meets those who work on it.
//! Owns the tasks in flight and the pointer to the running job; knows not how a task is executed.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crossbeam::deque::{Steal, Stealer, Worker as Deque};

use super::job::Job;
use super::latch::Latch;
use super::state::RunState;

/// How many jobs can run at once with help from workers; a bit each in [`Open`].
pub(super) const SEATS: usize = 8;

/// A piece of work.
#[derive(Clone, Copy)]
pub(super) enum Task {
    /// Ready steps that nobody has begun: a list in [`RunState`].
    Steps {
        /// Its head.
        first: u32,
    },
    /// Chunks of one step that nobody has begun; never empty.
    Chunks {
        /// Whose.
        step: u32,
        /// The first of them.
        start: u32,
        /// After the last of them.
        end: u32,
    },
}

/// A participant's own end of its deque in a seat.
pub(super) type Lane = Deque<Task>;

/// A running job, on its caller's stack.
pub(super) struct Frame<'a> {
    pub(super) job: &'a dyn Job,
    pub(super) state: &'a RunState,
}

/// Where one job runs.
pub(super) struct Seat {
    /// The running job's frame. Valid for the caller, and for whoever has entered the latch with a task in hand.
    frame: AtomicPtr<Frame<'static>>,
    pub(super) latch: Latch,
    /// The thieves' ends of all lanes: the workers', then the caller's.
    lanes: Box<[Stealer<Task>]>,
}

impl Seat {
    /// A seat for as many participants as there are lanes.
    pub(super) fn new(lanes: Box<[Stealer<Task>]>) -> Seat {
        Seat { frame: AtomicPtr::default(), latch: Latch::new(), lanes }
    }

    /// The caller's number among the participants.
    pub(super) fn caller(&self) -> usize {
        self.lanes.len() - 1
    }

    /// Sets the job that the tasks pushed from now on belong to.
    pub(super) fn bind(&self, frame: &Frame<'_>) {
        // Relaxed: read only by those who have taken a task, and a deque's push and steal synchronise.
        self.frame.store(std::ptr::from_ref(frame).cast_mut().cast(), Ordering::Relaxed);
    }

    /// The running job.
    ///
    /// # Safety
    /// The caller of this function has entered the latch while holding one of the seat's tasks, and does not use the
    /// frame after leaving.
    pub(super) unsafe fn frame(&self) -> &Frame<'_> {
        // SAFETY: the frame was bound before the task was pushed, and its owner waits until everybody has left the
        // latch.
        unsafe { &*self.frame.load(Ordering::Relaxed) }
    }

    /// Whether there is a task that another participant could take.
    pub(super) fn has_task(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_empty())
    }

    /// Takes a task from another participant's lane, the next one's first.
    pub(super) fn steal(&self, thief: usize) -> Option<Task> {
        let (before, after) = self.lanes.split_at(thief);
        let mut victims = after[1..].iter().chain(before).filter(|lane| !lane.is_empty());
        victims.find_map(|lane| {
            loop {
                match lane.steal() {
                    Steal::Success(task) => return Some(task),
                    Steal::Empty => return None,
                    Steal::Retry => {}
                }
            }
        })
    }
}

/// The callers' lanes, one per seat, and which of the seats nobody has taken.
pub(super) struct Callers {
    /// A bit each.
    free: AtomicU32,
    lanes: Box<[Lane]>,
}

// SAFETY: a lane may be used by one thread at a time, whichever it is. It is reached through `TakenSeat` alone, which
// one thread has at a time: it stays on the thread that took the seat, and there is one per bit that was cleared.
unsafe impl Sync for Callers {}

impl Callers {
    /// All free; the lanes are the seats' in order.
    pub(super) fn new(lanes: Box<[Lane]>) -> Callers {
        assert!(lanes.len() <= SEATS, "each seat has one caller");
        Callers { free: AtomicU32::new((1 << lanes.len()) - 1), lanes }
    }

    /// The first free seat, if there is one.
    pub(super) fn take(&self) -> Option<TakenSeat<'_>> {
        // Acquire: partner of the Release in `TakenSeat::drop`, after which the lane is the next one's.
        let taken = self.free.fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| {
            (free != 0).then(|| free & (free - 1)) // without the lowest bit
        });
        let seat = taken.ok()?.trailing_zeros() as usize;
        Some(TakenSeat { callers: self, seat, _not_send: PhantomData })
    }
}

/// A seat that a caller has, until it is dropped.
pub(super) struct TakenSeat<'c> {
    callers: &'c Callers,
    /// Its number.
    pub(super) seat: usize,
    /// The lane is this thread's meanwhile.
    _not_send: PhantomData<*const ()>,
}

impl TakenSeat<'_> {
    /// The caller's lane.
    pub(super) fn lane(&self) -> &Lane {
        &self.callers.lanes[self.seat]
    }
}

impl Drop for TakenSeat<'_> {
    fn drop(&mut self) {
        // Release: partner of the Acquire in `take`.
        self.callers.free.fetch_or(1 << self.seat, Ordering::Release);
    }
}

/// Which seats are in use, so that workers look nowhere else.
#[derive(Default)]
pub(super) struct Open(AtomicU32);

impl Open {
    /// Before the first task is pushed. Relaxed: `Sleep`'s fences and the next poll see to it that it is noticed.
    pub(super) fn open(&self, seat: usize) {
        self.0.fetch_or(1 << seat, Ordering::Relaxed);
    }

    pub(super) fn close(&self, seat: usize) {
        self.0.fetch_and(!(1 << seat), Ordering::Relaxed);
    }

    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// The open seats' numbers, beginning from `from` and going around.
    pub(super) fn seats(&self, from: usize) -> impl Iterator<Item = usize> + use<> {
        let open = self.0.load(Ordering::Relaxed);
        (0..SEATS).map(move |offset| (from + offset) % SEATS).filter(move |seat| open & 1 << seat != 0)
    }
}
