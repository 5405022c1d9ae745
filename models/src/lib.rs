//! Models on tapeflow, one per file, and how tokens are sampled from them.

// Generated code names `::tapeflow::…`; `tapeflow-nn` has all that it needs.
extern crate tapeflow_nn as tapeflow;

pub mod gpt;
mod lenet;
mod mlp;
pub mod resnet;
mod sampling;
#[cfg(test)]
mod tests;

pub use gpt::{Gpt, GptConfig};
pub use lenet::LeNet;
pub use mlp::Mlp;
pub use resnet::ResNet20;
pub use sampling::Sampler;
