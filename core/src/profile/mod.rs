//! Profiles: what every thread and device did and when, as a trace for a viewer and as a table of kernels.
//!
//! A recording is of the whole process, from the start of a [`Profiler`] to its end. While there is none, a request
//! looks at one number and that is all. While there is one, requests carry a `Recorder` (`watch`), each thread writes
//! its events into memory of its own (`store`), and programs are kept with the sites of what they compute (`bound`).
//! What a kernel moves and computes was counted when it was made (`program::work`). A [`Profile`] is what was recorded
//! (`recorded`), written as a trace (`trace`) or a table (`table`), beside what the device could do at best
//! (`roofline`).

mod bound;
mod environment;
mod recorded;
mod roofline;
mod store;
mod table;
mod trace;
mod watch;

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

pub use recorded::{KernelProfile, Profile};
pub use roofline::Roofline;
pub(crate) use watch::{Recorder, Watch, WatchedRun, span};

use bound::Totals;
use store::Store;

use crate::locks;

/// The parts of a request that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// All of it.
    Realize,
    /// The graph is walked, its key written, and its program looked for.
    LookUp,
    /// A program is made.
    Compile,
    /// The pass of that name.
    Differentiate,
    /// The pass of that name.
    Fuse,
    /// The passes `place`, `plan` and `schedule`, in which kernels are compiled.
    Place,
    /// A run waits until fewer others are going on.
    Room,
    /// A run is given to a device.
    Submit,
    /// The host waits for a device.
    Wait,
    /// A value goes from one device to another.
    Copy,
    /// The reference device evaluates a graph.
    Interpret,
    /// A captured step runs.
    Replay,
}

impl Phase {
    /// All, by number.
    pub const ALL: [Phase; 12] = [
        Phase::Realize,
        Phase::LookUp,
        Phase::Compile,
        Phase::Differentiate,
        Phase::Fuse,
        Phase::Place,
        Phase::Room,
        Phase::Submit,
        Phase::Wait,
        Phase::Copy,
        Phase::Interpret,
        Phase::Replay,
    ];

    fn name(self) -> &'static str {
        match self {
            Phase::Realize => "realize",
            Phase::LookUp => "look up",
            Phase::Compile => "compile",
            Phase::Differentiate => "differentiate",
            Phase::Fuse => "fuse",
            Phase::Place => "place, plan, schedule",
            Phase::Room => "wait for other programs",
            Phase::Submit => "submit",
            Phase::Wait => "wait for the device",
            Phase::Copy => "copy between devices",
            Phase::Interpret => "interpret",
            Phase::Replay => "captured step",
        }
    }
}

/// Set when the environment has been read.
const KNOWN: u8 = 1;
/// Set while there is a recording.
const ON: u8 = 2;

/// A copy of what `CURRENT` says, for the one look that every request takes.
static STATE: AtomicU8 = AtomicU8::new(0);

struct Current {
    store: Option<Arc<Store>>,
    profilers: usize,
    is_known: bool,
}

static CURRENT: Mutex<Current> = Mutex::new(Current { store: None, profilers: 0, is_known: false });

fn current() -> MutexGuard<'static, Current> {
    locks::lock(&CURRENT)
}

impl Current {
    fn publish(&self) {
        // Relaxed: who sees it late records from the next request on.
        STATE.store((u8::from(self.is_known) * KNOWN) | (u8::from(self.store.is_some()) * ON), Relaxed);
    }

    fn know_environment(&mut self) {
        self.is_known = true;
        self.publish();
    }
}

thread_local! {
    /// What this thread does is no part of any recording.
    static HIDDEN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` unrecorded on this thread.
fn hidden<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            HIDDEN.set(self.0);
        }
    }
    let _restore = Restore(HIDDEN.replace(true));
    f()
}

/// The recording that is going on.
///
/// # Errors
/// What is wrong with `TAPEFLOW_PROFILE`.
pub(crate) fn recorder() -> Result<Option<Recorder>, crate::error::Problem> {
    match STATE.load(Relaxed) {
        KNOWN => Ok(None),
        state => look(state),
    }
}

#[cold]
fn look(state: u8) -> Result<Option<Recorder>, crate::error::Problem> {
    if state & KNOWN == 0 {
        environment::begin().map_err(crate::error::Problem::Setting)?;
    }
    Ok(current().store.clone().filter(|_| !HIDDEN.get()).map(Recorder))
}

/// Records what the process does until it is stopped or dropped.
///
/// Several may be at work at once; each stops with what was done since it began. A recording keeps about a million
/// events (`TAPEFLOW_PROFILE_EVENTS` says how many; 32 bytes each), and counts those that come later. The totals of
/// kernels are complete all the same.
///
/// ```
/// use tapeflow_core::{Profiler, Tensor};
///
/// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [3]);
/// let profiler = Profiler::start();
/// (&x * &x + 1.0).to_vec::<f32>()?;
/// let profile = profiler.stop();
/// let kernels = profile.kernels();
/// assert_eq!((kernels[0].name.as_str(), kernels[0].calls, kernels[0].flops), ("add∘mul", 1, 6));
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[must_use = "a recording ends when its profiler is dropped"]
pub struct Profiler {
    store: Arc<Store>,
    start: u64,
    /// What kernels had taken before.
    before: Vec<Vec<Totals>>,
}

impl std::fmt::Debug for Profiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiler").field("start", &self.start).finish_non_exhaustive()
    }
}

impl Profiler {
    /// Begins to record.
    pub fn start() -> Profiler {
        let store = {
            let mut current = current();
            current.profilers += 1;
            let store = current.store.get_or_insert_with(|| Store::new(environment::most_events())).clone();
            current.publish();
            store
        };
        let totals = |bound: &Arc<bound::Bound>| bound.taken.iter().map(bound::Taken::totals).collect();
        let before = store.bounds.all().iter().map(totals).collect();
        Profiler { start: store.now(), store, before }
    }

    /// What was recorded so far.
    pub fn so_far(&self) -> Profile {
        Profile::of(&self.store, self.start, &self.before)
    }

    /// Ends the recording.
    pub fn stop(self) -> Profile {
        self.so_far()
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        let mut current = current();
        current.profilers -= 1;
        if current.profilers == 0 {
            current.store = None;
        }
        current.publish();
    }
}

/// Runs `f` and records what the process does meanwhile.
///
/// ```
/// use tapeflow_core::{DType, Tensor, profile};
///
/// let (a, b) = (Tensor::ones([8, 16], DType::F32), Tensor::ones([16, 4], DType::F32));
/// let (product, profile) = profile(|| a.matmul(&b).to_vec::<f32>());
/// product?;
/// let matmul = profile.kernels().into_iter().find(|k| k.name == "matmul").unwrap();
/// assert_eq!(matmul.flops, 2 * 8 * 4 * 16);
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
pub fn profile<T>(f: impl FnOnce() -> T) -> (T, Profile) {
    let profiler = Profiler::start();
    let out = f();
    (out, profiler.stop())
}
