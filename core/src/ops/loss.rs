//! Losses.

use tapeflow_ir::DType;
use tapeflow_macros::kernel;

use super::check_index::CheckIndex;
use super::kernel::map;
use crate::error::{Error, Problem};
use crate::row::Row;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// `ln Σ eˣ − x[target]`; `picked` is `x` in the target's column and 0 elsewhere.
#[kernel]
fn cross_entropy(x: Row, picked: Row) -> f32 {
    let top = x.max().detach();
    (x - top).exp().sum().ln() + top - picked.sum()
}

/// `x` where the column is the target, which may count from the end.
#[kernel]
fn pick_target(x: f32, column: i64, target: i64, columns: i64) -> f32 {
    let wrapped = if target < 0 { target + columns } else { target };
    if column == wrapped { x } else { 0.0 }
}

impl Tensor {
    /// The mean over all rows of the cross-entropy between softmax of the logits and the target class, in nats.
    ///
    /// # Shapes
    /// logits `(…, C)`, targets `(…)` integers in `0..C` → `()`
    /// # Formula
    /// `mean(ln Σⱼ eˣʲ − x_target)`
    /// # Errors
    /// A target outside the classes is an error of the run, and nothing is updated by that run.
    #[track_caller]
    pub fn cross_entropy(&self, targets: &Tensor) -> Tensor {
        let site = Site::here();
        match self.cross_entropy_rows(targets, site) {
            Ok(rows) => rows.mean(),
            Err(problem) => {
                let ty = TensorType { shape: Shape::default(), ..self.ty().clone() };
                Tensor::mistake_in(&[self, targets], Error::new("cross_entropy", problem, site), ty)
            }
        }
    }

    #[track_caller]
    fn cross_entropy_rows(&self, targets: &Tensor, site: Site) -> Result<Tensor, Problem> {
        let Some((&classes, rows)) = self.shape().split_last() else {
            return Err(Problem::Rank { shape: self.shape().clone(), wanted: 1 });
        };
        if rows != &targets.shape()[..] {
            let shapes = vec![self.shape().clone(), targets.shape().clone()];
            let rule = "the targets must have the logits' shape without its last axis, the classes".into();
            return Err(Problem::Shapes { shapes, rule });
        }
        if !targets.dtype().is_int() || targets.dtype() == DType::U8 {
            return Err(Problem::DType { found: targets.dtype(), wanted: "i32, u32 or i64 as target".into() });
        }
        if !self.dtype().is_float() {
            return Err(Problem::DType { found: self.dtype(), wanted: "f32 or f64 as logits".into() });
        }
        let ty = targets.ty().clone();
        let checked = Tensor::record_at(CheckIndex { extent: classes }, &[targets], ty, site);
        let target = checked.cast(DType::I64).unsqueeze(-1);
        let columns = Tensor::arange_on(classes, DType::I64, self.ty().device);
        let count = Tensor::constant(classes as f64, DType::I64, self.ty().device);
        let [picked] = map(pick_target::TEMPLATE, &[self, &columns, &target, &count]);
        let [loss] = map(cross_entropy::TEMPLATE, &[self, &picked]);
        Ok(loss)
    }

    /// The mean of the squared differences; shapes must be equal.
    #[track_caller]
    pub fn mse_loss(&self, target: &Tensor) -> Tensor {
        if self.shape() != target.shape() {
            let shapes = vec![self.shape().clone(), target.shape().clone()];
            let problem = Problem::Shapes { shapes, rule: "prediction and target must have one shape".into() };
            let ty = TensorType { shape: Shape::default(), ..self.ty().clone() };
            return Tensor::mistake_in(&[self, target], Error::new("mse_loss", problem, Site::here()), ty);
        }
        (self - target).square().mean()
    }
}
