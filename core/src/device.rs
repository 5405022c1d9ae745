//! Devices: where tensors live and programs run. Owns their names, the drivers that have been opened, and the thread's
//! choice for new tensors.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, RwLock};

use crate::driver::{DeviceInfo, DeviceType, Driver, DriverError, FAMILIES, Family};
use crate::error::{Error, Problem, Result};
use crate::locks;
use crate::tape::site::Site;

/// Where a tensor lives. A cheap name; the device itself is opened when it is first asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device(pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Cpu,
    Reference,
    /// Of a driver: the number under which it was opened.
    Driven(u16),
}

/// A driver that was opened, under the name `family:index`.
struct Opened {
    family: &'static str,
    index: usize,
    driver: Arc<dyn Driver>,
}

static OPENED: RwLock<Vec<Opened>> = RwLock::new(Vec::new());

/// The driver of a device, if it has one.
pub(crate) fn driver(kind: Kind) -> Option<Arc<dyn Driver>> {
    let Kind::Driven(number) = kind else { return None };
    let opened = locks::read(&OPENED);
    opened.get(usize::from(number)).map(|o| o.driver.clone())
}

/// What a driver's error is to the user.
pub(crate) fn problem(kind: Kind, error: DriverError) -> Problem {
    match error {
        DriverError::Memory { needed, purpose, reason } => Problem::Memory { needed, purpose, reason },
        DriverError::Run(error) => Problem::Run(error),
        DriverError::Unsupported(reason) => Problem::Unsupported { device: Device(kind).to_string(), reason },
        error => Problem::Device { device: Device(kind).to_string(), reason: error.to_string() },
    }
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

/// The devices of one family: its name, and what there is or why there is nothing.
pub type Listed = (&'static str, Result<Vec<DeviceInfo>, DriverError>);

impl Device {
    /// The processor: fused kernels over the worker pool.
    pub fn cpu() -> Device {
        Device(Kind::Cpu)
    }

    /// The oracle: evaluates one operation at a time, f32 carried in f64 inside an operation. Slow, for tests.
    pub fn reference() -> Device {
        Device(Kind::Reference)
    }

    /// The fastest device of this machine: the graphics processor with the most memory, else the processor.
    ///
    /// # Errors
    /// A graphics processor that is there and cannot be opened. That there is none, or no driver for it, is no error.
    #[track_caller]
    pub fn best() -> Result<Device> {
        let rank = |info: &DeviceInfo| (info.device_type == DeviceType::Discrete, info.memory);
        let found = Device::list().into_iter().flat_map(|(family, devices)| {
            // A processor that is driven as if it were a graphics processor is slower than the processor itself.
            let real = devices.unwrap_or_default().into_iter().filter(|d| d.device_type != DeviceType::Cpu);
            real.map(move |info| (family, info))
        });
        match found.max_by_key(|(_, info)| rank(info)) {
            Some((family, info)) => Device::open(family, info.index),
            None => Ok(Device::cpu()),
        }
    }

    /// Every device that can be opened by name, besides the processor.
    pub fn list() -> Vec<Listed> {
        FAMILIES.iter().map(|family| (family.name, (family.list)())).collect()
    }

    /// The device `index` of a family of drivers. Opening it again gives the same device, unless it was lost meanwhile.
    ///
    /// # Errors
    /// There is no such device, or what it takes to reach it is missing; the message says what.
    #[track_caller]
    pub fn open(family: &str, index: usize) -> Result<Device> {
        let site = Site::here();
        let refused = |reason: String| {
            let device = format!("{family}:{index}");
            Error::new("open", Problem::Device { device, reason }, site)
        };
        let mut opened = locks::write(&OPENED);
        let last = opened.iter().rposition(|o| o.family == family && o.index == index);
        if let Some(last) = last.filter(|&at| opened[at].driver.lost().is_none()) {
            return Ok(Device(Kind::Driven(last as u16)));
        }
        let Some(Family { name, open, .. }) = FAMILIES.iter().find(|f| f.name == family) else {
            return Err(refused(format!("this program has no driver for {family}")));
        };
        let number = u16::try_from(opened.len()).map_err(|_| refused("too many devices were lost".into()))?;
        let driver = open(index).map_err(|e| refused(e.to_string()))?;
        opened.push(Opened { family: name, index, driver });
        Ok(Device(Kind::Driven(number)))
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

    /// Where this thread's new tensors live.
    pub fn current() -> Device {
        CURRENT.get()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Cpu => f.write_str("cpu"),
            Kind::Reference => f.write_str("reference"),
            Kind::Driven(number) => {
                let opened = locks::read(&OPENED);
                match opened.get(usize::from(number)) {
                    Some(o) => write!(f, "{}:{}", o.family, o.index),
                    None => f.write_str("unknown"),
                }
            }
        }
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    /// `cpu`, `best`, or a family's name with or without the number of a device: `name`, `name:1`.
    fn from_str(name: &str) -> Result<Device, String> {
        match name {
            "cpu" => return Ok(Device::cpu()),
            "reference" => return Ok(Device::reference()),
            "best" => return Device::best().map_err(|e| e.problem().to_string()),
            _ => {}
        }
        let (family, index) = name.split_once(':').unwrap_or((name, "0"));
        let known = FAMILIES.iter().any(|f| f.name == family);
        let index = index.parse().ok().filter(|_| known).ok_or_else(|| {
            let families = FAMILIES.iter().map(|f| format!(", {0}, {0}:1", f.name)).collect::<String>();
            format!("unknown device `{name}`: known are cpu, reference, best{families}")
        })?;
        Device::open(family, index).map_err(|e| e.problem().to_string())
    }
}
