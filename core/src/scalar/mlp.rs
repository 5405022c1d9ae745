//! A multi-layer perceptron of scalar values.
//! Owns neurons, layers and their composition; knows no training.

use super::random::Random;
use super::value::Value;

/// What a neuron does to its weighted sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `tanh(x)`
    Tanh,
    /// `max(x, 0)`
    Relu,
    /// `x`
    Linear,
}

/// A network was given too few or too many inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a layer of {expected} inputs was given {found}")]
pub struct WrongInputs {
    /// As many as the layer has weights per neuron.
    pub expected: usize,
    /// As many as it was given.
    pub found: usize,
}

/// `activation(w · x + b)`
#[derive(Clone, Debug)]
pub struct Neuron {
    /// One per input.
    pub weights: Vec<Value>,
    /// Added to the weighted sum.
    pub bias: Value,
    /// Applied to it.
    pub activation: Activation,
}

/// Neurons that see the same inputs.
#[derive(Clone, Debug)]
pub struct Layer {
    /// One per output.
    pub neurons: Vec<Neuron>,
}

/// Layers one after another.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// From the inputs to the outputs.
    pub layers: Vec<Layer>,
}

impl Neuron {
    /// A neuron with weights uniform in [-1, 1) and no bias, as in micrograd.
    pub fn new(inputs: usize, activation: Activation, random: &mut Random) -> Neuron {
        let weights = (0..inputs).map(|_| Value::new(random.uniform(-1.0, 1.0))).collect();
        Neuron { weights, bias: Value::new(0.0), activation }
    }

    /// The output.
    ///
    /// # Errors
    /// [`WrongInputs`] unless there is one input per weight.
    pub fn forward(&self, inputs: &[Value]) -> Result<Value, WrongInputs> {
        let (expected, found) = (self.weights.len(), inputs.len());
        if expected != found {
            return Err(WrongInputs { expected, found });
        }
        let products = self.weights.iter().zip(inputs).map(|(weight, input)| weight * input);
        let sum = products.fold(self.bias.clone(), |sum, product| sum + product);
        Ok(match self.activation {
            Activation::Tanh => sum.tanh(),
            Activation::Relu => sum.relu(),
            Activation::Linear => sum,
        })
    }

    /// The weights, then the bias.
    pub fn parameters(&self) -> impl Iterator<Item = &Value> {
        self.weights.iter().chain([&self.bias])
    }
}

impl Layer {
    /// As many neurons as outputs.
    pub fn new(inputs: usize, outputs: usize, activation: Activation, random: &mut Random) -> Layer {
        Layer { neurons: (0..outputs).map(|_| Neuron::new(inputs, activation, random)).collect() }
    }

    /// One output per neuron.
    ///
    /// # Errors
    /// As for [`Neuron::forward`].
    pub fn forward(&self, inputs: &[Value]) -> Result<Vec<Value>, WrongInputs> {
        self.neurons.iter().map(|neuron| neuron.forward(inputs)).collect()
    }
}

impl Mlp {
    /// A perceptron with layers between neighbouring sizes: `&[2, 4, 1]` has two inputs, four hidden neurons, one
    /// output.
    ///
    /// ```
    /// use tapeflow_core::scalar::{Activation, Mlp, Random, Value};
    ///
    /// # fn main() -> Result<(), tapeflow_core::scalar::WrongInputs> {
    /// let model = Mlp::new(&[3, 4, 2], Activation::Relu, Activation::Linear, &mut Random::new(7));
    /// assert_eq!(model.parameters().len(), (3 + 1) * 4 + (4 + 1) * 2);
    /// assert_eq!(model.forward(&[1.0, 2.0, 3.0].map(Value::new))?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(sizes: &[usize], hidden: Activation, last: Activation, random: &mut Random) -> Mlp {
        let layers = sizes.windows(2).enumerate().map(|(index, pair)| {
            let activation = if index + 2 == sizes.len() { last } else { hidden };
            Layer::new(pair[0], pair[1], activation, random)
        });
        Mlp { layers: layers.collect() }
    }

    /// The last layer's outputs.
    ///
    /// # Errors
    /// As for [`Neuron::forward`].
    pub fn forward(&self, inputs: &[Value]) -> Result<Vec<Value>, WrongInputs> {
        self.layers.iter().try_fold(inputs.to_vec(), |values, layer| layer.forward(&values))
    }

    /// All weights and biases, layer by layer, neuron by neuron.
    pub fn parameters(&self) -> Vec<Value> {
        let neurons = self.layers.iter().flat_map(|layer| &layer.neurons);
        neurons.flat_map(Neuron::parameters).cloned().collect()
    }

    /// Forgets the gradients of all parameters.
    pub fn zero_grad(&self) {
        self.parameters().iter().for_each(Value::zero_grad);
    }
}
