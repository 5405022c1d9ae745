//! Models on tapeflow, one per file, and how tokens are generated with them.

// Generated code names `::tapeflow::…`; `tapeflow-nn` has all that it needs.
extern crate tapeflow_nn as tapeflow;

mod decode;
mod generate;
pub mod gpt;
#[cfg(test)]
mod images_tests;
mod kv_cache;
mod lenet;
mod mlp;
pub mod pretrained;
pub mod resnet;
mod sampling;
#[cfg(test)]
mod tests;

pub use generate::{GenerateOptions, Generation, TextDecoder, TextGeneration, Tokens};
pub use gpt::{Gpt, GptConfig};
pub use kv_cache::KvCache;
pub use lenet::LeNet;
pub use mlp::Mlp;
pub use resnet::ResNet20;
pub use sampling::Sampler;
