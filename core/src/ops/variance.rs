//! Sums of squared deviations from the mean, and the variance, which is made of them.

use std::borrow::Cow;

use smallvec::SmallVec;
use tapeflow_ir::{Reduce, Template};
use tapeflow_macros::kernel;

use super::kernel::KernelOp;
use super::reduce::{ReduceOp, Run};
use super::{Flow, Primitive};
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Vjp, World};
use crate::error::{Error, Problem};
use crate::precision;
use crate::reference::Array;
use crate::row::Row;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::{IntoAxes, Shape};

#[kernel]
fn squared_deviation(x: f32, mean: f32) -> f32 {
    (x - mean) * (x - mean)
}

#[kernel]
fn squared_deviation_vjp(x: f32, mean: f32, cotangent: f32) -> f32 {
    (x - mean) * (cotangent + cotangent)
}

#[kernel]
fn run_sum(x: Row) -> f32 {
    x.sum()
}

/// The sum of a row.
pub(super) const RUN_SUM: &Template = run_sum::TEMPLATE;

#[kernel]
fn run_deviations(x: Row) -> f32 {
    let d = x - x.mean();
    (d * d).sum()
}

/// What is left of a row around its mean, which is rounded: without it, that error would not be squared below.
#[kernel]
fn run_residual(x: Row) -> f32 {
    (x - x.mean()).sum()
}

/// The squared deviations of a row of `count` elements from another mean than its own.
#[kernel]
fn moved_deviations(deviations: f32, residual: f32, sum: f32, mean: f32, count: f32) -> f32 {
    let d = sum / count - mean;
    deviations + d * (residual + residual + count * d)
}

/// `Σ (x − μ)²` over axes, which are dropped. Inputs: x, and μ, its mean over these axes, which has them as 1.
///
/// Where the last axes are rows that a device takes at once, each is taken from its own mean, `Σ_r Σ (x − μ_r)² +
/// 2 (μ_r − μ) Σ (x − μ_r) + n (μ_r − μ)²` (Chan, Golub & LeVeque 1983, with the middle term that rounding leaves): x
/// is read once, for its sums too, and nothing is lost to a large mean.
///
/// That μ is the mean is part of the operation: the derivative by it, `−2 Σ (x − μ)`, is zero and is not computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SquaredDeviations {
    axes: SmallVec<[usize; 6]>,
}

impl SquaredDeviations {
    fn sum(&self) -> ReduceOp {
        ReduceOp::new(Reduce::Sum, self.axes.clone())
    }

    fn of_runs(&self, world: &mut World, run: &Run, inputs: &[Id]) -> Id {
        let deviations = ReduceOp::of_run(world, run, run_deviations::TEMPLATE, inputs[0]);
        if run.at == 0 {
            return deviations;
        }
        let residuals = ReduceOp::of_run(world, run, run_residual::TEMPLATE, inputs[0]);
        let sums = ReduceOp::of_run(world, run, RUN_SUM, inputs[0]);
        let mean = world.shape(inputs[1])[..run.first].to_vec();
        let mean = world.reshape(inputs[1], Shape::from(mean));
        let count = world.constant(run.length as f64, world.with_shape(deviations, Shape::default()));
        let (moved, ty) = (KernelOp::template(moved_deviations::TEMPLATE, 0), world.ty[deviations.index()].clone());
        let moved = world.push(moved, &[deviations, residuals, sums, mean, count], ty);
        self.sum().before(world, run, moved)
    }
}

impl Primitive for SquaredDeviations {
    fn name(&self) -> Cow<'static, str> {
        format!("squared deviations {:?}", &self.axes[..]).into()
    }

    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        if input == 0 { Flow::Carries } else { Flow::Stops }
    }

    fn widens(&self, _: bool) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let (x, mean) = (cx.inputs[0], cx.inputs[1]);
        let (shape, kept) = (cx.input_shape(0), cx.input_shape(1));
        let cotangent = cx.world.reshape(cx.cotangent, kept);
        let ty = cx.world.with_shape(x, shape);
        let value = cx.world.push(KernelOp::template(squared_deviation_vjp::TEMPLATE, 0), &[x, mean, cotangent], ty);
        cx.contribute(0, value);
    }

    fn is_staged(&self, _: &World, _: Id) -> bool {
        true
    }

    fn staged(&self, world: &mut World, inputs: &[Id], ty: &TensorType) -> Id {
        if let Some(run) = self.sum().run(world.shape(inputs[0])) {
            return self.of_runs(world, &run, inputs);
        }
        let squares = TensorType { shape: world.shape(inputs[0]).clone(), ..ty.clone() };
        let squares = world.push(KernelOp::template(squared_deviation::TEMPLATE, 0), inputs, squares);
        self.sum().staged(world, &[squares], ty)
    }

    fn lower(&self, _: &mut Lower<'_>) -> Result<(), Problem> {
        unreachable!("invariant: its stages stand for it")
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].squared_deviations(inputs[1], ty).reduce(Reduce::Sum, &self.axes, ty))
    }
}

