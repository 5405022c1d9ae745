//! A chain of elementwise operations over 16 Mi elements: memory-bound when fused.

use tapeflow::Result;
use tapeflow::prelude::*;

use crate::harness::{Bench, Floor};

const N: usize = 1 << 24;

/// `gelu(x · a + b) · c + x`
pub fn chain(bench: &mut Bench, name: &str) -> Result<()> {
    let x = Generator::new(0).randn([N]);
    x.realize()?;
    let gigabytes = 2.0 * N as f64 * 4.0 / 1e9;
    // What a handle names is kept: the temporaries of the expression end before it is computed.
    let chain = || (&x * 1.1 + 0.3).gelu() * 0.7 + &x;
    no_grad(|| bench.ms(name, Floor { gflop: 0.0, gb: gigabytes }, || chain().realize(), &[("gb_per_s", gigabytes)]))
}
