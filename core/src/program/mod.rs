//! Programs: what a graph becomes. Steps in order with places for every value and one arena, for the host, for a
//! device with a driver, or for several devices. Owns binding memory and running; knows no tape and no worlds.

mod attention;
mod contraction;
mod convolution;
mod driven;
pub(crate) mod flight;
pub(crate) mod host;
pub mod kernel;
pub(crate) mod mixed;
mod windows;
pub(crate) mod work;

use std::sync::Arc;

pub(crate) use driven::DrivenProgram;
pub(crate) use host::{HostProgram, Workspace};
pub(crate) use mixed::MixedProgram;

use crate::buffer::Buffer;
use crate::compile::Checked;
use crate::compile::plan::Place;
use crate::device::Kind;
use crate::error::Problem;
use crate::profile::{Phase, Watch, span};
use crate::reference::Graph;

/// What becomes of an output.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub place: Place,
    pub bytes: usize,
}

/// A compiled graph.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub body: Body,
    pub outputs: Vec<Output>,
    pub arena_bytes: usize,
    /// The passes' dumps, if they were asked for.
    pub dump: String,
    /// What is to be looked at after a run, if that was asked for.
    pub checks: Vec<Checked>,
}

/// How a program runs.
#[derive(Debug)]
pub(crate) enum Body {
    /// On the worker pool.
    Host(HostProgram),
    /// Through a driver.
    Driven(DrivenProgram),
    /// On several devices.
    Mixed(MixedProgram),
    /// Node by node, on the reference device.
    Interpreted(Box<Graph>),
}

impl Default for Body {
    fn default() -> Body {
        Body::Host(HostProgram::default())
    }
}

/// A failure of a run: which step's origin, and what.
pub(crate) struct Failure {
    pub origin: u32,
    pub problem: Problem,
}

impl Failure {
    /// Of no step in particular.
    pub fn of_all(problem: Problem) -> Failure {
        Failure { origin: 0, problem }
    }
}

impl Program {
    /// A program that does nothing.
    #[cfg(test)]
    pub fn empty() -> Program {
        Program::default()
    }

    /// A program for the reference device.
    pub fn interpreted(graph: Graph) -> Program {
        Program { body: Body::Interpreted(Box::new(graph)), ..Program::default() }
    }

    /// Bytes the program itself takes, roughly.
    pub fn footprint(&self) -> usize {
        let body = match &self.body {
            Body::Host(host) => host.footprint(),
            Body::Driven(driven) => driven.footprint(),
            Body::Mixed(mixed) => mixed.footprint(),
            Body::Interpreted(_) => 0,
        };
        size_of::<Program>() + body
    }

    /// Bytes of new memory a run holds at its peak: the arena and the outputs that take over no input.
    pub fn peak_bytes(&self) -> usize {
        let new = self.outputs.iter().enumerate().filter(|(k, o)| o.place == Place::Output(*k as u32));
        self.arena_bytes + new.map(|(_, o)| o.bytes).sum::<usize>()
    }

    /// Runs the program. `inputs` are read, and those that outputs take over are written.
    ///
    /// # Safety
    /// The inputs are as the key says, and nobody uses those that are taken over.
    pub unsafe fn run(
        &self,
        inputs: &[Arc<Buffer>],
        scalars: &[u64],
        watch: Option<&Watch>,
    ) -> Result<Vec<Arc<Buffer>>, Failure> {
        let recorder = watch.map(|w| &w.recorder);
        match &self.body {
            Body::Host(host) => {
                let _flight = begun(host, watch);
                let outputs = self.bind_outputs(Kind::Cpu, inputs)?;
                let arena = Buffer::new(self.arena_bytes, "intermediate values").map_err(Failure::of_all)?;
                // SAFETY: the caller's promise; arena and outputs are ours.
                unsafe { host.run(&arena, inputs, &outputs, scalars, watch)? };
                Ok(outputs)
            }
            Body::Driven(driven) => {
                let outputs = self.bind_outputs(driven.on, inputs)?;
                let run = driven.submit(self.arena_bytes, inputs, &outputs, scalars, watch)?;
                run.wait()?;
                Ok(outputs)
            }
            Body::Mixed(mixed) => mixed.run(inputs, scalars, watch),
            Body::Interpreted(graph) => {
                let _span = span(recorder, Phase::Interpret);
                graph.run(inputs, scalars)
            }
        }
    }

    /// Memory for the outputs: new, or an input's.
    fn bind_outputs(&self, on: Kind, inputs: &[Arc<Buffer>]) -> Result<Vec<Arc<Buffer>>, Failure> {
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for (k, output) in self.outputs.iter().enumerate() {
            outputs.push(match output.place {
                Place::Input(i) => inputs[i as usize].clone(),
                // Two nodes that compute the same are one value.
                Place::Output(first) if (first as usize) < k => Arc::clone(&outputs[first as usize]),
                _ => Arc::new(Buffer::new_on(on, output.bytes, "a result").map_err(Failure::of_all)?),
            });
        }
        Ok(outputs)
    }

    /// Runs a program of the host with the operands that the workspace was bound to; nothing is allocated.
    ///
    /// # Safety
    /// As for `HostProgram::run_bound`.
    pub unsafe fn run_in(
        &self,
        workspace: &mut Workspace,
        arena: &Buffer,
        scalars: &[u64],
        watch: Option<&Watch>,
    ) -> Result<(), Failure> {
        let _flight = begun(self.host(), watch);
        // SAFETY: as our caller promised.
        unsafe { self.host().run_bound(workspace, arena, scalars, watch) }
    }

    /// The body of a program of the host.
    pub fn host(&self) -> &HostProgram {
        let Body::Host(host) = &self.body else { unreachable!("invariant: only programs of the host are captured") };
        host
    }
}

/// Waits until the program may run beside others.
fn begun(host: &HostProgram, watch: Option<&Watch>) -> Option<flight::Flight> {
    let _span = span(watch.map(|w| &w.recorder), Phase::Room);
    host.begin()
}