impl Tensor {
    /// The variance over `axes`: `Σ (x − μ)² / (n − correction)`; `correction` 1 is the unbiased estimate (PyTorch's
    /// default), 0 the population's.
    #[track_caller]
    pub fn var_dim(&self, axes: impl IntoAxes, correction: usize, keepdim: bool) -> Tensor {
        self.var_mean_dim(axes, correction, keepdim).0
    }

    /// The variance over `axes` and the mean, which are made in one pass; see [`Tensor::var_dim`].
    ///
    /// # Errors
    /// Integers, axes that there are not.
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 6.0], [2, 2]);
    /// let (var, mean) = x.var_mean_dim(.., 0, false);
    /// assert_eq!((var.item::<f32>()?, mean.item::<f32>()?), (3.5, 3.0));
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn var_mean_dim(&self, axes: impl IntoAxes, correction: usize, keepdim: bool) -> (Tensor, Tensor) {
        let site = Site::here();
        let mistake = |problem| {
            let mistake = Tensor::mistake_in(&[self], Error::new("var", problem, site), self.ty().clone());
            (mistake.clone(), mistake)
        };
        let axes = match self.axes(axes) {
            Ok(axes) => axes,
            Err(problem) => return mistake(problem),
        };
        if !self.dtype().is_float() {
            return mistake(Problem::DType { found: self.dtype(), wanted: "a float".into() });
        }
        let n: usize = axes.iter().map(|&a| self.shape()[a]).product();
        let x = precision::wide(self);
        let total = match x.reduce_checked(ReduceOp::beside_deviations, &axes[..], true, site) {
            Ok(total) => total,
            Err(problem) => return mistake(problem),
        };
        let mean = x.over_count(total);
        let op = SquaredDeviations { axes };
        let shape = op.sum().shape_of(x.shape());
        let ty = TensorType { shape: shape.clone(), ..x.ty().clone() };
        let total = Tensor::record_at(op, &[&x, &mean], ty, site);
        let var = |total: Tensor| total / (n as f64 - correction as f64).max(0.0);
        match keepdim {
            true => (var(total.reshape_known(mean.shape().clone(), site)), mean),
            false => (var(total), mean.reshape_known(shape, site)),
        }
    }

    /// The variance of all elements; see [`Tensor::var_dim`].
    #[track_caller]
    pub fn var(&self, correction: usize) -> Tensor {
        self.var_dim(.., correction, false)
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, grad};

    /// Of a mean a thousand times the deviation: what one loses that squares before it subtracts.
    #[test]
    fn a_large_mean_costs_no_digits() {
        let deviation = |i: usize| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 8.0;
        for shape in [[5, 3, 4, 8], [5, 3, 1, 8], [1, 3, 64, 80], [9, 1, 3, 7]] {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| 4096.0 + deviation(i)).collect();
            let x = Tensor::from_vec(values, shape);
            let (var, mean) = x.var_mean_dim([0, 2, 3], 0, false);
            let (exact, exact_mean) = x.cast(DType::F64).var_mean_dim([0, 2, 3], 0, false);
            let off = |a: Tensor, b: Tensor| {
                let (a, b) = (a.cast(DType::F64).to_vec::<f64>().unwrap(), b.to_vec::<f64>().unwrap());
                a.into_iter().zip(b).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max)
            };
            assert!(off(var, exact) < 2e-6 && off(mean, exact_mean) < 1e-6, "{shape:?}");
        }
    }

    /// The mean's share of the derivative is zero, but not that of the derivative's derivative.
    #[test]
    fn second_derivatives_see_the_mean() -> Result<(), crate::Error> {
        let x = Tensor::from_vec(vec![1.0f64, 2.0, 4.0, 9.0], [2, 2]);
        // Σ (∂ var / ∂x)² = Σ (2 (x − μ) / n)² = 4 var / n, so its derivative is 8 (x − μ) / n².
        let gradient = &grad(&x.var(0), &[&x])?[0];
        let second = grad(&gradient.square().sum(), &[&x])?[0].to_vec::<f64>()?;
        let expected = [1.0, 2.0, 4.0, 9.0].map(|x| 8.0 * (x - 4.0) / 16.0);
        assert!(second.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{second:?}");
        Ok(())
    }
}
