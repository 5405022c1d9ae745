//! Runs: submitting, at most two at once on a device, and waiting. Owns what is in flight; knows nothing of how a
//! program was recorded.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tapeflow_core::driver::{Bindings, DriverError, Fault, Memory, Recorded, Running, StepTime};

use super::record::{Program, SLOTS};
use crate::context::Context;
use crate::counts;
use crate::transfer::DeviceMemory;

/// The programs in flight on a device.
#[derive(Default)]
pub(crate) struct Submissions(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    flights: VecDeque<Arc<Flight>>,
    /// The copy that a submitted program waited for last.
    copies: u64,
}

/// A run that was submitted.
struct Flight {
    /// Of the timeline, at its end.
    end: u64,
    state: Mutex<State>,
}

enum State {
    InFlight {
        program: Arc<Program>,
        slot: usize,
        /// Kept alive for the device.
        _bound: Vec<Arc<dyn Memory>>,
    },
    Ended(Result<(), Fault>, Vec<StepTime>),
}

impl Flight {
    /// Waits, and lets go of what the run used.
    fn end(&self, context: &Context) -> Result<(), Fault> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &*state {
            State::Ended(result, _) => return result.clone(),
            State::InFlight { program, slot, .. } => {
                let waited = context.wait(&context.compute, self.end).map_err(Fault::from);
                let result = waited.and_then(|()| program.status(*slot));
                let result = result.and_then(|()| program.times(*slot));
                if !context.is_lost() {
                    program.release(*slot);
                }
                result
            }
        };
        let (result, times) = match result {
            Ok(times) => (Ok(()), times),
            Err(fault) => (Err(fault), Vec::new()),
        };
        *state = State::Ended(result.clone(), times);
        result
    }

    /// The times of the steps, once it has ended.
    fn times(&self) -> Vec<StepTime> {
        match &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Ended(_, times) => std::mem::take(times),
            State::InFlight { .. } => Vec::new(),
        }
    }

    /// Whether somebody waited for it. Does not wait itself: another thread may hold the lock for as long as the run.
    fn has_ended(&self) -> bool {
        self.state.try_lock().is_ok_and(|state| matches!(*state, State::Ended(..)))
    }
}

/// A program as the rest of tapeflow sees it.
pub(crate) struct RecordedProgram(pub Arc<Program>);

impl fmt::Debug for RecordedProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Recorded for RecordedProgram {
    fn submit(&self, bindings: &Bindings<'_>) -> Result<Box<dyn Running>, DriverError> {
        self.start(bindings, false)
    }

    fn submit_timed(&self, bindings: &Bindings<'_>) -> Result<Box<dyn Running>, DriverError> {
        self.start(bindings, true)
    }
}

impl RecordedProgram {
    fn start(&self, bindings: &Bindings<'_>, is_timed: bool) -> Result<Box<dyn Running>, DriverError> {
        let program = &self.0;
        let context = &program.context;
        context.check()?;
        let bound = || [bindings.arena].into_iter().chain(bindings.inputs.iter().chain(bindings.outputs).copied());
        let memories: Vec<&DeviceMemory> = bound().map(|memory| own(context, memory)).collect::<Result<_, _>>()?;
        program.layout.check(bindings, memories[0].bytes)?;
        let bases: Vec<u64> = memories.iter().map(|memory| memory.range.address).collect();

        let mut queue = context.submissions.0.lock().unwrap_or_else(PoisonError::into_inner);
        while queue.flights.front().is_some_and(|oldest| queue.flights.len() >= SLOTS || oldest.has_ended()) {
            if let Some(oldest) = queue.flights.pop_front() {
                // Its own `wait` reports how it ended; here only a loss matters.
                let _ = oldest.end(context);
                context.check()?;
            }
        }
        let (slot, commands) = program.prepare(&bases, bindings.scalars, is_timed)?;
        let copies = context.transfer.submitted();
        let after = Some((&context.transfer, copies)).filter(|_| copies > queue.copies);
        // SAFETY: the slot was free, so its commands are not pending; the flight keeps program and memory until the
        // end was waited for; the lock is held.
        let end = unsafe { context.compute.submit(commands, after) }.map_err(|error| {
            program.release(slot);
            context.refused("a program", error)
        })?;
        counts::SUBMITS.add(1);
        queue.copies = copies;
        for memory in memories {
            memory.last_use.fetch_max(end, Ordering::Release); // partner: the host's access
        }
        let state = State::InFlight { program: program.clone(), slot, _bound: bound().cloned().collect() };
        let flight = Arc::new(Flight { end, state: Mutex::new(state) });
        queue.flights.push_back(flight.clone());
        Ok(Box::new(Run { context: context.clone(), flight }))
    }
}

/// Memory of this very device.
fn own<'m>(context: &Arc<Context>, memory: &'m Arc<dyn Memory>) -> Result<&'m DeviceMemory, DriverError> {
    let any: &dyn std::any::Any = memory.as_ref();
    let memory = any.downcast_ref::<DeviceMemory>().filter(|memory| Arc::ptr_eq(&memory.context, context));
    memory.ok_or_else(|| DriverError::Unsupported("a program cannot run with memory of another device".into()))
}

struct Run {
    context: Arc<Context>,
    flight: Arc<Flight>,
}

impl Running for Run {
    fn wait(self: Box<Self>) -> Result<(), Fault> {
        self.flight.end(&self.context)
    }

    fn wait_timed(self: Box<Self>) -> Result<Vec<StepTime>, Fault> {
        self.flight.end(&self.context)?;
        Ok(self.flight.times())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Whoever drops a run does not want to know how it ended; a loss is remembered by the context.
        let _ = self.flight.end(&self.context);
    }
}
