//! The Vulkan device against the reference and the CPU: operations, random graphs, training, programs over both
//! devices, what a steady loop adds to any cache, and failures. Where there is no Vulkan device each test says that it
//! was skipped.

#[path = "../elements/mod.rs"]
mod elements;
#[path = "../graphs/mod.rs"]
mod graphs;
#[path = "../operands/mod.rs"]
mod operands;
#[path = "../walk/mod.rs"]
mod walk;

mod conformance;
mod faults;
mod generation;
mod mixed;
mod profile;
mod random_graphs;
mod steady;
mod training;

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tapeflow::Device;
use tapeflow::vulkan::{VulkanDevice, validation_messages};

/// Counters, faults and memory are the process's: one test at a time.
static SERIAL: Mutex<()> = Mutex::new(());

/// The first Vulkan device, for one test alone; at its end the validation layer must have had nothing to say.
struct Vulkan {
    device: Device,
    messages: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Vulkan {
    /// `None` where there is no device, which is said past the test harness, so that it is counted.
    fn open() -> Option<Vulkan> {
        let alone = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
        match Device::vulkan(0) {
            Ok(device) => Some(Vulkan { device, messages: validation_messages(), _alone: alone }),
            Err(why) => {
                let mut out = std::io::stdout().lock();
                let _ = writeln!(out, "skipped: no Vulkan device ({})", why.problem());
                None
            }
        }
    }
}

impl Drop for Vulkan {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(validation_messages(), self.messages, "the validation layer complained");
        }
    }
}
