//! Dropout as a layer.

use tapeflow_core::{Generator, Tensor, default_generator, is_training};

use crate::Module;
use crate::module::Forward;

/// Zeroes elements at random while training, and scales the rest by `1 / (1 − p)`; in evaluation it is the identity.
///
/// Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting"; scaled in training
/// rather than in evaluation, as is common.
///
/// ```
/// use tapeflow_nn::{Dropout, Forward, ModuleExt, Tensor, DType};
/// let (dropout, x) = (Dropout::new(0.5), Tensor::ones([1000], DType::F32));
/// assert_eq!(dropout.eval(|| dropout.forward(&x)).sum().item::<f32>()?, 1000.0);
/// let kept = dropout.train(|| dropout.forward(&x)).to_vec::<f32>()?;
/// assert!(kept.iter().all(|&v| v == 0.0 || v == 2.0));
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Dropout {
    /// The share of elements that are zeroed.
    #[module(skip)]
    pub p: f64,
    /// Where the random numbers come from; the default generator if `None`.
    #[module(skip)]
    pub generator: Option<Generator>,
}

impl Dropout {
    /// Zeroes a share `p` of the elements, 0 ≤ p < 1.
    pub fn new(p: f64) -> Self {
        Dropout { p, generator: None }
    }

    /// With random numbers from a generator of one's own.
    pub fn generator(mut self, generator: &Generator) -> Self {
        self.generator = Some(generator.clone());
        self
    }

    /// Whether it drops anything now: while training, with `p` above 0.
    pub fn is_active(&self) -> bool {
        self.p != 0.0 && is_training()
    }
}

impl Forward for Dropout {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        // With p = 0 nothing is recorded, so that a model without dropout draws no random numbers.
        if !self.is_active() {
            return x.clone();
        }
        match &self.generator {
            Some(generator) => x.dropout(self.p, generator),
            None => x.dropout(self.p, &default_generator()),
        }
    }
}
