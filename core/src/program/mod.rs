//! Programs: what a graph becomes. Compiled kernels in order with their dependencies, places for every value, one
//! arena. Owns running them; knows no tape and no worlds.

pub(crate) mod flight;
pub mod kernel;

use std::sync::{Arc, Mutex, PoisonError};

use crate::compile::plan::Place;
use crate::error::Problem;
use crate::memory::Buffer;
use crate::pool::{self, Job, RunState};
use flight::Flight;
use kernel::{Args, Executable, RunError};

/// A compiled kernel with the places of its operands.
#[derive(Debug)]
pub(crate) struct Step {
    pub executable: Arc<dyn Executable>,
    /// Where in `Program::operands` this step's begin and end.
    pub operands: std::ops::Range<usize>,
    /// Offset in the arena.
    pub partial: usize,
    pub dependents: Vec<u32>,
    pub dependencies: u32,
    /// The canonical number of the node it came from.
    pub origin: u32,
    pub name: String,
}

/// What becomes of an output.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub place: Place,
    pub bytes: usize,
}

/// A compiled graph.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub steps: Vec<Step>,
    pub operands: Vec<Place>,
    pub outputs: Vec<Output>,
    pub arena_bytes: usize,
    pub scratch_bytes: usize,
    /// Nanoseconds on one thread, roughly.
    pub cost: u64,
    /// Where the reference device finds the graph.
    pub interpreted: Option<crate::reference::Graph>,
    /// The passes' dumps, if they were asked for.
    pub dump: String,
    idle: Mutex<Vec<Workspace>>,
}

/// What a run needs besides buffers; kept between runs so that a steady run allocates nothing.
#[derive(Default)]
struct Workspace {
    addresses: Vec<*mut u8>,
    state: RunState,
}

// SAFETY: the addresses are rewritten at the start of each run and read during it only.
unsafe impl Send for Workspace {}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workspace")
    }
}

/// Below this many nanoseconds of work, waking a worker costs more than it brings.
const INLINE_BELOW: u64 = 12_000;

/// Threads cannot refuse scratch; from this many bytes on a run asks first whether they can be had.
const PROBED_SCRATCH: usize = 1 << 24;

/// A failure of a run: which step's origin, and what.
pub(crate) struct Failure {
    pub origin: u32,
    pub problem: Problem,
}

impl Program {
    /// A program that does nothing.
    #[cfg(test)]
    pub fn empty() -> Program {
        Program::default()
    }

    /// A program for the reference device.
    pub fn interpreted(graph: crate::reference::Graph) -> Program {
        Program { interpreted: Some(graph), ..Program::default() }
    }

