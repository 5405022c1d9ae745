//! The Vulkan device of tapeflow: kernels become SPIR-V, programs become command buffers. The only crate that names
//! vulkano.
//!
//! From the environment it takes `TAPEFLOW_VULKAN_MEMORY` (bytes that a device may hold), `TAPEFLOW_VULKAN_TIMEOUT`
//! (seconds that a run may take before the device counts as lost; 60, and 600 where the device is a processor) and
//! `TAPEFLOW_VALIDATE=1` (the validation layer, with synchronization validation; what it says goes to `tracing`).

mod context;
mod counts;
mod device;
mod driver;
mod fault;
mod instance;
mod listing;
mod memory;
mod pipeline;
mod program;
pub mod spirv;
pub mod stage;
mod timeline;
mod transfer;

pub use context::set_memory_limit;
#[doc(hidden)]
pub use counts::{Counts, counts};
pub use device::VulkanDevice;
pub use driver::VULKAN;
#[doc(hidden)]
pub use driver::{Compiled, Driver, Options};
#[doc(hidden)]
pub use fault::{Fault, clear, inject};
#[doc(hidden)]
pub use instance::validation_messages;
#[doc(hidden)]
pub use memory::ranges::Ranges;
