//! The operations. A primitive is a node's component and has one file with its shape rule, vjp, lowering and reference;
//! everything else is composed of primitives, most of it by `#[kernel]` functions, and has one file or block too.
//!
//! Nothing outside an operation's own file asks which operation a node is: passes go through [`Primitive`].

pub(crate) mod activation;
pub(crate) mod arg_reduce;
pub(crate) mod arithmetic;
pub(crate) mod arrange;
pub(crate) mod attention;
pub(crate) mod barrier;
pub(crate) mod cast;
pub(crate) mod check_index;
pub(crate) mod concat;
pub(crate) mod conv;
pub(crate) mod convolution;
pub(crate) mod cumsum;
pub(crate) mod cut;
pub(crate) mod detach;
pub(crate) mod dropout;
pub(crate) mod einsum;
pub(crate) mod flip;
pub(crate) mod framed;
pub(crate) mod gather;
pub(crate) mod gradient;
pub(crate) mod host;
pub(crate) mod kernel;
pub(crate) mod loss;
pub(crate) mod matmul;
pub(crate) mod movement;
pub(crate) mod norm;
pub(crate) mod options;
pub(crate) mod packed;
pub(crate) mod pad;
pub(crate) mod pool;
pub(crate) mod quantized;
pub(crate) mod reduce;
pub mod registry;
pub(crate) mod scan;
pub(crate) mod slice_assign;
pub(crate) mod softmax;
pub(crate) mod sort;
pub(crate) mod source;
pub(crate) mod to_device;
pub(crate) mod variance;
pub(crate) mod window_max;

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::capture::Origin;
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Ids, Vjp, World};
use crate::error::Problem;
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::shape::Shape;

/// Whether a cotangent of the result reaches an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It does.
    Carries,
    /// It need not: the input only chooses (an index, a condition), or the user said `detach`.
    Stops,
    /// The result depends on the input's value through something without a derivative: an error.
    Severed,
}

/// What the passes ask of an operation.
pub(crate) trait Primitive {
    /// Its name in errors, dumps and profiles.
    fn name(&self) -> Cow<'static, str>;

    /// Whether a cotangent reaches input `input`. An integer carries none, but is followed to the conversion that made
    /// it.
    fn flow(&self, _input: usize, _types: &[&TensorType]) -> Flow {
        Flow::Carries
    }

    /// The operation inside this one at which the cotangent of input `input` is cut off, and where that was recorded,
    /// if it is one inside.
    fn severed_at(&self, _input: usize) -> Option<(Cow<'static, str>, Site)> {
        None
    }

    /// Contributes the cotangents of the inputs.
    fn vjp(&self, _cx: &mut Vjp<'_>) {}

    /// Whether other operations may stand for it in programs.
    fn expands(&self) -> bool {
        false
    }

    /// What computes its result of these inputs, itself or other operations, written out before anything is
    /// differentiated.
    fn expanded(&self, _world: &mut World, _inputs: &[Id], _ty: &TensorType) -> Id {
        unreachable!("invariant: only what `expands` is asked")
    }

    /// Makes an expression or steps of it.
    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem>;

    /// Whether its inputs must lie in memory before it starts.
    fn reads_memory(&self) -> bool {
        false
    }

    /// Whether it only renames or moves its input's elements.
    fn is_view(&self) -> bool {
        false
    }

    /// Whether it computes with what it reads and has no code of its own for half precision: then it is computed in
    /// f32, between conversions that are operations too.
    fn widens(&self, _on_host: bool) -> bool {
        false
    }

    /// Whether backward wants the result kept rather than computed again.
    fn is_saved(&self) -> bool {
        false
    }

    /// A node that computes no more of `node`'s result than these cuts of this shape, if there is such; else it is
    /// computed whole and sliced.
    fn sliced(&self, _world: &mut World, _node: Id, _cuts: &cut::Cuts, _shape: &Shape) -> Option<Id> {
        None
    }

    /// Whether its arithmetic has several stages, each of which other operations make.
    fn is_staged(&self, _world: &World, _node: Id) -> bool {
        false
    }

    /// These operations: what computes its result of these inputs.
    fn staged(&self, _world: &mut World, _inputs: &[Id], _ty: &TensorType) -> Id {
        unreachable!("invariant: only what `is_staged` is asked")
    }

    /// An operation on other inputs that computes what `node` does without needing all that its inputs store.
    fn absorbed(&self, _world: &World, _node: Id) -> Option<(Op, Ids)> {
        None
    }

    /// What the reference device computes.
    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, arguments: &[u64]) -> Result<Array, Problem>;
}

