//! The state of a lease. Owns its changes and their memory orderings; knows not what is lent.

use crate::pool::sync::{AtomicU32, Ordering};

const HOME: u32 = 0;
const RUNNING: u32 = 1;
const WANTED: u32 = 2;
const RESTING: u32 = 3;

pub(super) struct State(AtomicU32);

impl State {
    pub fn new() -> State {
        State(AtomicU32::new(HOME))
    }

    /// `RESTING → RUNNING`.
    pub fn resume(&self) -> bool {
        // Acquire: partner of the Release in `rest`, which may have been on another thread.
        self.0.compare_exchange(RESTING, RUNNING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// `HOME → RUNNING`; the tape is locked, which orders what this run does after what was given back.
    pub fn begin(&self) {
        // Relaxed: nobody else changes `HOME`, and slots hand the lease on under their locks.
        self.0.store(RUNNING, Ordering::Relaxed);
    }

    /// `RUNNING → RESTING`.
    pub fn rest(&self) -> bool {
        // Release: partner of the Acquire in `resume` and in `leave`.
        self.0.compare_exchange(RUNNING, RESTING, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// `RUNNING` or `WANTED → HOME`; the tape is locked.
    pub fn end(&self) {
        // Relaxed: the tape's lock hands on what was given back.
        self.0.store(HOME, Ordering::Relaxed);
    }

    pub fn is_running(&self) -> bool {
        // Relaxed: asked by the step alone, which began the run.
        matches!(self.0.load(Ordering::Relaxed), RUNNING | WANTED)
    }

    #[cfg(test)]
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == WANTED
    }

    /// `RUNNING → WANTED`; `true` if it is `RESTING`.
    pub fn want(&self) -> bool {
        // Relaxed: nothing is read on the strength of it but under the tape's lock.
        let marked = |state| (state == RUNNING).then_some(WANTED);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, marked) == Err(RESTING)
    }

    /// `RESTING → HOME`; the tape is locked.
    pub fn leave(&self) -> bool {
        // Acquire: partner of the Release in `rest`.
        self.0.compare_exchange(RESTING, HOME, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test --release -p tapeflow-core loom`.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::sync::{Arc, Mutex, MutexGuard};
    use loom::thread;

    use super::State;

    /// A slot and the tape, with a version that counts the runs.
    struct Shared {
        state: State,
        held: UnsafeCell<Option<u32>>,
        tape: Mutex<Option<u32>>,
        slot: Mutex<()>,
        runs: AtomicU32,
    }

    impl Shared {
        fn run(&self) {
            if !self.state.resume() {
                drop(self.tape.lock().unwrap());
                self.state.begin();
                let _slot = self.slot.lock().unwrap();
                let version = self.tape.lock().unwrap().take();
                assert!(version.is_some(), "what was recalled is on the tape");
                // SAFETY: the run is going on; loom checks it.
                self.held.with_mut(|held| unsafe { *held = version });
            }
            // SAFETY: as above.
            self.held.with_mut(|held| unsafe { *held = (*held).map(|version| version + 1) });
            self.runs.fetch_add(1, Ordering::Relaxed);
            if !self.state.rest() {
                self.give_back(&mut self.tape.lock().unwrap());
                self.state.end();
            }
        }

        fn give_back(&self, tape: &mut MutexGuard<'_, Option<u32>>) {
            // SAFETY: the caller has ended a rest, or ends its run; loom checks it.
            self.held.with_mut(|held| **tape = unsafe { (*held).take() });
        }

        /// What somebody else sees who locks the slot; `None` while a run goes on.
        fn look(&self) -> Option<u32> {
            let _slot = self.slot.lock().unwrap();
            while self.state.want() {
                let mut tape = self.tape.lock().unwrap();
                if self.state.leave() {
                    self.give_back(&mut tape);
                    break;
                }
            }
            *self.tape.lock().unwrap()
        }
    }

    fn shared() -> Arc<Shared> {
        Arc::new(Shared {
            state: State::new(),
            held: UnsafeCell::new(None),
            tape: Mutex::new(Some(0)),
            slot: Mutex::new(()),
            runs: AtomicU32::new(0),
        })
    }

    #[test]
    fn what_rests_is_the_steps_or_the_tapes() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = shared();
            let step = {
                let shared = shared.clone();
                thread::spawn(move || (0..3).for_each(|_| shared.run()))
            };
            let seen = shared.look();
            assert!(seen.is_none_or(|version| version <= 3));
            step.join().unwrap();
            assert_eq!(shared.look(), Some(3));
        });
    }

    #[test]
    fn one_of_two_who_recall_gives_back() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = shared();
            shared.run();
            let others = [(); 2].map(|()| {
                let shared = shared.clone();
                thread::spawn(move || shared.look())
            });
            shared.run();
            for other in others {
                assert!(other.join().unwrap().is_none_or(|version| version == 1 || version == 2));
            }
            assert_eq!(shared.look(), Some(2));
        });
    }
}
