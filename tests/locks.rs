//! What captured steps lock: nothing, as long as nobody else looks at what they update. The count is the process's, so
//! this file has one test that counts.

use tapeflow::__test::{locks_taken, programs_in_flight};
use tapeflow::prelude::*;
use tapeflow::{CapturedStep, ModuleExt, Result, capture, set_threads};

#[derive(Module)]
#[module(forward = |x| out(hidden(x).tanh()))]
struct Net {
    hidden: Linear,
    out: Linear,
}

const RUNS: usize = 1000;

/// A captured AdamW step, the batches it is run with, and the model.
fn net(rows: usize, inputs: usize, width: usize) -> Result<(CapturedStep, Vec<[Tensor; 2]>, Net)> {
    let generator = Generator::new(3);
    let net = Net { hidden: Linear::drawn(inputs, width, &generator)?, out: Linear::drawn(width, 1, &generator)? };
    let mut optimizer = AdamW::new(&net).learning_rate(0.01);
    let batch = |k: usize| {
        let x: Vec<f32> = (0..rows * inputs).map(|i| ((i * 7 + k) % 11) as f32 / 11.0).collect();
        let y: Vec<f32> = (0..rows).map(|i| ((i + k) % 2) as f32).collect();
        [Tensor::from_vec(x, [rows, inputs]), Tensor::from_vec(y, [rows, 1])]
    };
    let batches: Vec<[Tensor; 2]> = (0..RUNS).map(batch).collect();
    let mut step = capture(&[&batches[0][0], &batches[0][1]], |batch| {
        let loss = net.forward(&batch[0]).mse_loss(&batch[1]);
        optimizer.step(loss.backward()?)?;
        Ok::<_, tapeflow::Error>(vec![loss])
    })?;
    // The first run after somebody else's look takes the versions, and goes where the slots are.
    step.run(&[&batches[0][0], &batches[0][1]])?;
    Ok((step, batches, net))
}

/// How many locks all threads took in `RUNS` runs on the same batch, and in as many on another one each.
fn locks_of_runs(step: &mut CapturedStep, batches: &[[Tensor; 2]]) -> Result<[u64; 2]> {
    let count = || locks_taken().expect("debug assertions are on");
    let first = step.item::<f32>(0)?;
    let mut last = first;
    let before = count();
    for _ in 0..RUNS {
        step.run(&[&batches[0][0], &batches[0][1]])?;
        last = step.item::<f32>(0)?;
    }
    let same = count();
    assert!(last < first, "it learns: from {first} to {last}");
    for [x, y] in batches {
        step.run(&[x, y])?;
    }
    Ok([same - before, count() - same])
}

#[test]
fn a_steady_step_takes_no_lock() -> Result<()> {
    if locks_taken().is_none() {
        return Ok(());
    }
    set_threads(2)?;
    // Inline on the calling thread, then on the pool.
    let (mut small, batches, model) = net(4, 2, 8)?;
    assert_eq!(locks_of_runs(&mut small, &batches)?, [0, 0]);
    assert_eq!(programs_in_flight(), 0, "a small program runs inline");
    let (mut large, batches, _) = net(64, 32, 128)?;
    assert!(programs_in_flight() > 0, "a large one runs on the pool");
    assert_eq!(locks_of_runs(&mut large, &batches)?, [0, 0]);
    // What the count is worth: a look locks, and so does the run after it; then there are none again.
    let before = locks_taken();
    let weights = model.parameters()[0].tensor().to_vec::<f32>()?;
    let looked = locks_taken();
    let [x, y] = &net(4, 2, 8)?.1[0];
    let begun = locks_taken();
    small.run(&[x, y])?;
    assert!(before < looked && begun < locks_taken());
    let again = locks_taken();
    small.run(&[x, y])?;
    assert_eq!(again, locks_taken());
    assert_ne!(weights, model.parameters()[0].tensor().to_vec::<f32>()?);
    set_threads(0)?;
    Ok(())
}
