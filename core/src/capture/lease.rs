//! Leases: a captured step keeps the versions of its slots from one run to the next as long as nobody else looks at
//! one of the slots. A run that follows such a rest takes no lock, however many slots there are.
//!
//! Owns who has what is lent at the moment; knows not how versions are taken (`replay`).
//!
//! # Protocol
//!
//! | state | who has the versions |
//! |---|---|
//! | `HOME` | the tape |
//! | `RUNNING` | the step: a run is going on |
//! | `WANTED` | the same, and the run is to give them back at its end |
//! | `RESTING` | the step, between runs; or whoever changes the state |
//!
//! A run that finds `HOME` looks at every slot under its lock: it takes the versions it updates off the tape (their
//! leaves are marked `taken`), shares those it reads, and leaves the lease with the slot. A handle of a version, and
//! with it anything recorded on it, can only be had through the slot; whoever locks a slot calls [`Lease::recall`]
//! first. So if a run finds `RESTING`, there is still no handle of a version but the slot's own, nothing recorded reads
//! it, and no slot names another.
//!
//! Both `RESTING → RUNNING` (the step) and `RESTING → HOME` (who recalls, with the tape locked until all is given back)
//! are one compare-exchange: one of them comes first, and what it left is what the other finds. Who recalls a step that
//! is running marks it and goes on; what it looks at next is marked `taken`, and it waits at the tape for that, as for
//! any program.
//!
//! Locks are taken in the order slot, tape; the state is changed with both, one or none of them.

mod state;

use std::cell::UnsafeCell;
use std::fmt;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::tape::{self, Locked, NodeId};
use state::State;

/// Whose the versions of a step's slots are.
pub(crate) struct Lease {
    state: State,
    held: UnsafeCell<Held>,
}

/// What a step has of its slots.
#[derive(Default)]
pub(super) struct Held {
    /// The versions that it updates.
    pub lent: Vec<Lent>,
    /// The versions that it reads.
    pub read: Vec<Arc<Buffer>>,
}

/// A version that was taken off the tape.
pub(super) struct Lent {
    pub leaf: NodeId,
    pub buffer: Arc<Buffer>,
    /// In place of its memory, if that is shared: what the program writes, or what it will write next time.
    pub fresh: Option<Arc<Buffer>>,
}

impl Lent {
    /// What the program writes, if it does so in place.
    pub fn written(&self) -> &Arc<Buffer> {
        self.fresh.as_ref().unwrap_or(&self.buffer)
    }
}

// SAFETY: `held` is looked at by the step while it runs, and otherwise by whoever has ended a rest, with the tape
// locked; see `held` and `recall`.
unsafe impl Sync for Lease {}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

impl Lease {
    /// For a step that has nothing yet.
    pub(super) fn new() -> Arc<Lease> {
        Arc::new(Lease { state: State::new(), held: UnsafeCell::default() })
    }

    /// Begins a run with what the run before left; `false` if that was recalled.
    pub(super) fn resume(&self) -> bool {
        self.state.resume()
    }

    /// Begins a run that has to look at every slot.
    pub(super) fn begin(&self) {
        // Who recalled the lease may still be giving back, with the tape locked.
        let _tape = tape::lock();
        self.state.begin();
    }

    /// Whether a run is going on.
    pub(super) fn is_running(&self) -> bool {
        self.state.is_running()
    }

    /// Whether somebody waits for the end of the run.
    #[cfg(test)]
    pub(super) fn is_wanted(&self) -> bool {
        self.state.is_wanted()
    }

    /// What the step has.
    ///
    /// # Safety
    /// The caller is the step, and a run of it is going on and does not end while the result lives. There is one such
    /// result at a time.
    #[expect(clippy::mut_from_ref, reason = "the state says whose it is")]
    pub(super) unsafe fn held(&self) -> &mut Held {
        // SAFETY: others look only after they ended a rest, which ends no run.
        unsafe { &mut *self.held.get() }
    }

    /// Ends a run, and keeps everything; `false` if somebody wants it.
    pub(super) fn rest(&self) -> bool {
        self.state.rest()
    }

    /// Ends a run, and gives everything back.
    pub(super) fn end(&self) {
        let mut tape = tape::lock();
        // SAFETY: the run is going on until the next line but one.
        unsafe { self.held() }.give_back(&mut tape);
        self.state.end();
    }

    /// Somebody is about to look at one of the slots: what rests is given back, and a run that is going on will do so.
    pub(crate) fn recall(&self) {
        while self.state.want() {
            let mut tape = tape::lock();
            if self.state.leave() {
                // SAFETY: nobody but us ended the rest, and until we unlock the tape no run begins.
                unsafe { &mut *self.held.get() }.give_back(&mut tape);
                return;
            }
        }
    }
}

impl Held {
    /// Lets the leaves that were taken name their versions again.
    pub fn give_back_lent(&mut self, tape: &mut Locked) {
        for Lent { leaf, buffer, .. } in self.lent.drain(..) {
            tape.buffer[leaf.index()] = Some(buffer);
            tape.flags[leaf.index()].taken = false;
            tape.lent -= 1;
            tape.unpin(leaf);
        }
        tape.notify();
    }

    fn give_back(&mut self, tape: &mut Locked) {
        self.give_back_lent(tape);
        self.read.clear();
    }
}
