//! Causal attention at the size of nanoGPT's "baby" model: batch 4, 6 heads, 256 positions of 64.

use tapeflow::Result;
use tapeflow::prelude::*;

use crate::harness::Bench;

const SHAPE: [usize; 4] = [4, 6, 256, 64];

pub fn forward(bench: &mut Bench, name: &str) -> Result<()> {
    let [q, k, v, _] = inputs()?;
    no_grad(|| bench.ms(name, || q.causal_attention(&k, &v).realize(), &[]))
}

/// With the gradients of queries, keys and values.
pub fn backward(bench: &mut Bench, name: &str) -> Result<()> {
    let [q, k, v, cotangent] = inputs()?;
    bench.ms(
        name,
        || {
            let y = q.causal_attention(&k, &v);
            realize_all(&grad(&(&y * &cotangent).sum(), &[&q, &k, &v])?)
        },
        &[],
    )
}

fn inputs() -> Result<[Tensor; 4]> {
    let generator = Generator::new(0);
    let inputs = [(); 4].map(|()| generator.randn(SHAPE));
    inputs.iter().try_for_each(|x| x.realize())?;
    Ok(inputs)
}
