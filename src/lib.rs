//! tapeflow: a macro-driven, ECS-like dataflow runtime for deep learning.
//!
//! Plain structs become modules, plain scalar functions become differentiable kernels; what is computed is recorded on
//! a tape, fused, planned and run on a worker pool. This crate is the facade: it re-exports the others and owns nothing
//! itself.
//!
//! ```
//! use tapeflow::prelude::*;
//!
//! #[derive(Module)]
//! #[module(forward = |x| out(hidden(x).tanh()))]
//! struct Xor {
//!     hidden: Linear,
//!     out: Linear,
//! }
//!
//! let generator = Generator::new(1);
//! let model = Xor { hidden: Linear::drawn(2, 8, &generator)?, out: Linear::drawn(8, 1, &generator)? };
//! let inputs = Tensor::from_vec(vec![0f32, 0., 0., 1., 1., 0., 1., 1.], [4, 2]);
//! let targets = Tensor::from_vec(vec![0f32, 1., 1., 0.], [4, 1]);
//! let mut optimizer = Adam::new(&model).learning_rate(0.05);
//! for _ in 0..500 {
//!     let loss = model.forward(&inputs).mse_loss(&targets);
//!     optimizer.step(loss.backward()?)?;
//! }
//! assert!(model.forward(&inputs).mse_loss(&targets).item::<f32>()? < 1e-3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use tapeflow_models as models;
pub use tapeflow_nn::*;
#[cfg(feature = "vulkan")]
pub use tapeflow_vulkan as vulkan;

/// What generated code names; not for use by hand.
#[doc(hidden)]
pub use tapeflow_nn::__macro;

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The names that most programs use.
pub mod prelude {
    #[cfg(feature = "vulkan")]
    pub use tapeflow_vulkan::VulkanDevice;

    pub use tapeflow_models::{GenerateOptions, Gpt, GptConfig, KvCache, LeNet, Mlp, ResNet20};
    pub use tapeflow_nn::data::{DataLoader, Dataset};
    pub use tapeflow_nn::{
        Adam, AdamW, BatchNorm2d, Conv2d, ConvOptions, DType, Device, Dropout, Embedding, Flatten, Forward, Gelu,
        Generator, Gradients, Gru, LayerNorm, Linear, LossScaler, Lstm, MaxPool2d, Module, ModuleExt,
        MultiheadAttention, Optimizer, Parameter, PoolOptions, Precision, Relu, RmsNorm, Rnn, Row, Sequential, Sgd,
        Shape, Sigmoid, Silu, Tanh, Tensor, causal_attention, grad, kernel, no_grad,
    };
}
