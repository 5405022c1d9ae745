//! What a step computes, described without a device: the language between the compiler and the devices.
//! Owns the descriptions and the interface of a compiled kernel; knows no tape, no worlds, no threads.

use std::fmt;

use smallvec::SmallVec;
use tapeflow_ir::{DType, Reduce, ScalarFn};

pub use super::attention::{Attention, AttentionVjp, Mask};
pub use super::contraction::{Matmul, PANEL};
pub use super::convolution::{Convolution, ConvolutionPart, Sliding};
pub use super::windows::{WindowAxis, Windows, WindowsPart};

/// Extents or indices, one per axis.
pub type Dims = SmallVec<[usize; 6]>;
/// Strides in elements, one per axis.
pub type Strides = SmallVec<[isize; 6]>;

/// Where the elements of an iteration space lie in an operand; in elements, not bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Of the element at index (0, …, 0), but for the `shifts`.
    pub offset: isize,
    /// What the host adds to the offset when the program runs.
    pub shifts: Shifts,
    /// One per axis of the space; 0 where the element is repeated.
    pub strides: Strides,
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}+{}", &self.strides[..], self.offset)?;
        self.shifts.iter().try_for_each(|s| write!(f, "+s{}*{}", s.slot, s.stride))
    }
}

/// The part of an offset that is known when a program runs: where a slice starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shift {
    /// `Args::scalars[slot]` is the start, as plain u64.
    pub slot: usize,
    /// Elements per unit of the start.
    pub stride: isize,
}

/// Usually none.
pub type Shifts = SmallVec<[Shift; 1]>;

impl Layout {
    /// The offset with these arguments of the host.
    pub fn offset_with(&self, scalars: &[u64]) -> isize {
        self.offset + shift(&self.shifts, scalars)
    }
}

/// What `shifts` add to an offset.
pub fn shift(shifts: &[Shift], scalars: &[u64]) -> isize {
    shifts.iter().map(|s| scalars[s.slot] as isize * s.stride).sum()
}

/// Where one parameter of a group's function comes from, as a function of the index in the group's space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An operand's elements.
    Operand {
        /// Its number in the step's operand list.
        operand: usize,
        /// Which element at which index.
        layout: Layout,
    },
    /// One float given by the host when the program runs; `Args::scalars[slot]` holds the bits of an f64.
    Scalar {
        /// Its slot.
        slot: usize,
    },
    /// The integer `offset + Σ index·stride`, as i64.
    Iota(Layout),
    /// A uniform f32 in [0, 1) made from word `offset + Σ index·stride` of a Philox stream (see `random.rs`);
    /// `Args::scalars[slot]` is the seed, `[slot + 1]` the counter, as plain u64.
    Random {
        /// The seed's slot.
        slot: usize,
        /// Which stream of the program this is.
        ordinal: u32,
        /// Which word of the stream at which index.
        layout: Layout,
    },
}

/// Where one result of a group's function goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    /// Its number in the step's operand list.
    pub operand: usize,
    /// How it gets there.
    pub kind: OutputKind,
}

/// How a group's result is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OutputKind {
    /// Element by element. If the value's extent is `Row`, the last stride is 0 and the value is written once per row.
    Store(Layout),
    /// The last `axes` axes of the space are reduced; the result is contiguous over the axes before them.
    ReduceTrailing(Reduce, usize),
    /// The first `axes` axes of the space are reduced; the result is contiguous over the axes after them.
    ReduceLeading(Reduce, usize),
}

/// One fused loop nest: for every index of `space`, `outputs ← function(inputs)`.
///
/// If the function reduces (a row kernel), a row is the last axis of the space; parameters of extent `Row` have
/// stride 0 along it. All outputs of a function with row reductions are `Store`s or `ReduceLeading`s.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// The iteration space; may have zero axes (one element) or zero elements.
    pub space: Dims,
    /// Simplified and verified.
    pub function: ScalarFn,
    /// One per parameter of the function.
    pub inputs: Vec<Source>,
    /// One per output of the function.
    pub outputs: Vec<Output>,
}