    /// Bytes the program itself takes, roughly.
    pub fn footprint(&self) -> usize {
        size_of::<Program>() + self.steps.len() * (size_of::<Step>() + 2048) + self.operands.len() * 16
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
    pub unsafe fn run(&self, inputs: &[Arc<Buffer>], scalars: &[u64]) -> Result<Vec<Arc<Buffer>>, Failure> {
        let memory = |problem| Failure { origin: 0, problem };
        if let Some(graph) = &self.interpreted {
            return graph.run(inputs, scalars);
        }
        let _flight = (self.cost >= INLINE_BELOW).then(Flight::begin);
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for (k, output) in self.outputs.iter().enumerate() {
            outputs.push(match output.place {
                Place::Input(i) => inputs[i as usize].clone(),
                // Two nodes that compute the same are one value.
                Place::Output(first) if (first as usize) < k => Arc::clone(&outputs[first as usize]),
                _ => Arc::new(Buffer::new(output.bytes, "a result").map_err(memory)?),
            });
        }
        let arena = Buffer::new(self.arena_bytes, "intermediate values").map_err(memory)?;
        // SAFETY: the caller's promise; arena and outputs are ours.
        unsafe { self.execute(&arena, inputs, &outputs, scalars)? };
        Ok(outputs)
    }

    /// Runs the program in memory that is given.
    ///
    /// # Safety
    /// As for `run`; `arena` and `outputs` have the planned sizes and nobody else uses them.
    pub unsafe fn run_in(
        &self,
        arena: &Buffer,
        inputs: &[Arc<Buffer>],
        outputs: &[Arc<Buffer>],
        scalars: &[u64],
    ) -> Result<(), Failure> {
        let _flight = (self.cost >= INLINE_BELOW).then(Flight::begin);
        // SAFETY: as our caller promised.
        unsafe { self.execute(arena, inputs, outputs, scalars) }
    }

    /// # Safety
    /// As for `run_in`.
    unsafe fn execute(
        &self,
        arena: &Buffer,
        inputs: &[Arc<Buffer>],
        outputs: &[Arc<Buffer>],
        scalars: &[u64],
    ) -> Result<(), Failure> {
        if self.scratch_bytes > PROBED_SCRATCH {
            let memory = |problem| Failure { origin: 0, problem };
            Buffer::new(self.scratch_bytes, "the scratch of a thread").map_err(memory)?;
        }
        let mut workspace = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        workspace.addresses.clear();
        workspace.addresses.extend(self.operands.iter().map(|place| match *place {
            // SAFETY: the plan keeps offsets inside the arena.
            Place::Arena(offset) => unsafe { arena.as_ptr().add(offset) },
            Place::Input(i) => inputs[i as usize].as_ptr(),
            Place::Output(i) => outputs[i as usize].as_ptr(),
        }));
        let failed = std::sync::atomic::AtomicU32::new(u32::MAX);
        let run =
            Run { program: self, addresses: &workspace.addresses, arena: arena.as_ptr(), scalars, failed: &failed };
        let pool;
        let result = if self.cost < INLINE_BELOW {
            pool::run_inline(&run)
        } else {
            pool = pool::global();
            pool.run(&run, &mut workspace.state)
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        result.map_err(|error| {
            let step = failed.load(std::sync::atomic::Ordering::Relaxed);
            let origin = self.steps.get(step as usize).map_or(0, |s| s.origin);
            Failure { origin, problem: Problem::Run(error) }
        })
    }
}

/// One run as the pool sees it.
struct Run<'r> {
    program: &'r Program,
    addresses: &'r [*mut u8],
    arena: *mut u8,
    scalars: &'r [u64],
    /// The lowest step that failed.
    failed: &'r std::sync::atomic::AtomicU32,
}

// SAFETY: the addresses are those of buffers that outlive the run; the dependencies between steps and the cut of chunks
// keep every byte to one writer at a time.
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    fn args(&self, step: &Step) -> Args<'_> {
        Args {
            operands: &self.addresses[step.operands.clone()],
            scalars: self.scalars,
            // SAFETY: the plan keeps offsets inside the arena.
            partial: unsafe { self.arena.add(step.partial) },
        }
    }

    fn noted(&self, step: usize, result: Result<(), RunError>) -> Result<(), RunError> {
        if result.is_err() {
            self.failed.fetch_min(step as u32, std::sync::atomic::Ordering::Relaxed);
        }
        result
    }
}

impl Job for Run<'_> {
    fn steps(&self) -> usize {
        self.program.steps.len()
    }
    fn chunks(&self, step: usize) -> usize {
        self.program.steps[step].executable.chunks()
    }
    fn dependents(&self, step: usize) -> &[u32] {
        &self.program.steps[step].dependents
    }
    fn dependencies(&self, step: usize) -> u32 {
        self.program.steps[step].dependencies
    }
    unsafe fn run_chunk(&self, step: usize, chunk: usize, scratch: &mut [u8]) -> Result<(), RunError> {
        let s = &self.program.steps[step];
        // SAFETY: the pool keeps the order of steps, which keeps writers alone.
        self.noted(step, unsafe { s.executable.run_chunk(chunk, &self.args(s), scratch) })
    }
    unsafe fn finish(&self, step: usize, scratch: &mut [u8]) -> Result<(), RunError> {
        let s = &self.program.steps[step];
        if !s.executable.has_finish() {
            return Ok(());
        }
        // SAFETY: as above.
        self.noted(step, unsafe { s.executable.finish(&self.args(s), scratch) })
    }
    fn scratch_bytes(&self) -> usize {
        self.program.scratch_bytes
    }
}
