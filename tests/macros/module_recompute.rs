//! Recomputation where nothing would be computed again.

use tapeflow::{Forward, Linear, Module, Tensor};

#[derive(Module)]
#[module(recompute)]
struct ByHand {
    #[module(recompute)]
    inner: Linear,
}

impl Forward for ByHand {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.inner.forward(x)
    }
}

#[derive(Module)]
#[module(forward = |x| used(x))]
struct Uncalled {
    used: Linear,
    #[module(recompute)]
    unused: Linear,
}

fn main() {}