macro_rules! primitives {
    ($($(#[$doc:meta])* $variant:ident($ty:ty)),* $(,)?) => {
        /// The component that says what a node computes. Leaves compute nothing: their buffer is bound.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
        pub(crate) enum Op {
            /// A buffer.
            #[default]
            Leaf,
            $($(#[$doc])* $variant($ty),)*
        }

        impl Op {
            /// The passes' view of it; `None` for leaves.
            pub fn primitive(&self) -> Option<&dyn Primitive> {
                match self {
                    Op::Leaf => None,
                    $(Op::$variant(p) => Some(p),)*
                }
            }
        }

        $(impl From<$ty> for Op {
            fn from(p: $ty) -> Op { Op::$variant(p) }
        })*
    };
}

primitives! {
    /// A scalar or row function applied to elements or rows.
    Kernel(kernel::KernelOp),
    /// Sum, max or min over axes.
    Reduce(reduce::ReduceOp),
    /// Squares of what is around a mean, summed over axes.
    SquaredDeviations(variance::SquaredDeviations),
    /// Reshape, permute, expand, slice.
    Movement(movement::Movement),
    /// Axes reversed.
    Flip(flip::Flip),
    /// Placed among zeros.
    Pad(pad::Pad),
    /// Regions written over.
    SliceAssign(slice_assign::SliceAssign),
    /// Joined along an axis.
    Concat(concat::Concat),
    /// Contraction.
    Matmul(matmul::Matmul),
    /// A product with a weight in eight bits.
    LinearInt8(quantized::LinearInt8),
    /// A product with a weight in panels.
    LinearPacked(packed::LinearPacked),
    /// Attention, as it is recorded.
    Attention(attention::Attention),
    /// In one pass.
    OnePass(attention::OnePass),
    /// Its cotangents.
    OnePassVjp(attention::OnePassVjp),
    /// Contraction of the windows of an image.
    Convolve(convolution::Convolve),
    /// The same of an image among zeros that are not stored.
    Framed(framed::Framed),
    /// The largest of each window.
    WindowMax(window_max::WindowMax),
    /// Rows picked by index.
    Gather(gather::Gather),
    /// Rows added into by index.
    ScatterAdd(gather::ScatterAdd),
    /// Index of an extreme.
    ArgReduce(arg_reduce::ArgReduce),
    /// The order of elements.
    ArgSort(sort::ArgSort),
    /// Running sums.
    CumSum(cumsum::CumSum),
    /// The index itself, once it is known to be in range.
    CheckIndex(check_index::CheckIndex),
    /// A float given by the host.
    Scalar(source::Scalar),
    /// A constant of the program.
    Constant(source::Constant),
    /// Its own index along an axis.
    Iota(source::Iota),
    /// Uniform random numbers.
    Random(source::Random),
    /// The operand without its derivative.
    Detach(detach::Detach),
    /// The operand, once another value is there.
    Barrier(barrier::Barrier),
    /// The operand on another device.
    ToDevice(to_device::ToDevice),
    /// All results of a scan.
    Scan(scan::Scan),
    /// One of them.
    ScanOf(scan::ScanOf),
    /// An operand of a scan's body while that is recorded.
    Placeholder(scan::Placeholder),
    /// All cotangents of one root.
    Gradient(gradient::Gradient),
    /// One of them.
    GradientOf(gradient::GradientOf),
}

/// Values that change from run to run without changing the program: they are bound to slots, and are no part of the
/// key.
pub(crate) type Arguments = SmallVec<[u64; 2]>;

impl Op {
    pub fn name(&self) -> Cow<'static, str> {
        self.primitive().map_or(Cow::Borrowed("leaf"), |p| p.name())
    }

    /// Whether it has a value of its own; what stands for several results has none.
    pub fn has_value(&self) -> bool {
        !matches!(self, Op::Gradient(_) | Op::Scan(_))
    }

    /// The host's values in it.
    pub fn arguments(&self) -> Arguments {
        match self {
            Op::Scalar(s) => s.arguments(),
            Op::Random(r) => r.arguments(),
            Op::Movement(m) => m.arguments(),
            Op::SliceAssign(s) => s.arguments(),
            Op::Scan(s) => s.arguments(),
            _ => Arguments::new(),
        }
    }

    /// Where the host's values come from when a captured program runs again.
    pub fn origins(&self) -> SmallVec<[Origin; 2]> {
        match self {
            Op::Scalar(s) => s.origins(),
            Op::Random(r) => r.origins(),
            Op::Scan(s) => s.origins(),
            Op::SliceAssign(s) => s.origins(),
            Op::Movement(m) => m.origins(),
            _ => SmallVec::new(),
        }
    }

    /// The same operation reading its arguments from slot `first` on.
    pub fn with_slots(&self, first: usize) -> Op {
        match self {
            Op::Scalar(s) => s.with_slot(first).into(),
            Op::Random(r) => r.with_slot(first).into(),
            Op::Movement(m) => m.with_slots(first).into(),
            Op::SliceAssign(s) => s.with_slots(first).into(),
            Op::Scan(s) => s.with_slots(first).into(),
            other => other.clone(),
        }
    }
}
