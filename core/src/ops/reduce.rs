//! Reductions over axes: sum, max, min, and the mean.

use std::borrow::Cow;

use smallvec::SmallVec;
use tapeflow_ir::reduce::{LANES, PIECE};
use tapeflow_ir::{Reduce, Template};

use super::arithmetic::templates;
use super::kernel::KernelOp;
use super::{Primitive, variance};
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Vjp, World};
use crate::error::{Error, Problem};
use crate::precision;
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::{IntoAxes, Shape};

/// A reduction that drops its axes, which are sorted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReduceOp {
    op: Reduce,
    axes: SmallVec<[usize; 6]>,
    /// Whether runs are summed as rows, so that one pass makes this sum and what is around the mean.
    of_rows: bool,
}

/// A run of neighbouring axes at the end of a shape, as one axis.
pub(super) struct Run {
    /// Which of the reduction's axes is its first.
    pub at: usize,
    /// Its first axis.
    pub first: usize,
    /// Its elements.
    pub length: usize,
}

impl ReduceOp {
    pub fn new(op: Reduce, mut axes: SmallVec<[usize; 6]>) -> ReduceOp {
        axes.sort_unstable();
        ReduceOp { op, axes, of_rows: false }
    }

    /// A sum that one pass makes beside the squared deviations over the same axes.
    pub fn beside_deviations(axes: SmallVec<[usize; 6]>) -> ReduceOp {
        ReduceOp { of_rows: true, ..ReduceOp::new(Reduce::Sum, axes) }
    }

    /// The run that is reduced first, if it is a row that a device takes at once.
    pub(super) fn run(&self, shape: &Shape) -> Option<Run> {
        let at = self.last_neighbours();
        let first = *self.axes.get(at)?;
        let length = shape[first..].iter().product();
        let is_row = shape.len() - first == self.axes.len() - at && (LANES..=PIECE).contains(&length);
        is_row.then_some(Run { at, first, length })
    }

    /// What a row function makes of the run, without it.
    pub(super) fn of_run(world: &mut World, run: &Run, function: &'static Template, x: Id) -> Id {
        let shape = world.shape(x)[..run.first].to_vec();
        let with = |length: usize| Shape::from([&shape[..], &[length]].concat());
        let rows = world.reshape(x, with(run.length));
        let ty = world.with_shape(x, with(1));
        let of_rows = world.push(KernelOp::template(function, 0), &[rows], ty);
        world.reshape(of_rows, Shape::from(shape))
    }

    /// The sum over the axes before a run, which is reduced already.
    pub(super) fn before(&self, world: &mut World, run: &Run, x: Id) -> Id {
        let ty = world.ty[x.index()].clone();
        match ReduceOp::new(self.op, self.axes[..run.at].into()) {
            rest if rest.axes.is_empty() => x,
            rest => rest.staged(world, &[x], &ty),
        }
    }

    pub fn shape_of(&self, from: &Shape) -> Shape {
        Shape((0..from.len()).filter(|a| !self.axes.contains(a)).map(|a| from[a]).collect())
    }

    /// Where the last axes begin that are neighbours.
    fn last_neighbours(&self) -> usize {
        let apart = self.axes.windows(2).rposition(|pair| pair[0] + 1 != pair[1]);
        apart.map_or(0, |at| at + 1)
    }

    /// The operand's shape with the reduced axes as 1.
    fn kept_shape(&self, from: &Shape) -> Shape {
        Shape((0..from.len()).map(|a| if self.axes.contains(&a) { 1 } else { from[a] }).collect())
    }
}

