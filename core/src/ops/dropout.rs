//! Dropout. Srivastava et al. 2014. The mask is made from its counter wherever it is needed and costs no memory.

use tapeflow_ir::DType;
use tapeflow_macros::kernel;

use super::kernel::map;
use crate::error::{Error, Problem};
use crate::generator::Generator;
use crate::tape::site::Site;
use crate::tensor::Tensor;

#[kernel]
fn dropout(x: f32, uniform: f32, p: f32) -> f32 {
    if uniform >= p { x / (1.0 - p) } else { 0.0 }
}

impl Tensor {
    /// Sets each element to zero with probability `p` and divides the others by `1 − p`, always; layers ask whether
    /// they train.
    ///
    /// # Errors
    /// `p` outside `0..1`.
    #[track_caller]
    pub fn dropout(&self, p: f64, generator: &Generator) -> Tensor {
        if !(0.0..1.0).contains(&p) {
            let problem = Problem::Argument(format!("the probability {p} must be at least 0 and below 1").into());
            return Tensor::mistake_in(&[self], Error::new("dropout", problem, Site::here()), self.ty().clone());
        }
        if p == 0.0 {
            return self.clone();
        }
        if self.dtype().is_half() {
            // The numbers drawn must not be rounded so far that they reach 1.
            return self.cast(DType::F32).dropout(p, generator).cast(self.dtype());
        }
        let uniform = generator.uniform_on(self.shape().clone(), self.dtype(), self.ty().device);
        let [out] = map(dropout::TEMPLATE, &[self, &uniform, &self.number(p)]);
        out
    }
}
