//! The crate as a family of devices: `tapeflow_core::driver` implemented. Owns the kernels translated
//! for an open device; the rest of the crate does the work.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tapeflow_core::driver::{self, DriverError, FAMILIES, Family, Kernel, Lowered, Memory, Plan, Recorded, linkme};

use crate::context::Context;
pub use crate::context::Options;
use crate::listing;
pub use crate::pipeline::Compiled;
use crate::program::{Program, RecordedProgram};
use crate::spirv;
use crate::stage::{Lowering, Target};
use crate::transfer::DeviceMemory;

/// Vulkan devices, `vulkan:0` and so on in the loader's order.
#[linkme::distributed_slice(FAMILIES)]
#[linkme(crate = linkme)]
pub static VULKAN: Family = Family { name: "vulkan", list: listing::list, open };

/// A context of its own: core keeps the devices it has opened, and comes again only when one was lost.
fn open(index: usize) -> Result<Arc<dyn driver::Driver>, DriverError> {
    Ok(Arc::new(Driver::open(index, &Options::default())?))
}

/// An open Vulkan device.
#[doc(hidden)]
pub struct Driver {
    context: Arc<Context>,
    kernels: Mutex<HashMap<Kernel, Weak<Compiled>>>,
}

impl Driver {
    /// Opens a device that nobody shares.
    pub fn open(index: usize, options: &Options) -> Result<Driver, DriverError> {
        Ok(Driver { context: Context::open(index, options)?, kernels: Mutex::default() })
    }

    /// What the emitter is told.
    pub fn target(&self) -> &Target {
        &self.context.target
    }

    /// Makes a kernel's pipelines; `extent` is that of the axis which its indices are checked against.
    pub fn compile(&self, lowering: Lowering, extent: usize) -> Result<Arc<Compiled>, DriverError> {
        Compiled::new(&self.context, lowering, extent).map(Arc::new)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("context", &self.context).finish_non_exhaustive()
    }
}

/// Of the axis that a kernel's indices are checked against.
fn extent(kernel: &Kernel) -> usize {
    match kernel {
        Kernel::Gather(gather) => gather.extent,
        Kernel::ScatterAdd(scatter) => scatter.0.extent,
        Kernel::CheckIndex(check) => check.extent,
        _ => 0,
    }
}

impl driver::Driver for Driver {
    fn allocate(&self, bytes: usize, purpose: &'static str) -> Result<Arc<dyn Memory>, DriverError> {
        Ok(Arc::new(DeviceMemory::new(&self.context, bytes, purpose)?))
    }

    fn lower(&self, kernel: &Kernel) -> Result<Arc<dyn Lowered>, DriverError> {
        self.context.check()?;
        let kernels = || self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kernels().get(kernel).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let lowering = spirv::lower(kernel, self.target()).map_err(|e| DriverError::Unsupported(e.to_string()))?;
        let compiled = self.compile(lowering, extent(kernel))?;
        let mut kernels = kernels();
        if kernels.len() == kernels.capacity() {
            kernels.retain(|_, kernel| kernel.strong_count() > 0);
        }
        kernels.insert(kernel.clone(), Arc::downgrade(&compiled));
        Ok(compiled)
    }

    fn record(&self, plan: &Plan<'_>) -> Result<Arc<dyn Recorded>, DriverError> {
        Ok(Arc::new(RecordedProgram(Program::new(&self.context, plan)?)))
    }

    fn lost(&self) -> Option<DriverError> {
        self.context.check().err()
    }
}
