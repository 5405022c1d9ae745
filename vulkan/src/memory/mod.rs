//! Device memory: blocks taken from the driver and cut into ranges. Knows neither programs nor tensors.

pub(crate) mod heap;
pub(crate) mod kinds;
pub mod ranges;

pub(crate) use heap::{Heap, Range};
pub(crate) use kinds::Kinds;