impl Primitive for ReduceOp {
    fn name(&self) -> Cow<'static, str> {
        let name = match self.op {
            Reduce::Sum => "sum",
            Reduce::Max => "max",
            Reduce::Min => "min",
        };
        format!("{name} {:?}", &self.axes[..]).into()
    }

    fn widens(&self, _: bool) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    /// Sum: the cotangent repeats. Max and min: it is shared evenly by the elements equal to the extreme.
    fn vjp(&self, cx: &mut Vjp<'_>) {
        let shape = cx.input_shape(0);
        let kept = self.kept_shape(&shape);
        let cotangent = cx.world.reshape(cx.cotangent, kept.clone());
        let value = match self.op {
            Reduce::Sum => cx.world.expand(cotangent, shape),
            Reduce::Max | Reduce::Min => {
                let (x, ty) = (cx.inputs[0], cx.world.ty[cx.inputs[0].index()].clone());
                let extreme = cx.world.reshape(cx.node, kept.clone());
                let hits = cx.world.push(KernelOp::template(templates::EQUALS_AS_FLOAT, 0), &[x, extreme], ty.clone());
                let count = cx.world.sum(hits, self.axes.clone());
                let count = cx.world.reshape(count, kept.clone());
                let kept_ty = TensorType { shape: kept, ..ty.clone() };
                let share = cx.world.push(KernelOp::template(templates::DIV, 0), &[cotangent, count], kept_ty);
                cx.world.push(KernelOp::template(templates::SELECT_EQUAL, 0), &[x, extreme, share], ty)
            }
        };
        cx.contribute(0, value);
    }

    /// A sum over axes that are not neighbours: the last neighbours are summed first, so that all stages but the last
    /// read in the order of memory.
    fn is_staged(&self, _: &World, _: Id) -> bool {
        self.of_rows || self.op == Reduce::Sum && self.last_neighbours() > 0
    }

    fn staged(&self, world: &mut World, inputs: &[Id], _: &TensorType) -> Id {
        if let Some(run) = self.run(world.shape(inputs[0])).filter(|_| self.of_rows) {
            let sums = ReduceOp::of_run(world, &run, variance::RUN_SUM, inputs[0]);
            return self.before(world, &run, sums);
        }
        let (mut rest, mut value) = (self.clone(), inputs[0]);
        loop {
            let last: SmallVec<[usize; 6]> = rest.axes.drain(rest.last_neighbours()..).collect();
            value = world.sum(value, last);
            if rest.axes.is_empty() {
                return value;
            }
        }
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let rank = cx.input_ty(0).shape.len();
        let axes: Vec<usize> = self.axes.to_vec();
        let kept: Vec<usize> = (0..rank).filter(|a| !axes.contains(a)).collect();
        let n = axes.len();
        let is_prefix = axes.iter().enumerate().all(|(i, &a)| a == i);
        let is_suffix = axes.iter().enumerate().all(|(i, &a)| a == rank - n + i);
        let leading = !is_suffix && (is_prefix || kept.last() == Some(&(rank - 1)));
        // A row function can feed a reduction over the rows, nothing else.
        let fits_rows = leading && is_prefix && n + 1 == rank;
        let expr = if fits_rows { cx.expr(0)? } else { cx.movable(0) };
        let in_order: Vec<usize> = if leading { [axes, kept].concat() } else { [kept, axes].concat() };
        let expr = expr.permute(&in_order).ok_or_else(|| Problem::Argument("invariant: permutes".into()))?;
        cx.reduce(expr, self.op, n, leading);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].reduce(self.op, &self.axes, ty))
    }
}

impl Tensor {
    #[track_caller]
    fn reduce(&self, name: &'static str, op: Reduce, axes: impl IntoAxes, keepdim: bool) -> Tensor {
        let site = Site::here();
        let operand = if op == Reduce::Sum { precision::wide(self) } else { Cow::Borrowed(self) };
        match operand.reduce_checked(|axes| ReduceOp::new(op, axes), axes, keepdim, site) {
            Ok(out) => out,
            Err(problem) => Tensor::mistake_in(&[self], Error::new(name, problem, site), self.ty().clone()),
        }
    }

    /// The axes as numbers in order; each once.
    pub(crate) fn axes(&self, axes: impl IntoAxes) -> Result<SmallVec<[usize; 6]>, Problem> {
        let Some(written) = axes.into_axes() else { return Ok((0..self.ndim()).collect()) };
        let mut out = SmallVec::new();
        for axis in written {
            let axis = self.shape().axis(axis)?;
            if out.contains(&axis) {
                return Err(Problem::Argument(format!("axis {axis} is given twice").into()));
            }
            out.push(axis);
        }
        out.sort_unstable();
        Ok(out)
    }

