//! The core of tapeflow: tensors recorded on a tape, differentiated, fused, planned and run on a worker pool; the
//! reference device; and the scalar engine. It knows no Vulkan and no layers.

extern crate self as tapeflow;

mod autodiff;
mod buffer;
mod capture;
mod compile;
mod counts;
mod cpu;
mod device;
mod dot;
pub mod driver;
mod error;
mod generator;
mod locks;
mod memory;
mod memory_report;
mod ops;
mod parameter;
pub mod pool;
mod precision;
mod profile;
mod program;
mod random;
mod reference;
mod row;
pub mod scalar;
mod slot;
mod tape;
mod tensor;
mod training;

pub use autodiff::{Gradients, grad, grad_with, no_grad};
pub use capture::{CapturedStep, HostCell, Replay, capture, is_capturing, on_replay};
pub use compile::{check_nan, is_checking_nan, mark, planned_bytes, program_cache, without_fusion};
pub use counts::{CacheCounts, cache_counts, tape_nodes};
pub use device::{Device, set_threads};
pub use error::{Error, Problem, Result};
pub use generator::{Generator, default_generator, manual_seed};
pub use half::{bf16, f16};
pub use memory::{reset_memory_peak, set_memory_limit};
pub use memory_report::{KeptTensor, MemoryReport, memory_report};
pub use ops::attention::{attention, cached_attention, causal_attention};
pub use ops::einsum::einsum;
pub use ops::loss::CrossEntropy;
pub use ops::options::{ConvOptions, PerAxis, PoolOptions};
pub use ops::registry;
pub use ops::scan::scan;
pub use parameter::Parameter;
pub use precision::Precision;
pub use profile::{KernelProfile, Profile, Profiler, Roofline, profile};
pub use row::{Lanes, Row, detach, erf};
pub use slot::{Slot, commit};
pub use tape::region::recompute;
pub use tapeflow_ir::DType;
pub use tapeflow_macros::kernel;
pub use tensor::Tensor;
pub use tensor::element::Element;
pub use tensor::shape::{IntoAxes, IntoExtents, IntoRange, Shape};
pub use training::{is_training, with_training};

/// What generated code names; not for use by hand.
#[doc(hidden)]
pub mod __macro {
    pub use crate::ops::kernel::map;
    pub use crate::row::Lanes;
    pub use crate::tape::region::recompute_scope;
    pub use crate::tape::site::{scope, scope_index};
    pub use tapeflow_ir as ir;
}

/// What tests of other crates look through; not for use by hand.
#[doc(hidden)]
pub mod __test {
    pub use crate::compile::dump::dumped;
    pub use crate::compile::key::collide_program_hashes;
    pub use crate::cpu::{Isa, compile as compile_for_cpu};
    pub use crate::locks::locks_taken;
    pub use crate::program::flight::peak as programs_in_flight;
}
