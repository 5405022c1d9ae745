//! Square matrix products in f32.

use tapeflow::Result;
use tapeflow::prelude::*;

use crate::harness::{Bench, Floor};

/// `sgemm_N`: GFLOP/s of one product of two N × N matrices.
pub fn sgemm(bench: &mut Bench, name: &str) -> Result<()> {
    let n: usize = name.trim_start_matches("sgemm_").parse().unwrap_or(1024);
    let generator = Generator::new(0);
    let (a, b) = (generator.randn([n, n]), generator.randn([n, n]));
    Tensor::realize_all(&[&a, &b])?;
    let work = 2.0 * (n as f64).powi(3) / 1e9;
    let unit = ("GFLOP/s", Floor { gflop: 1.0, gb: 0.0 });
    bench.rate(name, unit, work, (1024 / n).pow(3).max(1), || a.matmul(&b).realize())
}
