//! Programs of the host: compiled kernels in order with their dependencies, run on the worker pool.
//! Owns one run's addresses and state; knows no tape and no worlds.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Failure;
use super::flight::Flight;
use super::kernel::{Args, Executable, RunError};
use super::work::Described;
use crate::buffer::Buffer;
use crate::compile::plan::Place;
use crate::device::Kind;
use crate::error::Problem;
use crate::locks;
use crate::memory::Block;
use crate::pool::{self, Job, RunState};
use crate::profile::Watch;

/// A compiled kernel with the places of its operands.
#[derive(Debug)]
pub(crate) struct Step {
    pub executable: Arc<dyn Executable>,
    /// Where in `HostProgram::operands` this step's begin and end.
    pub operands: std::ops::Range<usize>,
    /// Offset in the arena.
    pub partial: usize,
    pub dependents: Vec<u32>,
    pub dependencies: u32,
    /// The canonical number of the node it came from.
    pub origin: u32,
}

/// The steps of a program.
#[derive(Debug, Default)]
pub(crate) struct HostProgram {
    pub steps: Vec<Step>,
    pub operands: Vec<Place>,
    /// What each step computes.
    pub described: Arc<[Described]>,
    pub scratch_bytes: usize,
    /// Nanoseconds on one thread, roughly.
    pub cost: u64,
    /// Workspaces that nobody uses.
    idle: Mutex<Vec<Workspace>>,
}

/// What a run needs besides buffers; kept between runs so that a steady run allocates nothing.
#[derive(Default)]
pub(crate) struct Workspace {
    addresses: Vec<*mut u8>,
    state: RunState,
    /// Whether there was memory for the scratch of a thread since it was bound.
    is_probed: bool,
}

// SAFETY: addresses are no memory; who runs a program with them answers for what is there.
unsafe impl Send for Workspace {}

impl Workspace {
    /// Says where one of the operands is from now on.
    pub fn rebind(&mut self, operand: usize, address: *mut u8) {
        self.addresses[operand] = address;
    }
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workspace")
    }
}

/// Below this many nanoseconds of work, waking a worker costs more than it brings.
const INLINE_BELOW: u64 = 12_000;

/// Threads cannot refuse scratch; from this many bytes on a run asks first whether they can be had.
const PROBED_SCRATCH: usize = 1 << 24;

impl HostProgram {
    /// Bytes that it takes itself, roughly.
    pub fn footprint(&self) -> usize {
        self.steps.len() * (size_of::<Step>() + 2048) + self.operands.len() * 16
    }

    /// Waits until the program may run beside others.
    pub fn begin(&self) -> Option<Flight> {
        (self.cost >= INLINE_BELOW).then(Flight::begin)
    }

    /// Where it is worth it, on the pool.
    fn execute<J: Job>(&self, job: &J, state: &mut RunState) -> Result<(), RunError> {
        if self.cost < INLINE_BELOW { pool::run_inline(job) } else { pool::global().run(job, state) }
    }

    /// Runs the program in memory that is given.
    ///
    /// # Safety
    /// Inputs, outputs and arena are host memory as planned, and nobody else uses what is written.
    pub unsafe fn run(
        &self,
        arena: &Buffer,
        inputs: &[Arc<Buffer>],
        outputs: &[Arc<Buffer>],
        scalars: &[u64],
        watch: Option<&Watch>,
    ) -> Result<(), Failure> {
        let mut workspace = self.idle().pop().unwrap_or_default();
        self.bind(&mut workspace, arena, |i| inputs[i].as_ptr(), |i| outputs[i].as_ptr());
        // SAFETY: as our caller promised.
        let result = unsafe { self.run_bound(&mut workspace, arena, scalars, watch) };
        self.idle().push(workspace);
        result
    }

    /// Says where the operands of the runs in this workspace are.
    pub fn bind(
        &self,
        workspace: &mut Workspace,
        arena: &Buffer,
        input: impl Fn(usize) -> *mut u8,
        output: impl Fn(usize) -> *mut u8,
    ) {
        workspace.is_probed = false;
        workspace.addresses.clear();
        workspace.addresses.extend(self.operands.iter().map(|place| match *place {
            // SAFETY: the plan keeps offsets inside the arena.
            Place::Arena(offset) => unsafe { arena.as_ptr().add(offset) },
            Place::Input(i) => input(i as usize),
            Place::Output(i) => output(i as usize),
        }));
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Workspace>> {
        locks::lock(&self.idle)
    }

    /// Runs the program with the operands that the workspace was bound to.
    ///
    /// # Safety
    /// The workspace was bound, by this program and with this arena, to host memory as planned, which is still there;
    /// nobody else uses what is written.
    pub unsafe fn run_bound(
        &self,
        workspace: &mut Workspace,
        arena: &Buffer,
        scalars: &[u64],
        watch: Option<&Watch>,
    ) -> Result<(), Failure> {
        let watched = watch.and_then(|watch| watch.begin(Kind::Cpu, &self.described));
        if self.scratch_bytes > PROBED_SCRATCH && !workspace.is_probed {
            let memory = |problem| Failure { origin: 0, problem };
            Block::new(self.scratch_bytes, "the scratch of a thread").map_err(memory)?;
            workspace.is_probed = true;
        }
        let failed = AtomicU32::new(u32::MAX);
        let run =
            Run { program: self, addresses: &workspace.addresses, arena: arena.as_ptr(), scalars, failed: &failed };
        let result = match &watched {
            Some(watched) => self.execute(&watched.timed(&run), &mut workspace.state),
            None => self.execute(&run, &mut workspace.state),
        };
        result.map_err(|error| {
            let step = failed.load(Relaxed);
            let origin = self.steps.get(step as usize).map_or(0, |s| s.origin);
            Failure { origin, problem: Problem::Run(error) }
        })
    }
}

/// One run as the pool sees it.
struct Run<'r> {
    program: &'r HostProgram,
    addresses: &'r [*mut u8],
    arena: *mut u8,
    scalars: &'r [u64],
    /// The lowest step that failed.
    failed: &'r AtomicU32,
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
            self.failed.fetch_min(step as u32, Relaxed);
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
    unsafe fn prepare(&self, step: usize) {
        let s = &self.program.steps[step];
        if s.executable.has_prepare() {
            // SAFETY: the pool keeps the order of steps, which keeps writers alone.
            unsafe { s.executable.prepare(&self.args(s)) }
        }
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
