//! Models on tapeflow, one per file, and how tokens are sampled from them.

// Generated code names `::tapeflow::…`; `tapeflow-nn` has all that it needs.
extern crate tapeflow_nn as tapeflow;

pub mod gpt;
mod mlp;
mod sampling;
#[cfg(test)]
mod tests;

pub use gpt::{Gpt, GptConfig};
pub use mlp::Mlp;
pub use sampling::Sampler;
