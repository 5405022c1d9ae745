//! Losses.

use tapeflow_ir::DType;
use tapeflow_macros::kernel;

use super::activation::softplus;
use super::check_index::CheckIndex;
use super::kernel::map;
use crate::error::{Error, Problem};
use crate::precision;
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

#[kernel]
fn smoothed(x: Row, picked: Row, share: f32) -> f32 {
    let top = x.max().detach();
    (x - top).exp().sum().ln() + top - (1.0 - share) * picked.sum() - share * x.mean()
}

/// `ln(1 + eˣ) − t x`
#[kernel]
fn bce_with_logits(x: f32, t: f32) -> f32 {
    softplus(x) - t * x
}

#[kernel]
fn smooth_l1(x: f32, t: f32, beta: f32) -> f32 {
    let d = (x - t).abs();
    if d < beta { 0.5 * d * d / beta } else { d - 0.5 * beta }
}

/// How [`Tensor::cross_entropy_with`] counts; PyTorch's names.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    /// The share of the target that is spread evenly over all classes; 0 for none.
    pub label_smoothing: f64,
    /// Rows with this target do not count.
    pub ignore_index: Option<i64>,
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
            Err(problem) => self.no_loss("cross_entropy", targets, problem, site),
        }
    }

    /// One loss per row.
    #[track_caller]
    fn cross_entropy_rows(&self, targets: &Tensor, site: Site) -> Result<Tensor, Problem> {
        let picked = self.pick_targets(targets, site)?;
        let [loss] = map(cross_entropy::TEMPLATE, &[self, &picked]);
        Ok(loss)
    }

    /// The logits where the column is the row's target, 0 elsewhere; the targets are checked when the program runs.
    #[track_caller]
    fn pick_targets(&self, targets: &Tensor, site: Site) -> Result<Tensor, Problem> {
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
            return Err(Problem::DType { found: self.dtype(), wanted: "floats as logits".into() });
        }
        let ty = targets.ty().clone();
        let checked = Tensor::record_at(CheckIndex { extent: classes }, &[targets], ty, site);
        let target = checked.cast(DType::I64).unsqueeze(-1);
        let columns = Tensor::arange_on(classes, DType::I64, self.ty().device);
        let count = Tensor::constant(classes as f64, DType::I64, self.ty().device);
        let [picked] = map(pick_target::TEMPLATE, &[self, &columns, &target, &count]);
        Ok(picked)
    }

    /// [`cross_entropy`](Tensor::cross_entropy) with label smoothing and with targets that do not count.
    ///
    /// # Shapes
    /// logits `(…, C)`, targets `(…)` integers in `0..C`, or `ignore_index` → `()`
    /// # Formula
    /// Per row `ln Σⱼ eˣʲ − (1 − ε) x_target − ε mean(x)`, Szegedy et al. 2015, arXiv:1512.00567; the mean is over the
    /// rows that count (NaN if none does), as PyTorch's.
    /// # Errors
    /// A label smoothing outside `0..=1`; a target outside the classes is an error of the run.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::{CrossEntropy, Tensor};
    /// let logits = Tensor::from_vec(vec![1.0f32, 3.0, 0.0, 0.0], [2, 2]);
    /// let targets = Tensor::from_vec(vec![1i64, -100], [2]);
    /// let options = CrossEntropy { ignore_index: Some(-100), ..CrossEntropy::default() };
    /// let loss = logits.cross_entropy_with(&targets, &options).item::<f32>()?;
    /// assert!((loss - 0.126928).abs() < 1e-5);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn cross_entropy_with(&self, targets: &Tensor, options: &CrossEntropy) -> Tensor {
        let site = Site::here();
        let made = (|| {
            let share = options.label_smoothing;
            if !(0.0..=1.0).contains(&share) {
                return Err(Problem::Argument(format!("label smoothing {share} does not lie in 0..=1").into()));
            }
            let counts = options.ignore_index.map(|ignored| targets.ne(&targets.number(ignored as f64)));
            // What does not count is looked up in class 0.
            let present = match &counts {
                Some(counts) => &counts.where_(targets, &targets.zeros_like()),
                None => targets,
            };
            let picked = self.pick_targets(present, site)?;
            let rows = match share == 0.0 {
                true => {
                    let [rows] = map(cross_entropy::TEMPLATE, &[self, &picked]);
                    rows
                }
                false => {
                    let [rows] = map(smoothed::TEMPLATE, &[self, &picked, &self.number(share)]);
                    rows
                }
            };
            Ok(match counts {
                Some(counts) => {
                    let kept = counts.where_(&rows, &rows.zeros_like());
                    kept.sum() / counts.cast(rows.dtype()).sum()
                }
                None => rows.mean(),
            })
        })();
        made.unwrap_or_else(|problem| self.no_loss("cross_entropy_with", targets, problem, site))
    }

    /// The mean of `−x_target` over all rows: the negative log-likelihood of log-probabilities.
    ///
    /// # Shapes
    /// log-probabilities `(…, C)`, targets `(…)` integers in `0..C` → `()`
    /// # Errors
    /// A target outside the classes is an error of the run, and nothing is updated by that run.
    #[track_caller]
    pub fn nll_loss(&self, targets: &Tensor) -> Tensor {
        let site = Site::here();
        match self.pick_targets(targets, site) {
            Ok(picked) => -picked.sum_dim(-1, false).mean(),
            Err(problem) => self.no_loss("nll_loss", targets, problem, site),
        }
    }

    /// The mean of `−t ln σ(x) − (1 − t) ln(1 − σ(x))`, without overflow; shapes must be equal, targets lie in 0..=1.
    #[track_caller]
    pub fn bce_with_logits(&self, target: &Tensor) -> Tensor {
        self.mean_of("bce_with_logits", target, |x, t| {
            let [loss] = map(bce_with_logits::TEMPLATE, &[x, t]);
            loss
        })
    }

    /// The mean of the absolute differences; shapes must be equal.
    #[track_caller]
    pub fn l1_loss(&self, target: &Tensor) -> Tensor {
        self.mean_of("l1_loss", target, |x, t| (x - t).abs())
    }

    /// The mean of `½ d²/β` where the difference `|d| < β`, and of `|d| − ½ β` elsewhere; shapes must be equal.
    /// Girshick 2015, arXiv:1504.08083.
    ///
    /// # Errors
    /// A `β` that is not above 0.
    #[track_caller]
    pub fn smooth_l1_loss(&self, target: &Tensor, beta: f64) -> Tensor {
        if beta.is_nan() || beta <= 0.0 {
            let problem = Problem::Argument(format!("beta {beta} is not above 0").into());
            return self.no_loss("smooth_l1_loss", target, problem, Site::here());
        }
        self.mean_of("smooth_l1_loss", target, |x, t| {
            let [loss] = map(smooth_l1::TEMPLATE, &[x, t, &x.number(beta)]);
            loss
        })
    }

    /// The mean of the squared differences; shapes must be equal.
    #[track_caller]
    pub fn mse_loss(&self, target: &Tensor) -> Tensor {
        self.mean_of("mse_loss", target, |x, t| (x - t).square())
    }

    #[track_caller]
    fn mean_of(&self, name: &'static str, target: &Tensor, f: impl Fn(&Tensor, &Tensor) -> Tensor) -> Tensor {
        if self.shape() != target.shape() {
            let shapes = vec![self.shape().clone(), target.shape().clone()];
            let problem = Problem::Shapes { shapes, rule: "prediction and target must have one shape".into() };
            return self.no_loss(name, target, problem, Site::here());
        }
        f(&precision::wide(self), &precision::wide(target)).mean()
    }

    fn no_loss(&self, name: &'static str, target: &Tensor, problem: Problem, site: Site) -> Tensor {
        let ty = TensorType { shape: Shape::default(), ..self.ty().clone() };
        Tensor::mistake_in(&[self, target], Error::new(name, problem, site), ty)
    }
}
