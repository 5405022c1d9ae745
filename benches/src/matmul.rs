//! Matrix products: square ones in f32 and bf16, those of a single row with a weight, as generation has them, and those
//! of which an operand is made first.

use tapeflow::Result;
use tapeflow::prelude::*;

use crate::harness::{Bench, Floor};

/// `sgemm_N`: GFLOP/s of one product of two N × N matrices.
pub fn sgemm(bench: &mut Bench, name: &str) -> Result<()> {
    square(bench, name, DType::F32)
}

/// `bf16gemm_N`: the same in bf16.
pub fn bf16gemm(bench: &mut Bench, name: &str) -> Result<()> {
    square(bench, name, DType::BF16)
}

fn square(bench: &mut Bench, name: &str, dtype: DType) -> Result<()> {
    let n: usize = name.rsplit('_').next().and_then(|n| n.parse().ok()).unwrap_or(1024);
    let generator = Generator::new(0);
    let (a, b) = (generator.randn([n, n]).cast(dtype), generator.randn([n, n]).cast(dtype));
    Tensor::realize_all(&[&a, &b])?;
    let work = 2.0 * (n as f64).powi(3) / 1e9;
    // Pairs of bf16 are multiplied by one instruction.
    let gflop = if dtype == DType::BF16 { 0.5 } else { 1.0 };
    let unit = ("throughput", "GFLOP/s", Floor { gflop, gb: 0.0 });
    bench.rate(name, unit, work, (1024 / n).pow(3).max(1), || a.matmul(&b).realize())
}

/// `gemv_NxK` and `gemv_bf16_NxK`: GB/s of the weight in `x · wᵀ`, x one row of K, w N × K and too large for any cache.
pub fn gemv(bench: &mut Bench, name: &str) -> Result<()> {
    let dtype = if name.contains("bf16") { DType::BF16 } else { DType::F32 };
    let extents = name.rsplit('_').next().and_then(|shape| shape.split_once('x'));
    let (n, k) = extents.and_then(|(n, k)| Some((n.parse().ok()?, k.parse().ok()?))).unwrap_or((50257, 768));
    let generator = Generator::new(0);
    let bytes = n * k * dtype.size();
    let weights: Vec<Tensor> =
        (0..(128usize << 20).div_ceil(bytes)).map(|_| generator.randn([n, k]).cast(dtype)).collect();
    let x = generator.randn([1, k]).cast(dtype);
    Tensor::realize_all(&weights.iter().chain([&x]).collect::<Vec<_>>())?;
    let mut turn = weights.iter().cycle();
    bench.rate(name, ("throughput", "GB/s", Floor { gflop: 0.0, gb: 1.0 }), bytes as f64 / 1e9, weights.len(), || {
        match turn.next() {
            Some(w) => x.matmul(&w.t()).realize(),
            None => Ok(()),
        }
    })
}

/// `linear_KIND_MxNxK`: a linear layer at inference, M rows of K inputs, N outputs, of which an operand is made at each
/// call: the weight is masked (`masked`), or f32 and the product bf16 (`cast`); the input is what `relu` or `softmax`
/// makes of it.
pub fn linear(bench: &mut Bench, name: &str) -> Result<()> {
    let mut words = name.split('_').skip(1);
    let (kind, extents) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let extents: Vec<usize> = extents.split('x').filter_map(|extent| extent.parse().ok()).collect();
    let [m, n, k] = extents.try_into().unwrap_or([4, 3072, 768]);
    let generator = Generator::new(0);
    let (x, w) = (generator.randn([m, k]), generator.randn([n, k]));
    let mask = generator.randn([n, k]).gt(&Tensor::zeros([1], DType::F32)).cast(DType::F32);
    Tensor::realize_all(&[&x, &w, &mask])?;
    let half = Precision::Bf16;
    let product = || match kind {
        "masked" => x.matmul(&(&w * &mask).t()),
        "cast" => half.operand(&x).matmul(&half.operand(&w).t()),
        "softmax" => x.softmax(-1).matmul(&w.t()),
        "plain" => x.matmul(&w.t()),
        _ => x.relu().matmul(&w.t()),
    };
    let gigabytes = |elements: usize| elements as f64 * 4.0 / 1e9;
    let read = m * k + n * k * if kind == "masked" { 2 } else { 1 };
    let written = if kind == "cast" { m * n / 2 } else { m * n };
    let gflop = if kind == "cast" { 0.5 } else { 1.0 } * 2.0 * (m * n * k) as f64 / 1e9;
    let floor = Floor { gflop, gb: gigabytes(read + written) };
    no_grad(|| bench.ms(name, floor, || product().realize(), &[]))
}
