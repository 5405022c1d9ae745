//! Row kernels: softmax, and layer normalisation with its backward.

use tapeflow::prelude::*;
use tapeflow::{Result, grad_with};

use crate::harness::{Bench, Floor};

/// Read once, written once.
fn gigabytes(shape: [usize; 2]) -> f64 {
    2.0 * (shape[0] * shape[1]) as f64 * 4.0 / 1e9
}

/// Over rows of 1024.
pub fn softmax(bench: &mut Bench, name: &str) -> Result<()> {
    let shape = [4096, 1024];
    let x = Generator::new(0).randn(shape);
    x.realize()?;
    let gb = gigabytes(shape);
    no_grad(|| bench.ms(name, Floor { gflop: 0.0, gb }, || x.softmax(-1).realize(), &[("gb_per_s", gb)]))
}

const NORMALISED: [usize; 2] = [4096, 768];

/// Over rows of 768, with weight and bias.
pub fn layer_norm(bench: &mut Bench, name: &str) -> Result<()> {
    let (x, w, b) = layer_norm_inputs()?;
    let gb = gigabytes(NORMALISED);
    let normalise = || x.layer_norm(&w, Some(&b), 1e-5).realize();
    no_grad(|| bench.ms(name, Floor { gflop: 0.0, gb }, normalise, &[("gb_per_s", gb)]))
}

/// The same with the gradients of all three inputs.
pub fn layer_norm_backward(bench: &mut Bench, name: &str) -> Result<()> {
    let (x, w, b) = layer_norm_inputs()?;
    let cotangent = Generator::new(1).randn(NORMALISED);
    cotangent.realize()?;
    // The input and the cotangent are read, the input's gradient is written; nobody asks for the result itself.
    let floor = Floor { gflop: 0.0, gb: 1.5 * gigabytes(NORMALISED) };
    bench.ms(
        name,
        floor,
        || {
            let y = x.layer_norm(&w, Some(&b), 1e-5);
            let gradients = grad_with(&y, Some(&cotangent), &[&x, &w, &b])?;
            Tensor::realize_all(&gradients.iter().collect::<Vec<_>>())
        },
        &[],
    )
}

fn layer_norm_inputs() -> Result<(Tensor, Tensor, Tensor)> {
    let x = Generator::new(0).randn(NORMALISED);
    let (w, b) = (Tensor::ones([NORMALISED[1]], DType::F32), Tensor::zeros([NORMALISED[1]], DType::F32));
    Tensor::realize_all(&[&x, &w, &b])?;
    Ok((x, w, b))
}
