//! The affine map.

use tapeflow_core::{Generator, Parameter, Precision, Tensor, default_generator};

use crate::Module;
use crate::error::Result;
use crate::init;
use crate::module::Forward;

/// `y = x Wᵀ + b` over the last axis.
///
/// # Shapes
/// `x: (…, inputs)`, `weight: (outputs, inputs)`, `bias: (outputs,)` → `(…, outputs)`
///
/// ```
/// use tapeflow_nn::{Forward, Linear, Tensor};
/// let layer = Linear::new(3, 2)?.bias(false);
/// layer.weight.set(&Tensor::from_vec(vec![1.0f32, 0.0, 0.0, 0.0, 1.0, 1.0], [2, 3]))?;
/// let y = layer.forward(&Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [1, 3]));
/// assert_eq!(y.to_vec::<f32>()?, [1.0, 5.0]);
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Linear {
    /// `(outputs, inputs)`
    pub weight: Parameter,
    /// `(outputs,)`
    pub bias: Option<Parameter>,
}

impl Linear {
    /// Initialised as PyTorch does it, with the default generator: weight and bias uniform in ±1/√inputs.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(inputs: usize, outputs: usize) -> Result<Self> {
        Self::drawn(inputs, outputs, &default_generator())
    }

    /// The same from a generator of one's own.
    ///
    /// # Formula
    /// The weight by [`init::kaiming_uniform`] with a = √5, which makes its bound 1/√inputs; the bias uniform in
    /// ±1/√inputs.
    /// # Errors
    /// If there is no memory for it.
    pub fn drawn(inputs: usize, outputs: usize, generator: &Generator) -> Result<Self> {
        let bound = 1.0 / (inputs.max(1) as f64).sqrt();
        let weight = init::kaiming_uniform([outputs, inputs], 5f64.sqrt(), generator);
        Self::from_tensors(weight, Some(init::uniform([outputs], -bound, bound, generator)))
    }

    /// From values of one's own: a weight `(outputs, inputs)` and perhaps a bias `(outputs,)`.
    ///
    /// # Errors
    /// What computing them reports.
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        Ok(Linear { weight: Parameter::new(weight)?, bias: bias.map(Parameter::new).transpose()? })
    }

    /// Keeps the bias, or takes it away.
    pub fn bias(mut self, wanted: bool) -> Self {
        self.bias = self.bias.filter(|_| wanted);
        self
    }
}

impl Forward for Linear {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.weight.linear(x);
        match &self.bias {
            // Converted before it is added: the result of a product stays of its precision.
            Some(bias) => y + Precision::current().operand(&bias.tensor()),
            None => y,
        }
    }
}
