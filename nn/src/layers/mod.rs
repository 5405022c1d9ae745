//! The layers, one per file. A layer is a plain struct of parameters and settings; its weights can be set through its
//! fields.

mod activation;
mod attention;
mod batch_norm;
mod conv;
mod dropout;
mod embedding;
mod group_norm;
#[cfg(test)]
mod image_tests;
mod layer_norm;
mod linear;
mod pool;
mod recurrent;
mod rms_norm;
mod sequential;
#[cfg(test)]
mod tests;

pub use activation::{Gelu, Relu, Sigmoid, Silu, Tanh};
pub use attention::{AttentionMask, MultiheadAttention};
pub use batch_norm::{BatchNorm1d, BatchNorm2d};
pub use conv::{Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use group_norm::GroupNorm;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use pool::{AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, Flatten, MaxPool1d, MaxPool2d, Upsample};
pub use recurrent::{Gru, Lstm, Nonlinearity, Rnn};
pub use rms_norm::RmsNorm;
pub use sequential::Sequential;
