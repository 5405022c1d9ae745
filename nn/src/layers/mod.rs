//! The layers, one per file. A layer is a plain struct of parameters and settings; its weights can be set through its
//! fields.

mod activation;
mod dropout;
mod embedding;
mod layer_norm;
mod linear;
mod sequential;
#[cfg(test)]
mod tests;

pub use activation::{Gelu, Relu, Sigmoid, Silu, Tanh};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use sequential::Sequential;
