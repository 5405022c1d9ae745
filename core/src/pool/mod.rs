//! The worker pool: runs a dataflow of steps, cut into chunks, on a fixed set of threads.
//! Owns every compute thread of tapeflow; knows no kernels, tensors, tape or devices, only [`Job`].
//!
//! # Vocabulary
//!
//! - A **job** is a program run: steps with dependencies, each step cut into chunks that may run at once.
//! - A **participant** works on a job: the calling thread, which helps with its own job only, and any worker.
//! - A **seat** is where one job runs. It has a **lane** (a deque of tasks) for each participant; the participant
//!   pushes and pops at the young end, thieves take from the old end, where the big ranges are. Seats and lanes belong
//!   to the pool, so workers may look into them at any time. When all seats are taken, a caller runs its job by itself.
//! - A **task** is a list of ready steps or a range of chunks of one step.
//!
//! # Protocol
//!
//! *Splitting.* A step's chunks become ready as one range. Whoever takes a range pushes its upper half, then the upper
//! half of what is left, and so on, and runs the first chunk. So every chunk that nobody runs can be taken by anybody,
//! a lane holds at most log₂(chunks) ranges of a step, thieves get the big ones, a step spreads as a tree, and a
//! participant works through neighbouring chunks in order. Ready steps are linked through the counters in [`RunState`],
//! and a lane holds the rest of such a list as one task. Thus lanes stay short, and a steady run allocates nothing.
//!
//! *Readiness.* The participant that counts off the last chunk of a step runs its `finish`, then counts it off in the
//! steps that wait for it; those that reach zero are ready, and it goes on with the first of them. Each count is one
//! `AcqRel` subtraction, so whoever reaches zero has seen the writes of all who counted before.
//!
//! *Lifetime.* A job lives on its caller's stack. A task in hand keeps its job alive, for the job is not over before
//! all its tasks are. A worker that takes a task enters the seat's latch before it looks at the job and
//! leaves it afterwards; the caller returns when all steps are done and everybody has left.
//!
//! *Idleness.* Who finds nothing polls for a while, because steps follow each other closely, soon yielding to other
//! threads between polls, then parks in a `Sleep`, whose file has the argument why no wake-up is lost: workers in the
//! pool's, callers in their latch's.
//!
//! *Errors.* An error or a panic at some (step, chunk) stops everything after that position; what comes before it still
//! runs, so the error returned is the one a run in order would have met first, whatever the schedule was.

mod global;
mod job;
mod latch;
mod participant;
mod scratch;
mod seat;
mod sleep;
mod state;
pub(crate) mod sync;
mod threads;
mod worker;

#[cfg(all(test, not(loom)))]
mod tests;

pub use global::{global, set_threads};
pub use job::{Job, run_inline};
pub use state::RunState;
pub use threads::Pool;
