//! The interface of devices beyond the processor: what a crate implements so that programs run on its device.
//! Owns the traits, their errors and the list of families; knows no particular device.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub use crate::compile::plan::Place;
pub use crate::program::kernel::*;
pub use crate::random::{Stream, philox4x32, uniform};
pub use linkme;

/// Why a device did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// There is no such device, or nothing to reach it with.
    #[error("{0}")]
    Unavailable(String),
    /// Memory was refused.
    #[error("{needed} bytes for {purpose} cannot be had: {reason}")]
    Memory {
        /// Bytes asked for.
        needed: usize,
        /// What for.
        purpose: &'static str,
        /// Who refused, and what there was.
        reason: String,
    },
    /// A kernel that the device cannot run.
    #[error("{0}")]
    Unsupported(String),
    /// The device's compiler refused a kernel.
    #[error("{0}")]
    Compile(String),
    /// The device no longer answers; nothing more can be done with it.
    #[error("the device is lost: {0}")]
    Lost(String),
    /// What a kernel found in the data.
    #[error(transparent)]
    Run(RunError),
}

/// A failed run: which step of the plan, if that is known, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number in the plan.
    pub step: Option<u32>,
    /// Why.
    pub error: DriverError,
}

impl From<DriverError> for Fault {
    fn from(error: DriverError) -> Fault {
        Fault { step: None, error }
    }
}

/// An open device.
pub trait Driver: Send + Sync + fmt::Debug {
    /// The error that it refuses all work with, once it is lost.
    fn lost(&self) -> Option<DriverError>;

    /// Memory with unspecified contents; given back when it is dropped.
    ///
    /// # Errors
    /// [`DriverError::Memory`], [`DriverError::Lost`].
    fn allocate(&self, bytes: usize, purpose: &'static str) -> Result<Arc<dyn Memory>, DriverError>;

    /// Translates a kernel. The same kernel is not translated twice.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`], [`DriverError::Compile`], [`DriverError::Lost`].
    fn lower(&self, kernel: &Kernel) -> Result<Arc<dyn Lowered>, DriverError>;

    /// Makes a program that can be run again and again.
    ///
    /// # Errors
    /// As for `lower`, and [`DriverError::Memory`].
    fn record(&self, plan: &Plan<'_>) -> Result<Arc<dyn Recorded>, DriverError>;
}

/// Memory of one tensor or one arena on a device.
pub trait Memory: Any + Send + Sync + fmt::Debug {
    /// Writes from the start on. The bytes may be changed once this returns; programs submitted later see them.
    ///
    /// # Errors
    /// [`DriverError::Memory`] (of a staging buffer), [`DriverError::Lost`].
    fn write(&self, bytes: &[u8]) -> Result<(), DriverError>;

    /// Reads from the start on, after everything that was submitted before.
    ///
    /// # Errors
    /// As for `write`.
    fn read(&self, into: &mut [u8]) -> Result<(), DriverError>;
}

/// A kernel translated for a device.
pub trait Lowered: Any + Send + Sync + fmt::Debug {
    /// Bytes of the arena that the kernel needs for itself while it runs (partial sums).
    fn partial_bytes(&self) -> usize;
}

/// A program for one device: what `schedule` decided.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'p> {
    /// In an order in which each comes after those it waits for.
    pub steps: &'p [PlannedStep],
    /// Of the arena that is bound when the program runs.
    pub arena_bytes: usize,
    /// How many buffers are bound as inputs.
    pub inputs: usize,
    /// How many buffers are bound as outputs.
    pub outputs: usize,
    /// How many arguments the host gives.
    pub scalars: usize,
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// What it computes.
    pub kernel: Arc<dyn Lowered>,
    /// Where its operands lie, in the kernel's order.
    pub operands: Vec<Place>,
    /// Where in the arena its `partial_bytes` lie.
    pub partial: usize,
    /// Earlier steps that must have finished: there is no other hazard.
    pub waits: Vec<u32>,
    /// Whether it must write nothing if a step before it found a bad index: it updates in place.
    pub guarded: bool,
    /// The operation's name, for profiles.
    pub name: String,
}

/// What a run is given.
#[derive(Clone, Copy, Debug)]
pub struct Bindings<'b> {
    /// At least the plan's `arena_bytes`; nobody else uses it until the run has been waited for.
    pub arena: &'b Arc<dyn Memory>,
    /// Read; written where the plan places an output at an input.
    pub inputs: &'b [&'b Arc<dyn Memory>],
    /// Written.
    pub outputs: &'b [&'b Arc<dyn Memory>],
    /// Values given by the host, as bits.
    pub scalars: &'b [u64],
}

/// A recorded program.
pub trait Recorded: Send + Sync + fmt::Debug {
    /// Starts a run and returns at once (unless two are in flight already: then the oldest is waited for).
    ///
    /// # Errors
    /// [`DriverError::Memory`], [`DriverError::Lost`].
    fn submit(&self, bindings: &Bindings<'_>) -> Result<Box<dyn Running>, DriverError>;

    /// The same, for a run that is asked how long its steps took, if the device can tell.
    ///
    /// # Errors
    /// As for `submit`.
    fn submit_timed(&self, bindings: &Bindings<'_>) -> Result<Box<dyn Running>, DriverError> {
        self.submit(bindings)
    }
}

/// When a step ran, in nanoseconds since the run began on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// Its number in the plan.
    pub step: u32,
    /// When it began.
    pub begin: u64,
    /// When it was done.
    pub end: u64,
}

/// A run in flight.
pub trait Running: Send {
    /// Waits for its end. Dropping a run waits as well.
    ///
    /// # Errors
    /// [`DriverError::Run`] of the first step that found a bad index; [`DriverError::Lost`].
    fn wait(self: Box<Self>) -> Result<(), Fault>;

    /// Waits for the end of a run that was submitted timed; says when its steps ran, in their order, or nothing if the
    /// device cannot tell.
    ///
    /// # Errors
    /// As for `wait`.
    fn wait_timed(self: Box<Self>) -> Result<Vec<StepTime>, Fault> {
        self.wait().map(|()| Vec::new())
    }
}

/// What kind of hardware a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceType {
    /// A graphics processor with memory of its own.
    Discrete,
    /// One that shares the processor's memory.
    Integrated,
    /// One of a virtual machine.
    Virtual,
    /// The processor, driven as if it were a graphics processor.
    Cpu,
    /// None of these.
    Other,
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceType::Discrete => "discrete GPU",
            DeviceType::Integrated => "integrated GPU",
            DeviceType::Virtual => "virtual GPU",
            DeviceType::Cpu => "CPU",
            DeviceType::Other => "other",
        })
    }
}

/// A device as it is listed.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Its number in the family.
    pub index: usize,
    /// What its maker calls it.
    pub name: String,
    /// What it is.
    pub device_type: DeviceType,
    /// Bytes of its own memory.
    pub memory: u64,
    /// Further properties in the order to be printed: what, and its value.
    pub properties: Vec<(&'static str, String)>,
}

/// The devices that one crate drives.
pub struct Family {
    /// As in the device names `name` and `name:1`.
    pub name: &'static str,
    /// The devices there are, without opening any.
    pub list: fn() -> Result<Vec<DeviceInfo>, DriverError>,
    /// Opens one.
    pub open: fn(usize) -> Result<Arc<dyn Driver>, DriverError>,
}

/// Every family that is linked into this program.
#[linkme::distributed_slice]
pub static FAMILIES: [Family];
