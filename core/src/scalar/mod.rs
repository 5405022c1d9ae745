//! The scalar engine: reverse-mode differentiation one number at a time, and a small network made of it.
//! After micrograd (Karpathy 2020). Owns its graph of [`Value`]s; knows no tensors, tape, kernels or threads, so that
//! it can serve as an independent oracle for all of them.
//!
//! ```
//! use tapeflow_core::scalar::{Activation, Mlp, Random, Value};
//!
//! # fn main() -> Result<(), tapeflow_core::scalar::WrongInputs> {
//! let model = Mlp::new(&[2, 4, 1], Activation::Tanh, Activation::Linear, &mut Random::new(1));
//! let xor = [([0.0, 0.0], 0.0), ([0.0, 1.0], 1.0), ([1.0, 0.0], 1.0), ([1.0, 1.0], 0.0)];
//! let mut loss = Value::new(0.0);
//! for _ in 0..500 {
//!     loss = Value::new(0.0);
//!     for (x, y) in xor {
//!         loss += (&model.forward(&x.map(Value::new))?[0] - y).powf(2.0);
//!     }
//!     model.zero_grad();
//!     loss.backward();
//!     for parameter in model.parameters() {
//!         parameter.set_data(parameter.data() - 0.1 * parameter.grad());
//!     }
//! }
//! assert!(loss.data() < 1e-3);
//! # Ok(())
//! # }
//! ```

mod dot;
mod mlp;
mod op;
mod operators;
mod random;
mod value;

#[cfg(test)]
mod tests;

pub use mlp::{Activation, Layer, Mlp, Neuron, WrongInputs};
pub use random::Random;
pub use value::Value;
