//! Causal attention at the size of nanoGPT's "baby" model: batch 4, 6 heads, 256 positions of 64.

use tapeflow::prelude::*;
use tapeflow::{Result, grad_with};

use crate::harness::{Bench, Floor};

const SHAPE: [usize; 4] = [4, 6, 256, 64];

/// Products of the visible half of queries by keys: two forward, five backward.
fn products(count: usize) -> Floor {
    let [batch, heads, places, width] = SHAPE;
    Floor::operations((count * batch * heads * places * (places + 1) / 2 * width * 2) as f64)
}

pub fn forward(bench: &mut Bench, name: &str) -> Result<()> {
    let [q, k, v, _] = inputs()?;
    no_grad(|| bench.ms(name, products(2), || causal_attention(&q, &k, &v).realize(), &[]))
}

/// With the gradients of queries, keys and values.
pub fn backward(bench: &mut Bench, name: &str) -> Result<()> {
    let [q, k, v, cotangent] = inputs()?;
    bench.ms(
        name,
        products(7),
        || {
            let y = causal_attention(&q, &k, &v);
            let gradients = grad_with(&y, Some(&cotangent), &[&q, &k, &v])?;
            Tensor::realize_all(&gradients.iter().collect::<Vec<_>>())
        },
        &[],
    )
}

fn inputs() -> Result<[Tensor; 4]> {
    let generator = Generator::new(0);
    let inputs = [(); 4].map(|()| generator.randn(SHAPE));
    Tensor::realize_all(&inputs.each_ref())?;
    Ok(inputs)
}
