//! The memory report: how much the tensors of this process take, and what an update had to compute although nobody
//! asked. Owns its form; the numbers come from `memory`, the tensors from the update that ran last.

use std::fmt;
use std::sync::Mutex;

use tapeflow_ir::DType;

use crate::locks;
use crate::memory;
use crate::ops::Op;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::shape::Shape;

/// What the host memory of tensors amounts to, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// In buffers that are in use.
    pub live: usize,
    /// The most that was in use at once.
    pub peak: usize,
    /// In blocks kept for the next buffers.
    pub idle: usize,
    /// How often the system was asked for a block.
    pub system_allocations: u64,
    /// What the last update (`step`, `commit`) computed and kept because a handle of it was alive: it depends on the
    /// parameters' old values, and those were about to be overwritten. Dropping the handle first saves its memory.
    pub kept: Vec<KeptTensor>,
}

/// A tensor that an update had to compute first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTensor {
    /// The operation it is the result of.
    pub operation: String,
    /// Of its elements.
    pub dtype: DType,
    /// Its extents.
    pub shape: Shape,
    /// Bytes it takes.
    pub bytes: usize,
    /// File, line and column of the call that recorded it, and the module path.
    pub site: String,
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in tensors, {} at the peak, {} idle", self.live, self.peak, self.idle)?;
        self.kept.iter().try_for_each(|k| {
            write!(f, "\nthe last update kept {} bytes: {} {}{} at {}", k.bytes, k.operation, k.dtype, k.shape, k.site)
        })
    }
}

/// What the host memory of tensors amounts to at the moment.
///
/// # Example
/// ```
/// # use tapeflow_core::{Slot, Tensor, commit, memory_report};
/// let slot = Slot::new(Tensor::from_vec(vec![1.0f32, 2.0], [2]))?;
/// let norm = slot.tensor().square().sum();
/// commit(&[(&slot, slot.tensor() * 0.5)])?;
/// // `norm` is of the old values, so the update computed it before it overwrote them.
/// assert_eq!(memory_report().kept.len(), 1);
/// assert_eq!(norm.item::<f32>()?, 5.0);
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
pub fn memory_report() -> MemoryReport {
    let memory::Totals { live, peak, idle, system_allocations } = memory::totals();
    let last = last();
    let kept = last.iter().map(|(op, ty, site)| KeptTensor {
        operation: op.name().into_owned(),
        dtype: ty.dtype,
        shape: ty.shape.clone(),
        bytes: ty.bytes(),
        site: site.to_string(),
    });
    MemoryReport { live, peak, idle, system_allocations, kept: kept.collect() }
}

type Kept = Vec<(Op, TensorType, Site)>;

static LAST: Mutex<Kept> = Mutex::new(Vec::new());

fn last() -> std::sync::MutexGuard<'static, Kept> {
    locks::lock(&LAST)
}

/// Notes what an update that has run computed besides what it was asked for. Every step comes by here: names are made
/// when somebody asks for the report.
pub(crate) fn note_kept(tensors: impl Iterator<Item = (Op, TensorType, Site)>) {
    let mut last = last();
    last.clear();
    last.extend(tensors);
}
