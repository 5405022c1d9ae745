//! Captured steps: the same numbers as the plain loop, no allocation, and nothing lost when something is wrong.

mod counting;

use std::sync::atomic::Ordering::Relaxed;

use counting::{ALLOCATIONS, LIVE, PEAK, alone};
use tapeflow::models::{Gpt, GptConfig};
use tapeflow::prelude::*;
use tapeflow::{HostCell, ModuleExt, Result, Slot, capture, commit, memory_report, reset_memory_peak, set_threads};

#[derive(Module)]
#[module(forward = |x| out(dropout(hidden(x).tanh())))]
struct Net {
    hidden: Linear,
    dropout: Dropout,
    out: Linear,
}

fn net(p: f64) -> Result<Net> {
    let generator = Generator::new(3);
    let (hidden, out) = (Linear::drawn(2, 8, &generator)?, Linear::drawn(8, 1, &generator)?);
    Ok(Net { hidden, dropout: Dropout::new(p).generator(&generator), out })
}

fn data() -> (Tensor, Tensor) {
    let inputs = Tensor::from_vec(vec![0f32, 0., 0., 1., 1., 0., 1., 1.], [4, 2]);
    (inputs, Tensor::from_vec(vec![0f32, 1., 1., 0.], [4, 1]))
}

fn weights(net: &Net) -> Result<Vec<Vec<f32>>> {
    net.parameters().iter().map(|p| Ok(p.tensor().to_vec::<f32>()?)).collect()
}

#[test]
fn a_captured_step_gives_the_bits_of_the_plain_loop() -> Result<()> {
    let _alone = alone();
    let (x, y) = data();
    let plain = net(0.1)?;
    let mut optimizer = AdamW::new(&plain).learning_rate(0.02);
    let mut losses = Vec::new();
    for step in 0..30 {
        optimizer.set_learning_rate(0.02 / (1.0 + f64::from(step)));
        let loss = plain.forward(&x).mse_loss(&y);
        optimizer.step(loss.backward()?)?;
        losses.push(loss.item::<f32>()?);
    }
    let captured = net(0.1)?;
    let mut optimizer = AdamW::new(&captured).learning_rate(0.02);
    let mut step = capture(&[&x, &y], |batch| {
        let loss = captured.forward(&batch[0]).mse_loss(&batch[1]);
        optimizer.step(loss.backward()?)?;
        Ok::<_, tapeflow::Error>(vec![loss])
    })?;
    for (i, &expected) in losses.iter().enumerate().skip(1) {
        optimizer.set_learning_rate(0.02 / (1.0 + i as f64));
        step.run(&[&x, &y])?;
        assert_eq!(step.item::<f32>(0)?.to_bits(), expected.to_bits(), "loss of step {i}");
    }
    assert_eq!(weights(&plain)?, weights(&captured)?);
    assert_eq!(optimizer.steps(), 30);
    Ok(())
}

#[test]
fn a_captured_step_allocates_nothing() -> Result<()> {
    let _alone = alone();
    for threads in [1, 2] {
        set_threads(threads)?;
        let config =
            GptConfig { block_size: 32, vocab_size: 29, n_layer: 2, n_head: 2, n_embd: 64, dropout: 0.1, bias: true };
        let generator = Generator::new(5);
        let model = Gpt::new(&config, &generator)?;
        let mut optimizer = AdamW::new(&model).learning_rate(1e-3);
        let (x, y) = (generator.randint(0, 29, [8, 32]), generator.randint(0, 29, [8, 32]));
        Tensor::realize_all(&[&x, &y])?;
        let mut step = capture(&[&x, &y], |batch| {
            let loss = model.loss(&batch[0], &batch[1]);
            optimizer.step(loss.backward()?)?;
            Ok::<_, tapeflow::Error>(vec![loss])
        })?;
        for _ in 0..5 {
            step.run(&[&x, &y])?;
        }
        // A recording that has ended costs nothing any more.
        let (ran, profile) = tapeflow::profile(|| step.run(&[&x, &y]));
        ran?;
        let named = |kernel: &tapeflow::KernelProfile| kernel.name == "matmul" && kernel.module == "h.1.mlp.c_fc";
        assert!(profile.kernels().iter().any(named), "{}", profile.table()?);
        let mut loss = 0.0;
        // A worker gets its scratch in the first run it takes part in, however late that is: at most once.
        let mut rounds = [0; 2];
        for allocations in &mut rounds {
            let before = ALLOCATIONS.load(Relaxed);
            for _ in 0..20 {
                step.run(&[&x, &y])?;
                loss = step.item::<f32>(0)?;
            }
            *allocations = ALLOCATIONS.load(Relaxed) - before;
        }
        assert!(rounds.contains(&0) && rounds.iter().sum::<u64>() < threads as u64, "{rounds:?}, {threads} threads");
        assert!(loss < 3.0, "it learns: {loss}");
    }
    set_threads(0)?;
    Ok(())
}

