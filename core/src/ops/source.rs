//! Operations without tensor inputs: host floats, constants, indices, random numbers.
//! They cost no memory: groups that read them make the values in place.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use smallvec::{SmallVec, smallvec};
use tapeflow_ir::{DType, Op as ScalarOp, ScalarFn};

use super::host::Host;
use super::{Arguments, Primitive};
use crate::capture::{HostCell, Origin};
use crate::compile::fuse::{Expr, ExprSource, Lower, identity_fn, lane};
use crate::error::Problem;
use crate::generator::Stream;
use crate::program::kernel::{Dims, Layout, Shifts};
use crate::reference::Array;
use crate::tape::TensorType;

/// A float given by the host: a learning rate, the 0.5 of `x * 0.5`. Shape `()`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scalar(Host<Number>);

/// A number that was given, or that is asked for at every run.
#[derive(Clone, Debug)]
enum Number {
    Given(f64),
    Cell(HostCell),
}

impl Scalar {
    pub fn new(value: f64) -> Scalar {
        Scalar(Host::Value(Number::Given(value)))
    }

    pub fn cell(cell: &HostCell) -> Scalar {
        Scalar(Host::Value(Number::Cell(cell.clone())))
    }

    pub fn arguments(&self) -> Arguments {
        match &self.0 {
            Host::Value(Number::Given(v)) => Arguments::from_slice(&[v.to_bits()]),
            Host::Value(Number::Cell(cell)) => Arguments::from_slice(&[cell.get().to_bits()]),
            Host::Slot(_) => Arguments::new(),
        }
    }

    pub fn origins(&self) -> SmallVec<[Origin; 2]> {
        match &self.0 {
            Host::Value(Number::Cell(cell)) => smallvec![Origin::Cell(cell.clone())],
            _ => smallvec![Origin::Fixed],
        }
    }

    pub fn with_slot(&self, slot: usize) -> Scalar {
        Scalar(Host::Slot(slot))
    }
}

impl Primitive for Scalar {
    fn name(&self) -> Cow<'static, str> {
        "scalar".into()
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let mut function = identity_fn(lane(ty.dtype.computed()));
        if ty.dtype.is_half() {
            function = cast_after(function, ty.dtype);
        }
        cx.defer(Expr::new(Dims::new(), function, vec![ExprSource::Scalar { slot: self.0.slot() }]));
        Ok(())
    }

    fn evaluate(&self, _: &[&Array], ty: &TensorType, arguments: &[u64]) -> Result<Array, Problem> {
        let value = f64::from_bits(arguments[self.0.slot()]);
        Ok(Array::fill(ty, value))
    }
}

/// One value everywhere, part of the program: zeros, ones, a mask's fill, integers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Constant(u64);

impl Constant {
    pub fn new(value: f64) -> Constant {
        Constant(value.to_bits())
    }
}

impl Primitive for Constant {
    fn name(&self) -> Cow<'static, str> {
        format!("constant {}", f64::from_bits(self.0)).into()
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let function = constant_fn(ty.dtype, f64::from_bits(self.0));
        cx.defer(Expr::new(Dims::from_slice(&ty.shape), function, Vec::new()));
        Ok(())
    }

    fn evaluate(&self, _: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(Array::fill(ty, f64::from_bits(self.0)))
    }
}

/// The function without parameters that gives `value`.
pub(crate) fn constant_fn(dtype: DType, value: f64) -> ScalarFn {
    let mut b = tapeflow_ir::Builder::new();
    let v = match dtype {
        DType::Bool => b.bool(value != 0.0),
        d if d.is_int() => b.int(d, value as i64),
        d => b.float(d, value),
    };
    b.finish(&[v])
}

/// The index along one axis, as i64.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Iota {
    pub axis: usize,
}

impl Primitive for Iota {
    fn name(&self) -> Cow<'static, str> {
        format!("iota {}", self.axis).into()
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let mut strides = smallvec::smallvec![0isize; ty.shape.len()];
        strides[self.axis] = 1;
        let source = ExprSource::Iota(Layout { offset: 0, shifts: Shifts::new(), strides });
        cx.defer(Expr::new(Dims::from_slice(&ty.shape), identity_fn(lane(DType::I64)), vec![source]));
        Ok(())
    }

    fn evaluate(&self, _: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        let axis = self.axis;
        Ok(Array::from_fn(ty, |index| index[axis] as f64))
    }
}

/// Uniform numbers in [0, 1), a function of (seed, counter) and the element's position. Each recording has a counter of
/// its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Random {
    draw: Host<Draw>,
    /// Which of several draws from one stream it is: each step of a scan has its own.
    ordinal: u32,
}

/// A stream, and the counter that the next one is taken from.
#[derive(Clone, Debug)]
struct Draw {
    stream: Stream,
    counter: Arc<AtomicU64>,
}

impl Random {
    pub fn new(stream: Stream, counter: Arc<AtomicU64>) -> Random {
        Random { draw: Host::Value(Draw { stream, counter }), ordinal: 0 }
    }

    /// The same stream in step `ordinal` of a scan.
    pub fn drawn_in(self, ordinal: u32) -> Random {
        Random { ordinal, ..self }
    }

    pub fn origins(&self) -> SmallVec<[Origin; 2]> {
        match &self.draw {
            Host::Value(draw) => smallvec![Origin::Fixed, Origin::Counter(draw.counter.clone())],
            Host::Slot(_) => SmallVec::new(),
        }
    }

    pub fn arguments(&self) -> Arguments {
        match &self.draw {
            Host::Value(draw) => Arguments::from_slice(&[draw.stream.seed, draw.stream.counter]),
            Host::Slot(_) => Arguments::new(),
        }
    }

    pub fn with_slot(&self, slot: usize) -> Random {
        Random { draw: Host::Slot(slot), ordinal: self.ordinal }
    }
}

impl Primitive for Random {
    fn name(&self) -> Cow<'static, str> {
        "random".into()
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let layout = Layout::contiguous(&ty.shape);
        let source = ExprSource::Random { slot: self.draw.slot(), ordinal: self.ordinal, layout };
        let mut function = identity_fn(lane(DType::F32));
        if ty.dtype != DType::F32 {
            function = cast_after(function, ty.dtype);
        }
        cx.defer(Expr::new(Dims::from_slice(&ty.shape), function, vec![source]));
        Ok(())
    }

    fn evaluate(&self, _: &[&Array], ty: &TensorType, arguments: &[u64]) -> Result<Array, Problem> {
        let slot = self.draw.slot();
        let stream = Stream { seed: arguments[slot], counter: arguments[slot + 1] };
        let mut word = 0u64;
        Ok(Array::from_fn(ty, |_| {
            word += 1;
            f64::from(stream.uniform(self.ordinal, word - 1))
        }))
    }
}

fn cast_after(function: ScalarFn, dtype: DType) -> ScalarFn {
    let mut b = tapeflow_ir::Builder::new();
    let args: Vec<_> = function.inputs.iter().map(|&t| b.input(t)).collect();
    let out = b.inline(&function, &args);
    let cast = b.cast(out[0], dtype);
    debug_assert!(matches!(function.values[0].0, ScalarOp::Input(_)));
    b.finish(&[cast])
}