impl Group {
    /// How many operands it has.
    pub fn operands(&self) -> usize {
        let inputs = self.inputs.iter().map(|source| match source {
            Source::Operand { operand, .. } => operand + 1,
            _ => 0,
        });
        inputs.chain(self.outputs.iter().map(|output| output.operand + 1)).max().unwrap_or(0)
    }
}

/// `out[i, j, l] = data[i, index[…], l]`: rows picked along one axis. Operands 0 data, 1 index (i32, u32 or i64), 2
/// out; data is contiguous `(outer, extent, inner)`. An index outside `-extent..extent` is a [`RunError`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gather {
    /// Of data and out.
    pub dtype: DType,
    /// Of the index.
    pub index_dtype: DType,
    /// Product of the axes before the axis.
    pub outer: usize,
    /// Of the axis in data.
    pub extent: usize,
    /// Product of the axes after it.
    pub inner: usize,
    /// How many indices.
    pub picks: usize,
    /// `false`: one list of `picks` indices for all (embedding, index_select), index is contiguous `(picks,)`.
    /// `true`: NumPy's take_along_axis, index is contiguous `(outer, picks, inner)`.
    pub along: bool,
}

/// The transpose of [`Gather`]: `out[i, index[…], l] += data[i, j, l]`, out zeroed first. Each destination row is owned
/// by one chunk, which adds its sources in index order, so the bits do not depend on threads. Operands 0 data, 1 index,
/// 2 out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScatterAdd(pub Gather);

/// Index of the first largest (or smallest) element along the last axis of contiguous `(rows, length)`, as i64. A NaN
/// wins. Operands 0 → 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArgReduce {
    /// Of the data.
    pub dtype: DType,
    /// `true` for argmax.
    pub max: bool,
    /// How many rows.
    pub rows: usize,
    /// Of each row; at least 1.
    pub length: usize,
}

/// Along the last axis of contiguous `(rows, length)`: for each rank the index of the element that has it, as i64.
/// Equal elements keep their order; a NaN is larger than everything else. Operands 0 → 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArgSort {
    /// Of the data.
    pub dtype: DType,
    /// Whether the largest comes first.
    pub descending: bool,
    /// How many rows.
    pub rows: usize,
    /// Of each row.
    pub length: usize,
}

/// Sums up to and including each element along the last axis of contiguous `(rows, length)`, added in order.
/// Operands 0 → 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CumSum {
    /// Of the data and the sums; not bool.
    pub dtype: DType,
    /// How many rows.
    pub rows: usize,
    /// Of each row.
    pub length: usize,
}

/// Checks that every index lies in `-extent..extent`; writes nothing. Operand 0, contiguous.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckIndex {
    /// i32, u32 or i64.
    pub dtype: DType,
    /// How many.
    pub count: usize,
    /// The bound.
    pub extent: usize,
}

/// `y[i, j] = scales[j] · Σₖ x[i, k] · (codes[j, k] − 128)`: a product with a weight in eight bits. Operands 0 x, f32
/// `(m, k)`, 1 codes, u8 `(n, k)`, 2 scales, f32 `(n,)`, 3 y, f32 `(m, n)`, all contiguous. For the CPU alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinearInt8 {
    /// Rows of x.
    pub m: usize,
    /// Rows of the weight.
    pub n: usize,
    /// Of each row.
    pub k: usize,
}

/// A product, groups that make operands of it, line by line when a block of the result needs them, and groups that go
/// on with what it makes, block by block while that is in the caches. For the CPU alone.
///
/// The operands are the product's, but for those that are made; then, for each group that makes one, what it reads;
/// then those of each group that goes on. A group's own numbers begin at 0. Each group of the epilogue reads of what
/// was made before it, the product's result or another group's, every element at its own index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fused {
    /// What is made of other operands when it is read: scaled, masked, activated, brought to another dtype.
    pub prologue: Vec<Made>,
    /// A contraction, perhaps with a weight in eight bits.
    pub product: Box<Kernel>,
    /// What follows: bias, activation, residual, the normalisation of rows, sums of columns.
    pub epilogue: Vec<Group>,
}

