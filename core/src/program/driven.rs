//! Programs of devices with a driver: recorded once, submitted for every run. Owns the way from a run's failure back to
//! the node it came from.

use std::sync::Arc;

use super::Failure;
use super::work::Described;
use crate::buffer::Buffer;
use crate::device::{self, Kind};
use crate::driver::{Bindings, Fault, Memory, Recorded, Running};
use crate::profile::{Phase, Watch, WatchedRun, span};

/// A recorded program.
#[derive(Debug)]
pub(crate) struct DrivenProgram {
    pub on: Kind,
    pub recorded: Arc<dyn Recorded>,
    /// The canonical number of the node that each step came from.
    pub origins: Vec<u32>,
    /// What each step computes.
    pub described: Arc<[Described]>,
}

/// A run that was submitted.
pub(crate) struct DrivenRun<'p> {
    program: &'p DrivenProgram,
    running: Box<dyn Running>,
    watched: Option<WatchedRun>,
}

impl DrivenProgram {
    /// Bytes that it takes itself, roughly.
    pub fn footprint(&self) -> usize {
        self.origins.len() * 2048
    }

    /// Starts a run; all buffers are memory of the program's device.
    pub fn submit(
        &self,
        arena_bytes: usize,
        inputs: &[Arc<Buffer>],
        outputs: &[Arc<Buffer>],
        scalars: &[u64],
        watch: Option<&Watch>,
    ) -> Result<DrivenRun<'_>, Failure> {
        fn memories(buffers: &[Arc<Buffer>]) -> Vec<&Arc<dyn Memory>> {
            buffers.iter().filter_map(|b| b.memory()).collect()
        }
        let arena = Buffer::new_on(self.on, arena_bytes, "intermediate values").map_err(Failure::of_all)?;
        let Some(arena) = arena.memory() else { unreachable!("invariant: a driven program has a driver") };
        let (inputs, outputs) = (memories(inputs), memories(outputs));
        let bindings = Bindings { arena, inputs: &inputs, outputs: &outputs, scalars };
        let watched = watch.and_then(|watch| watch.begin(self.on, &self.described));
        let running = {
            let _span = span(watch.map(|w| &w.recorder), Phase::Submit);
            if watched.is_some() { self.recorded.submit_timed(&bindings) } else { self.recorded.submit(&bindings) }
        };
        let running = running.map_err(|e| Failure::of_all(device::problem(self.on, e)))?;
        Ok(DrivenRun { program: self, running, watched })
    }
}

impl DrivenRun<'_> {
    /// Waits for the run's end.
    pub fn wait(self) -> Result<(), Failure> {
        let DrivenRun { program, running, watched } = self;
        let ended = match &watched {
            Some(watched) => {
                let _span = watched.span(Phase::Wait);
                running.wait_timed().map(|times| watched.note_steps(&times))
            }
            None => running.wait(),
        };
        ended.map_err(|Fault { step, error }| {
            let origin = step.and_then(|s| program.origins.get(s as usize)).copied().unwrap_or(0);
            Failure { origin, problem: device::problem(program.on, error) }
        })
    }
}
