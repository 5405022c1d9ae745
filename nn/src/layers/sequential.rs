//! Layers one after the other.

use tapeflow_core::Tensor;

use crate::module::{Forward, Layer, Module, Visitor};

/// Layers one after the other: a tuple of them, a list of one kind, or a list of boxes of any kinds.
///
/// Paths are the indices alone: `0.weight`, `2.bias`.
///
/// ```
/// use tapeflow_nn::{Forward, Gelu, Layer, Linear, ModuleExt, Sequential, Tensor, DType};
/// let net = Sequential((Linear::new(4, 8)?, Gelu, Linear::new(8, 2)?));
/// assert_eq!(net.forward(&Tensor::zeros([5, 4], DType::F32)).shape().to_vec(), [5, 2]);
///
/// let mut layers: Vec<Box<dyn Layer>> = vec![Box::new(Linear::new(4, 8)?)];
/// layers.push(Box::new(Gelu));
/// assert_eq!(Sequential(layers).named_parameters()[0].0, "0.weight");
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Sequential<T = Vec<Box<dyn Layer>>>(pub T);

impl<T: Module> Module for Sequential<T> {
    fn visit(&self, visitor: &mut dyn Visitor) {
        self.0.visit(visitor);
    }
}

impl<T: Forward> Forward for Sequential<T> {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.0.forward(x)
    }
}