    pub(super) fn reduce_checked(
        &self,
        reduce: impl FnOnce(SmallVec<[usize; 6]>) -> ReduceOp,
        axes: impl IntoAxes,
        keepdim: bool,
        site: Site,
    ) -> Result<Tensor, Problem> {
        let axes = self.axes(axes)?;
        if self.dtype() == tapeflow_ir::DType::Bool {
            let wanted = "numbers (cast a bool to i64 to count)".into();
            return Err(Problem::DType { found: self.dtype(), wanted });
        }
        let empty = axes.iter().any(|&a| self.shape()[a] == 0);
        let reduce = reduce(axes);
        if reduce.op != Reduce::Sum && empty {
            return Err(Problem::Argument(format!("the shape {} has no elements to choose from", self.shape()).into()));
        }
        let (shape, kept) = (reduce.shape_of(self.shape()), reduce.kept_shape(self.shape()));
        let ty = TensorType { shape, ..self.ty().clone() };
        let out = Tensor::record_at(reduce, &[self], ty, site);
        Ok(if keepdim { out.reshape_known(kept, site) } else { out })
    }

    /// The sum of all elements; shape `()`.
    ///
    /// # Numerics
    /// A fixed tree of 16 lanes cut by shape (see [`tapeflow_ir::reduce`]): the same bits for any number of threads.
    #[track_caller]
    pub fn sum(&self) -> Tensor {
        self.reduce("sum", Reduce::Sum, .., false)
    }

    /// The sum over `axes`.
    #[track_caller]
    pub fn sum_dim(&self, axes: impl IntoAxes, keepdim: bool) -> Tensor {
        self.reduce("sum", Reduce::Sum, axes, keepdim)
    }

    /// The largest element; shape `()`. The gradient is shared evenly by equal elements. NaN wins.
    #[track_caller]
    pub fn max(&self) -> Tensor {
        self.reduce("max", Reduce::Max, .., false)
    }

    /// The largest element over `axes`.
    #[track_caller]
    pub fn max_dim(&self, axes: impl IntoAxes, keepdim: bool) -> Tensor {
        self.reduce("max", Reduce::Max, axes, keepdim)
    }

    /// The smallest element; shape `()`. The gradient is shared evenly by equal elements. NaN wins.
    #[track_caller]
    pub fn min(&self) -> Tensor {
        self.reduce("min", Reduce::Min, .., false)
    }

    /// The smallest element over `axes`.
    #[track_caller]
    pub fn min_dim(&self, axes: impl IntoAxes, keepdim: bool) -> Tensor {
        self.reduce("min", Reduce::Min, axes, keepdim)
    }

    /// The mean of all elements; shape `()`. NaN of nothing, as NumPy's.
    #[track_caller]
    pub fn mean(&self) -> Tensor {
        self.mean_dim(.., false)
    }

    /// The mean over `axes`.
    #[track_caller]
    pub fn mean_dim(&self, axes: impl IntoAxes, keepdim: bool) -> Tensor {
        let site = Site::here();
        if !self.dtype().is_float() {
            let problem = Problem::DType { found: self.dtype(), wanted: "a float".into() };
            return Tensor::mistake_in(&[self], Error::new("mean", problem, site), self.ty().clone());
        }
        self.over_count(self.reduce("mean", Reduce::Sum, axes, keepdim))
    }

    /// The mean whose sum this is.
    #[track_caller]
    pub(super) fn over_count(&self, total: Tensor) -> Tensor {
        let count = self.numel() as f64 / total.numel() as f64;
        let count = if total.numel() == 0 { 1.0 } else { count };
        let count = self.number(count);
        super::kernel::map::<1>(templates::DIV, &[&total, &count])[0].clone()
    }
}
