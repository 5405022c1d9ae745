//! Where the time of a step goes that computes next to nothing: recording it on the tape, looking its program up,
//! submitting it, waiting for it, and reading its result; and how often it went to the device.

use std::time::Instant;

use tapeflow::Result;
use tapeflow::prelude::*;

use crate::harness::Bench;
use crate::observed::{self, Totals};

/// Elements of the operands; a product of two 8 × 8 matrices is one kernel of its own.
const SHAPE: [usize; 2] = [8, 8];
const CHAIN: usize = 100;

/// One step of one tiny kernel, then one of a hundred that wait for each other.
pub fn step(bench: &mut Bench, name: &str) -> Result<()> {
    let device = bench.device();
    let observed = observed::device(device).transpose()?;
    observed.unwrap_or(device).scope(|| {
        let generator = Generator::new(0);
        let (x, w) = (generator.randn(SHAPE), generator.randn(SHAPE) * 0.1);
        Tensor::realize_all(&[&x, &w])?;
        let is_observed = observed.is_some();
        measure(bench, &format!("{name}_1"), is_observed, || &x * 1.5)?;
        measure(bench, &format!("{name}_{CHAIN}"), is_observed, || (0..CHAIN).fold(x.clone(), |y, _| y.matmul(&w)))
    })
}

/// Seconds of one step by phase, and what it counted.
struct Sample {
    record: f64,
    realize: f64,
    read: f64,
    submit: f64,
    wait: f64,
    counted: Totals,
}

fn measure(bench: &mut Bench, name: &str, is_observed: bool, f: impl Fn() -> Tensor) -> Result<()> {
    let mut samples = Vec::new();
    let step = || -> Result<()> {
        let (before, started) = (observed::totals(), Instant::now());
        let y = f();
        let record = started.elapsed().as_secs_f64();
        y.realize()?;
        let realize = started.elapsed().as_secs_f64() - record;
        let after = observed::totals();
        y.to_vec::<f32>()?;
        let read = started.elapsed().as_secs_f64() - record - realize;
        let seconds = |from: u64, to: u64| (to - from) as f64 / 1e9;
        let counted = Totals {
            kernels: after.kernels - before.kernels,
            submits: after.submits - before.submits,
            transfers: observed::totals().transfers - before.transfers,
            ..Totals::default()
        };
        let submit = seconds(before.submitting, after.submitting);
        let wait = seconds(before.waiting, after.waiting);
        samples.push(Sample { record, realize, read, submit, wait, counted });
        Ok(())
    };
    let counted = no_grad(|| bench.times(step, 1))?.len();
    samples.drain(..samples.len() - counted); // the warm-up
    let emit = |what: &str, metric: &str, unit: &str, value: &dyn Fn(&Sample) -> f64| {
        let values: Vec<f64> = samples.iter().map(value).collect();
        bench.emit(&format!("{name}_{what}"), metric, unit, &values, &[]);
    };
    emit("record", "time", "µs", &|s| s.record * 1e6);
    if is_observed {
        emit("look_up", "time", "µs", &|s| (s.realize - s.submit - s.wait) * 1e6);
        emit("submit", "time", "µs", &|s| s.submit * 1e6);
        emit("wait", "time", "µs", &|s| s.wait * 1e6);
        emit("read", "time", "µs", &|s| s.read * 1e6);
        emit("kernels", "count", "per step", &|s| s.counted.kernels as f64);
        emit("submits", "count", "per step", &|s| s.counted.submits as f64);
        emit("copies", "count", "per step", &|s| s.counted.transfers as f64);
    } else {
        emit("run", "time", "µs", &|s| s.realize * 1e6);
        emit("read", "time", "µs", &|s| s.read * 1e6);
    }
    Ok(())
}
