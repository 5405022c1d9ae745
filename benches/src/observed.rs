//! A Vulkan device seen through a glass: a driver that passes everything on and notes how long it takes to submit a
//! program and to wait for it. For the one workload that asks where a step's time goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tapeflow::driver::{
    Bindings, Driver, DriverError, FAMILIES, Family, Fault, Kernel, Lowered, Memory, Plan, Recorded, Running, linkme,
};
use tapeflow::vulkan::{VULKAN, counts};
use tapeflow::{Device, Result};

#[linkme::distributed_slice(FAMILIES)]
#[linkme(crate = linkme)]
static OBSERVED: Family = Family { name: "observed", list: || Ok(Vec::new()), open };

static SUBMITTING: AtomicU64 = AtomicU64::new(0);
static WAITING: AtomicU64 = AtomicU64::new(0);
static KERNELS: AtomicU64 = AtomicU64::new(0);

/// Totals of this process.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    /// Nanoseconds in `submit`.
    pub submitting: u64,
    /// Nanoseconds in `wait`.
    pub waiting: u64,
    /// Of the programs submitted.
    pub kernels: u64,
    /// Calls that handed a program to a queue.
    pub submits: u64,
    /// Copy commands.
    pub transfers: u64,
}

pub fn totals() -> Totals {
    let counts = counts();
    Totals {
        submitting: SUBMITTING.load(Relaxed),
        waiting: WAITING.load(Relaxed),
        kernels: KERNELS.load(Relaxed),
        submits: counts.submits,
        transfers: counts.transfers,
    }
}

/// The same device under observation; `None` for one that is not Vulkan's.
pub fn device(of: Device) -> Option<Result<Device>> {
    let index = of.to_string().strip_prefix("vulkan:")?.parse().ok()?;
    Some(Device::open("observed", index).map_err(Into::into))
}

fn open(index: usize) -> std::result::Result<Arc<dyn Driver>, DriverError> {
    Ok(Arc::new(Observed((VULKAN.open)(index)?)))
}

#[derive(Debug)]
struct Observed(Arc<dyn Driver>);

impl Driver for Observed {
    fn lost(&self) -> Option<DriverError> {
        self.0.lost()
    }

    fn allocate(&self, bytes: usize, purpose: &'static str) -> std::result::Result<Arc<dyn Memory>, DriverError> {
        self.0.allocate(bytes, purpose)
    }

    fn lower(&self, kernel: &Kernel) -> std::result::Result<Arc<dyn Lowered>, DriverError> {
        self.0.lower(kernel)
    }

    fn record(&self, plan: &Plan<'_>) -> std::result::Result<Arc<dyn Recorded>, DriverError> {
        Ok(Arc::new(Program { recorded: self.0.record(plan)?, kernels: plan.steps.len() as u64 }))
    }
}

#[derive(Debug)]
struct Program {
    recorded: Arc<dyn Recorded>,
    kernels: u64,
}

impl Recorded for Program {
    fn submit(&self, bindings: &Bindings<'_>) -> std::result::Result<Box<dyn Running>, DriverError> {
        let running = timed(&SUBMITTING, || self.recorded.submit(bindings))?;
        KERNELS.fetch_add(self.kernels, Relaxed);
        Ok(Box::new(Run(running)))
    }
}

struct Run(Box<dyn Running>);

impl Running for Run {
    fn wait(self: Box<Self>) -> std::result::Result<(), Fault> {
        timed(&WAITING, || self.0.wait())
    }
}

fn timed<T>(total: &AtomicU64, f: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = f();
    total.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
    result
}