#[test]
fn readers_of_old_versions_see_old_values() -> Result<()> {
    let _alone = alone();
    let (x, y) = data();
    let model = net(0.0)?;
    let mut optimizer = Sgd::new(&model).learning_rate(0.5);
    let mut step = capture(&[&x, &y], |batch| {
        let loss = model.forward(&batch[0]).mse_loss(&batch[1]);
        optimizer.step(loss.backward()?)?;
        Ok::<_, tapeflow::Error>(vec![loss])
    })?;
    let before: Vec<f32> = model.out.weight.tensor().to_vec()?;
    let reader = model.out.weight.tensor().square().sum();
    step.run(&[&x, &y])?;
    assert_ne!(before, model.out.weight.tensor().to_vec::<f32>()?);
    let expected: f32 = before.iter().map(|w| w * w).sum();
    assert!((reader.item::<f32>()? - expected).abs() < 1e-5);
    Ok(())
}

#[test]
fn wrong_inputs_and_held_versions_are_errors_and_nothing_is_lost() -> Result<()> {
    let _alone = alone();
    let (x, y) = data();
    let model = net(0.0)?;
    let mut optimizer = Sgd::new(&model).learning_rate(0.5);
    let mut step = capture(&[&x, &y], |batch| {
        let loss = model.forward(&batch[0]).mse_loss(&batch[1]);
        optimizer.step(loss.backward()?)?;
        Ok::<_, tapeflow::Error>(vec![loss])
    })?;
    let before = weights(&model)?;
    assert!(step.run(&[&x]).is_err());
    assert!(step.run(&[&y, &y]).unwrap_err().to_string().contains("(4, 1)"));
    let held = model.out.weight.tensor();
    assert!(step.run(&[&x, &y]).unwrap_err().to_string().contains("held elsewhere"));
    assert_eq!(before, weights(&model)?);
    drop(held);
    step.run(&[&x, &y])?;
    assert_ne!(before, weights(&model)?);
    assert!(step.item::<f64>(0).is_err() && step.item::<f32>(1).is_err());
    Ok(())
}

#[test]
fn a_step_must_commit_once() -> Result<()> {
    let _alone = alone();
    let (x, _) = data();
    let none = capture(&[&x], |batch| Ok::<_, tapeflow::Error>(vec![batch[0].sum()]));
    assert!(none.err().is_some_and(|e| e.to_string().contains("commit once, not 0")));
    Ok(())
}

/// Planned before anything runs; measured with the counting allocator: what the arena and the results take, and nothing
/// beyond a tenth.
#[test]
fn the_planned_peak_is_the_real_one_at_baby() -> Result<()> {
    let _alone = alone();
    let mut config = GptConfig::preset("baby", 65).expect("a known preset");
    config.dropout = 0.0;
    let generator = Generator::new(1);
    let model = Gpt::new(&config, &generator)?;
    let mut optimizer = AdamW::new(&model).learning_rate(1e-3);
    let batch = 2;
    let x = generator.randint(0, 65, [batch, config.block_size]);
    let y = generator.randint(0, 65, [batch, config.block_size]);
    Tensor::realize_all(&[&x, &y])?;
    let live_before = memory_report().live;
    let step = capture(&[&x, &y], |batch| {
        let loss = model.loss(&batch[0], &batch[1]);
        optimizer.step(loss.backward()?)?;
        Ok::<_, tapeflow::Error>(vec![loss])
    })?;
    let planned = step.planned_bytes();
    drop(step);
    // What stays for good: the optimizer's two averages of every parameter.
    let state: usize = 2 * 4 * model.num_parameters();
    reset_memory_peak();
    let (live, system) = (LIVE.load(Relaxed), memory_report());
    let idle = system.idle;
    PEAK.store(live, Relaxed);
    let loss = model.loss(&x, &y);
    optimizer.step(loss.backward()?)?;
    let by_tensors = memory_report().peak - (live_before + state);
    let by_allocator = PEAK.load(Relaxed) - live + idle;
    let near = |measured: usize| measured as f64 >= 0.9 * planned as f64 && measured as f64 <= 1.1 * planned as f64;
    assert!(near(by_tensors), "planned {planned}, in tensors {by_tensors}");
    assert!(
        by_allocator as f64 <= 1.1 * (planned + idle) as f64,
        "planned {planned}, asked of the system {by_allocator}"
    );
    Ok(())
}

#[test]
fn places_outside_are_refused_even_where_only_one_fits() -> Result<()> {
    let _alone = alone();
    let (cache, place) = (Slot::new(Tensor::zeros([1, 2], DType::F32))?, HostCell::new(0.0));
    let x = Tensor::from_vec(vec![5.0f32, 6.0], [1, 2]);
    let mut step = capture(&[&x], |x| {
        let new = cache.tensor().slice_assign_cells(1, std::slice::from_ref(&place), &x[0]);
        commit(&[(&cache, new)])?;
        Ok::<_, tapeflow::Error>(vec![])
    })?;
    for bad in [1.0, -1.0, 0.5, f64::NAN] {
        place.set(bad);
        let said = step.run(&[&x]).unwrap_err().to_string();
        assert!(said.contains("from 0 to 0"), "{said}");
    }
    place.set(0.0);
    step.run(&[&x])?;
    assert_eq!(cache.tensor().to_vec::<f32>()?, [5.0, 6.0]);
    Ok(())
}
