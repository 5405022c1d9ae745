//! Activations as layers, for use in [`Sequential`](crate::Sequential); the formulas stand with the tensor operations.

use tapeflow_core::Tensor;

use crate::Module;
use crate::module::Forward;

macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident $operation:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Module)]
        pub struct $name;

        impl Forward for $name {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                x.$operation()
            }
        }
    )*};
}

activations! {
    /// [`Tensor::relu`] as a layer.
    Relu relu;
    /// [`Tensor::gelu`] (tanh form) as a layer.
    Gelu gelu;
    /// [`Tensor::silu`] as a layer.
    Silu silu;
    /// [`Tensor::tanh`] as a layer.
    Tanh tanh;
    /// [`Tensor::sigmoid`] as a layer.
    Sigmoid sigmoid;
}
