//! Recurrent networks: layers of cells, run forwards and backwards through time by `scan`.
//!
//! `stack` owns the layers, directions, weights and states that all have in common; a cell's file owns its formula.

mod gru;
mod lstm;
mod rnn;
mod stack;
#[cfg(test)]
mod tests;

pub use gru::Gru;
pub use lstm::Lstm;
pub use rnn::{Nonlinearity, Rnn};

/// The constructor and the settings of a recurrent network, which are the same for all but for what it is `of`;
/// `$gates`: rows of a weight per hidden value.
macro_rules! recurrent {
    ($name:ident, $gates:literal) => {
        impl $name {
            /// One layer, forwards in time, initialised as PyTorch does it with the default generator: all weights and
            /// biases uniform in ±1/√hidden.
            ///
            /// # Errors
            /// If there is no memory for it.
            pub fn new(inputs: usize, hidden: usize) -> $crate::Result<Self> {
                Self::drawn(inputs, hidden, 1, false, &tapeflow_core::default_generator())
            }

            /// Several layers, in both directions if wanted, drawn from a generator of one's own.
            ///
            /// # Errors
            /// If there is no memory for it.
            pub fn drawn(
                inputs: usize,
                hidden: usize,
                layers: usize,
                bidirectional: bool,
                generator: &tapeflow_core::Generator,
            ) -> $crate::Result<Self> {
                let sizes = super::stack::Sizes { inputs, hidden, layers, bidirectional, gates: $gates };
                Ok(Self::of(super::stack::Stack::drawn(sizes, generator)?))
            }

            /// Keeps the biases, or takes them away.
            pub fn bias(mut self, wanted: bool) -> Self {
                self.stack.bias(wanted);
                self
            }

            /// Drops elements of every layer's output but the last one's while training.
            pub fn dropout(mut self, dropout: $crate::Dropout) -> Self {
                self.stack.dropout = dropout;
                self
            }
        }

        impl $crate::Module for $name {
            fn visit(&self, visitor: &mut dyn $crate::Visitor) {
                self.stack.visit(visitor);
            }
        }

        impl $crate::Forward for $name {
            /// The outputs from a state of zeros: `(B, T, inputs)` → `(B, T, D · hidden)`.
            #[track_caller]
            fn forward(&self, x: &tapeflow_core::Tensor) -> tapeflow_core::Tensor {
                self.run(x, None).0
            }
        }
    };
}

use recurrent;