/// An operand that lies nowhere as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Made {
    /// Its number among the product's operands.
    pub operand: usize,
    /// What makes it, as if it were stored in order; that is the last of its own operands.
    pub group: Group,
}

/// A step's computation.
// A program has few, and each is made once: the largest may be large.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// A fused loop nest.
    Group(Group),
    /// Groups that neither read nor write each other's results, run as one step: the updates of all parameters. The
    /// operands are those of each group, one group after the other; a group's own numbers begin at 0.
    Groups(Vec<Group>),
    /// A contraction.
    Matmul(Matmul),
    /// A contraction with a weight in eight bits.
    LinearInt8(LinearInt8),
    /// A contraction with a prologue, an epilogue, or both.
    Fused(Fused),
    /// A convolution; only the host takes it, in f32 and f64: elsewhere it is a contraction.
    Convolution(Convolution),
    /// Attention.
    Attention(Attention),
    /// Its cotangents.
    AttentionVjp(AttentionVjp),
    /// Windows beside each other; only the host takes them, in f32 and f64.
    Windows(Windows),
    /// Rows picked.
    Gather(Gather),
    /// Rows added into.
    ScatterAdd(ScatterAdd),
    /// argmax, argmin.
    ArgReduce(ArgReduce),
    /// The order of elements.
    ArgSort(ArgSort),
    /// Running sums.
    CumSum(CumSum),
    /// A check that must pass before anything is updated.
    CheckIndex(CheckIndex),
}

impl Kernel {
    /// Whether it can find a bad index in the data.
    pub fn is_fallible(&self) -> bool {
        matches!(self, Kernel::CheckIndex(_) | Kernel::Gather(_) | Kernel::ScatterAdd(_))
    }
}

/// What can go wrong while a program runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// An index beyond its axis.
    #[error("index {index} is out of range for an axis of {extent}")]
    Index {
        /// As found in the data.
        index: i64,
        /// Of the axis.
        extent: usize,
    },
    /// A kernel panicked: a broken invariant of tapeflow itself.
    #[error("a kernel panicked: {0}")]
    Panic(String),
}

/// What a kernel is given when it runs.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    /// One address per operand; 64-byte aligned buffers of the planned size.
    pub operands: &'a [*mut u8],
    /// Values given by the host, as bits.
    pub scalars: &'a [u64],
    /// `Executable::partial_bytes` bytes, shared by the chunks of this step, 64-byte aligned.
    pub partial: *mut u8,
}

/// A kernel compiled for a device: chunks that may run at once on any threads, then one `finish`.
///
/// The cut into chunks depends on shapes alone, never on the number of threads, and every chunk writes what no other
/// writes.
pub trait Executable: Send + Sync + fmt::Debug {
    /// How many chunks; may be 0 when there is nothing to do.
    fn chunks(&self) -> usize;
    /// Bytes of scratch a thread needs to run a chunk (or `finish`), 64-byte aligned.
    fn scratch_bytes(&self) -> usize;
    /// Bytes shared by the chunks and `finish` (partial sums).
    fn partial_bytes(&self) -> usize {
        0
    }
    /// An estimate in nanoseconds of all chunks on one thread; the scheduler runs cheap programs inline.
    fn cost(&self) -> u64;
    /// Whether `prepare` has anything to do.
    fn has_prepare(&self) -> bool {
        false
    }
    /// Runs once, before all chunks.
    ///
    /// # Safety
    /// As for `run_chunk`, for all that chunks share.
    unsafe fn prepare(&self, _args: &Args<'_>) {}
    /// Runs one chunk.
    ///
    /// # Safety
    /// Operands are as the description says; nobody else reads or writes this chunk's outputs meanwhile.
    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError>;
    /// Whether `finish` has anything to do.
    fn has_finish(&self) -> bool {
        false
    }
    /// Runs once, after all chunks.
    ///
    /// # Safety
    /// As for `run_chunk`, for all outputs.
    unsafe fn finish(&self, _args: &Args<'_>, _scratch: &mut [u8]) -> Result<(), RunError> {
        Ok(())
    }
}
