//! Devices: where tensors live and programs run. Owns their names and the thread's choice for new tensors.

use std::cell::Cell;
use std::fmt;

use crate::error::{Error, Problem, Result};
use crate::tape::site::Site;

/// Where a tensor lives. A cheap name; the device itself is opened when it is first used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device(pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Cpu,
    Reference,
}

/// Computes on `threads` threads from now on, the calling one included; 0 for as many as the machine can run at once.
/// Results do not depend on it.
///
/// # Errors
/// The operating system refuses a thread; the number then stays as it was.
#[track_caller]
pub fn set_threads(threads: usize) -> Result<()> {
    let refused = |e| Problem::Setting(format!("{threads} threads cannot be started: {e}"));
    crate::pool::set_threads(threads).map_err(|e| Error::new("set_threads", refused(e), Site::here()))
}

thread_local! {
    static CURRENT: Cell<Device> = const { Cell::new(Device(Kind::Cpu)) };
}

impl Device {
    /// The processor: fused kernels over the worker pool.
    pub fn cpu() -> Device {
        Device(Kind::Cpu)
    }

    /// The oracle: evaluates one operation at a time, f32 carried in f64 inside an operation. Slow, for tests.
    pub fn reference() -> Device {
        Device(Kind::Reference)
    }

    /// The fastest device of this machine.
    ///
    /// # Errors
    /// None today: the CPU is always there.
    pub fn best() -> Result<Device> {
        Ok(Device::cpu())
    }

    /// New tensors of this thread live on this device while `f` runs.
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> T {
        struct Restore(Device);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        f()
    }

    pub(crate) fn current() -> Device {
        CURRENT.get()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Cpu => "cpu",
            Kind::Reference => "reference",
        })
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(name: &str) -> Result<Device, String> {
        match name {
            "cpu" => Ok(Device::cpu()),
            "reference" => Ok(Device::reference()),
            _ => Err(format!("unknown device `{name}`: known are cpu, reference")),
        }
    }
}
