//! Softmax and its logarithm: row kernels along one axis.

use tapeflow_ir::Template;
use tapeflow_macros::kernel;

use super::kernel::map;
use crate::error::Error;
use crate::row::Row;
use crate::tape::site::Site;
use crate::tensor::Tensor;

/// The largest is subtracted so that nothing overflows; it cancels, so its derivative is left out.
#[kernel]
fn softmax(x: Row) -> Row {
    let e = (x - x.max().detach()).exp();
    e / e.sum()
}

/// Along the last axis, for what is composed of it inside a world.
pub(crate) const SOFTMAX: &Template = softmax::TEMPLATE;

#[kernel]
fn log_softmax(x: Row) -> Row {
    let d = x - x.max().detach();
    d - d.exp().sum().ln()
}

impl Tensor {
    #[track_caller]
    fn along(&self, name: &'static str, axis: isize, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
        match self.shape().axis(axis) {
            Ok(axis) if axis + 1 == self.ndim() => f(self),
            Ok(axis) => f(&self.transpose(axis as isize, -1)).transpose(axis as isize, -1),
            Err(problem) => Tensor::mistake_in(&[self], Error::new(name, problem, Site::here()), self.ty().clone()),
        }
    }

    /// `eˣ / Σ eˣ` along `axis`.
    #[track_caller]
    pub fn softmax(&self, axis: isize) -> Tensor {
        self.along("softmax", axis, |x| {
            let [out] = map(softmax::TEMPLATE, &[x]);
            out
        })
    }

    /// `ln(softmax(x))` along `axis`, without the loss of precision.
    #[track_caller]
    pub fn log_softmax(&self, axis: isize) -> Tensor {
        self.along("log_softmax", axis, |x| {
            let [out] = map(log_softmax::TEMPLATE, &[x]);
            out
        })
    }
}
