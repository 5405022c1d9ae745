//! Parameters change while readers, views, other optimizers and other threads look on: old versions stay what they
//! were, and a step that fails changes nothing.

mod gradients;
mod steps;
mod threads;
mod versions;

use tapeflow::prelude::*;
use tapeflow::{Error, Problem, Result};

#[derive(Module)]
struct Point {
    w: Parameter,
}

impl Point {
    fn new(values: &[f64]) -> Point {
        Point { w: Parameter::new(Tensor::from_slice(values, [values.len()])).unwrap() }
    }

    /// Σ w², whose gradient is 2 w.
    fn loss(&self) -> Tensor {
        self.w.tensor().square().sum()
    }

    fn values(&self) -> Vec<f64> {
        self.w.tensor().to_vec().unwrap()
    }
}

fn mlp(seed: u64) -> Mlp {
    Mlp::new(&[3, 8, 2], Tensor::tanh, &Generator::new(seed)).unwrap()
}

/// Inputs and targets that differ from step to step.
fn batch(step: u64, rows: usize) -> (Tensor, Tensor) {
    let generator = Generator::new(1000 + step);
    (generator.randn([rows, 3]), generator.rand([rows, 2]))
}

const GPT: GptConfig =
    GptConfig { block_size: 8, vocab_size: 13, n_layer: 2, n_head: 2, n_embd: 16, dropout: 0.0, bias: true };

fn gpt(seed: u64) -> Gpt {
    Gpt::new(&GPT, &Generator::new(seed)).unwrap()
}

fn tokens(step: u64, shift: i64) -> Tensor {
    Tensor::from_vec((0..24).map(|i| (i * i + shift + step as i64) % 13).collect(), [3, 8])
}

fn gpt_step(model: &Gpt, optimizer: &mut AdamW, step: u64) -> Result<()> {
    let loss = model.loss(&tokens(step, 0), &tokens(step, 1));
    let (gradients, _) = loss.backward()?.clip_norm(1.0);
    optimizer.step(gradients)
}

/// The bits of tensors by name; no handle of them is left.
fn bits(state: Vec<(String, Tensor)>) -> Vec<(String, Vec<u8>)> {
    state.into_iter().map(|(name, t)| (name, t.with_bytes(<[u8]>::to_vec).unwrap())).collect()
}
