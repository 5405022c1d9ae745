//! Neural networks on tapeflow: modules and layers, initialisers, optimizers, schedules, data, checkpoints.
//!
//! Stands on `tapeflow-core`'s tensors and knows neither tape nor passes nor devices' insides; models live in
//! `tapeflow-models`.

// Generated code names `::tapeflow::…`; inside this crate that is this crate.
extern crate self as tapeflow;

pub mod chart;
pub mod checkpoint;
pub mod data;
mod ema;
pub mod error;
pub mod files;
pub mod init;
mod layers;
pub mod metrics;
mod module;
pub mod optim;
pub mod progress;
pub mod schedule;
pub mod tokenizer;
mod trainer;

pub use ema::Ema;
pub use error::{Error, Result};
pub use layers::{
    AdaptiveAvgPool2d, AttentionMask, AvgPool1d, AvgPool2d, BatchNorm1d, BatchNorm2d, Conv1d, Conv2d, ConvTranspose1d,
    ConvTranspose2d, Dropout, Embedding, Flatten, Gelu, GroupNorm, Gru, LayerNorm, Linear, Lstm, MaxPool1d, MaxPool2d,
    MultiheadAttention, Nonlinearity, Relu, RmsNorm, Rnn, Sequential, Sigmoid, Silu, Tanh, Upsample,
};
pub use module::{Buffer, Forward, Layer, Leaf, Module, ModuleExt, Pattern, Place, Summary, SummaryRow, Visitor, Vjp};
pub use optim::{Adam, AdamW, LossScaler, Optimizer, Sgd};
/// The error of the tensor engine alone, which [`Error`] wraps.
pub use tapeflow_core::Error as TensorError;
// A glob, so that a name that core gains is there at once; what this crate names itself goes before it.
#[allow(hidden_glob_reexports)]
pub use tapeflow_core::*;
pub use tapeflow_macros::{Module, kernel};
pub use trainer::{Step, Trainer};

/// What generated code names; not for use by hand.
#[doc(hidden)]
pub mod __macro {
    pub use tapeflow_core::__macro::*;

    use crate::{Gradients, Result, Tensor};

    /// The backward side of a forward with several inputs: their cotangents, and the gradients of the parameters.
    #[track_caller]
    pub fn vjp(
        inputs: &[&Tensor],
        cotangent: &Tensor,
        forward: impl FnOnce(&[Tensor]) -> Tensor,
    ) -> Result<(Vec<Tensor>, Gradients)> {
        let (cotangents, _, gradients) = crate::module::isolate(inputs, cotangent, forward)?;
        Ok((cotangents, gradients))
    }
}
