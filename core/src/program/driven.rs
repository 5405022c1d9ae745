//! Programs of devices with a driver: recorded once, submitted for every run. Owns the way from a run's failure back to
//! the node it came from.

use std::sync::Arc;

use super::Failure;
use crate::buffer::Buffer;
use crate::device::{self, Kind};
use crate::driver::{Bindings, Fault, Memory, Recorded, Running};

/// A recorded program.
#[derive(Debug)]
pub(crate) struct DrivenProgram {
    pub on: Kind,
    pub recorded: Arc<dyn Recorded>,
    /// The canonical number of the node that each step came from.
    pub origins: Vec<u32>,
}

/// A run that was submitted.
pub(crate) struct DrivenRun<'p> {
    program: &'p DrivenProgram,
    running: Box<dyn Running>,
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
    ) -> Result<DrivenRun<'_>, Failure> {
        fn memories(buffers: &[Arc<Buffer>]) -> Vec<&Arc<dyn Memory>> {
            buffers.iter().filter_map(|b| b.memory()).collect()
        }
        let arena = Buffer::new_on(self.on, arena_bytes, "intermediate values").map_err(Failure::of_all)?;
        let Some(arena) = arena.memory() else { unreachable!("invariant: a driven program has a driver") };
        let (inputs, outputs) = (memories(inputs), memories(outputs));
        let bindings = Bindings { arena, inputs: &inputs, outputs: &outputs, scalars };
        let running = self.recorded.submit(&bindings).map_err(|e| Failure::of_all(device::problem(self.on, e)))?;
        Ok(DrivenRun { program: self, running })
    }
}

impl DrivenRun<'_> {
    /// Waits for the run's end.
    pub fn wait(self) -> Result<(), Failure> {
        let DrivenRun { program, running } = self;
        running.wait().map_err(|Fault { step, error }| {
            let origin = step.and_then(|s| program.origins.get(s as usize)).copied().unwrap_or(0);
            Failure { origin, problem: device::problem(program.on, error) }
        })
    }
}
