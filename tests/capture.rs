//! Captured steps: the same numbers as the plain loop, no allocation, and nothing lost when something is wrong.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tapeflow::models::{Gpt, GptConfig};
use tapeflow::prelude::*;
use tapeflow::{
    CapturedStep, Device, ModuleExt, Replay, Result, Slot, capture, commit, memory_report, on_replay,
    reset_memory_peak, set_threads,
};

/// Counts what the system is asked for, on any thread.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The counters are the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

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
        let before = ALLOCATIONS.load(Relaxed);
        let mut loss = 0.0;
        for _ in 0..20 {
            step.run(&[&x, &y])?;
            loss = step.item::<f32>(0)?;
        }
        assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "with {threads} threads");
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

/// `w ← w − lr · ∂/∂w ½ (w x)²`, with the loss as the result.
fn descend(w: &Parameter, x: &Tensor, rate: f64) -> Result<Vec<Tensor>> {
    let loss = (w.tensor() * x).square().sum() * 0.5;
    let gradients = loss.backward()?;
    let new = w.tensor() - gradients.get(w).expect("it is reached") * rate;
    drop(gradients);
    commit(&[(w.slot(), new)])?;
    Ok(vec![loss])
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::from_vec(values.to_vec(), [values.len()])
}

fn refusal(outcome: Result<CapturedStep>) -> String {
    outcome.err().map_or_else(|| "nothing was refused".into(), |e| e.to_string())
}

#[test]
fn memory_that_others_share_is_not_written() -> Result<()> {
    let _alone = alone();
    let w = Parameter::new(vector(&[8.0]))?;
    let target = Slot::new(vector(&[0.0]))?;
    let x = vector(&[1.0]);
    let mut step = capture(&[&x], |given| descend(&w, &given[0], 0.5))?;
    for expected in [4.0f32, 2.0, 1.0] {
        target.set(&w.tensor())?;
        let (other, snapshot) = (Parameter::new(w.tensor())?, w.tensor().with_grad()?);
        step.run(&[&x])?;
        assert_eq!(w.tensor().to_vec::<f32>()?, [expected / 2.0]);
        assert_eq!(target.tensor().to_vec::<f32>()?, [expected]);
        assert_eq!(other.tensor().to_vec::<f32>()?, [expected]);
        assert_eq!(snapshot.to_vec::<f32>()?, [expected]);
        // The step's own input may be it too.
        target.set(&vector(&[1.0]))?;
    }
    // Shared when the step is captured, and shared with an input of the step.
    target.set(&w.tensor())?;
    let mut step = capture(&[&target.tensor()], |given| descend(&w, &given[0], 0.0))?;
    step.run(&[&target.tensor()])?;
    w.set(&vector(&[2.0]))?;
    target.set(&w.tensor())?;
    step.run(&[&target.tensor()])?;
    assert_eq!(step.item::<f32>(0)?, 8.0);
    Ok(())
}

#[test]
fn a_step_reads_what_slots_name_at_the_time() -> Result<()> {
    let _alone = alone();
    let w = Parameter::new(vector(&[1.0]))?;
    let target = Slot::new(vector(&[10.0]))?;
    let x = vector(&[1.0]);
    let mut step = capture(&[&x], |given| {
        let distance = (w.tensor() * &given[0] - target.tensor()).sum();
        let new = w.tensor() + distance.detach() * 0.0 + 1.0;
        commit(&[(w.slot(), new)])?;
        Ok::<_, tapeflow::Error>(vec![distance])
    })?;
    assert_eq!(step.item::<f32>(0)?, -9.0);
    step.run(&[&x])?;
    assert_eq!(step.item::<f32>(0)?, -8.0);
    target.set(&vector(&[100.0]))?;
    step.run(&[&x])?;
    assert_eq!(step.item::<f32>(0)?, -97.0);
    // What the step updates may be set too, as when a checkpoint is loaded.
    w.set(&vector(&[200.0]))?;
    step.run(&[&x])?;
    assert_eq!(step.item::<f32>(0)?, 100.0);
    assert_eq!(w.tensor().to_vec::<f32>()?, [201.0]);
    // Another type or a frozen parameter is another program.
    w.freeze(true)?;
    assert!(step.run(&[&x]).unwrap_err().to_string().contains("capture it again"));
    w.freeze(false)?;
    target.replace(&vector(&[1.0, 2.0]))?;
    assert!(step.run(&[&x]).unwrap_err().to_string().contains("capture it again"));
    target.replace(&vector(&[1.0]))?;
    step.run(&[&x])?;
    assert_eq!(step.item::<f32>(0)?, 200.0);
    Ok(())
}

#[test]
fn a_result_made_after_the_commit_is_refused() -> Result<()> {
    let _alone = alone();
    let w = Parameter::new(vector(&[4.0]))?;
    let x = vector(&[1.0]);
    let why = refusal(capture(&[&x], |given| {
        let loss = descend(&w, &given[0], 0.5)?.remove(0);
        Ok(vec![loss.detach()])
    }));
    assert!(why.contains("result 0 is not computed"), "{why}");
    Ok(())
}

#[test]
fn generator_and_critic_follow_each_other() -> Result<()> {
    let _alone = alone();
    let train = |captured: bool| -> Result<Vec<f32>> {
        let (a, b) = (Parameter::new(vector(&[1.0]))?, Parameter::new(vector(&[2.0]))?);
        let x = vector(&[1.0]);
        let towards = |from: &Parameter, to: &Parameter, x: &Tensor| -> Result<Vec<Tensor>> {
            let loss = (from.tensor() * x - to.tensor() * 1.5).square().sum();
            let gradients = loss.backward()?;
            let new = from.tensor() - gradients.get(from).expect("it is reached") * 0.1;
            drop(gradients);
            commit(&[(from.slot(), new)])?;
            Ok(vec![loss])
        };
        if captured {
            let mut first = capture(&[&x], |given| towards(&a, &b, &given[0]))?;
            let mut second = capture(&[&x], |given| towards(&b, &a, &given[0]))?;
            for _ in 0..4 {
                first.run(&[&x])?;
                second.run(&[&x])?;
            }
            // A plain step in between is seen as well.
            towards(&a, &b, &x)?;
            second.run(&[&x])?;
        } else {
            for _ in 0..6 {
                towards(&a, &b, &x)?;
                towards(&b, &a, &x)?;
            }
        }
        Ok([a.tensor().to_vec()?, b.tensor().to_vec()?].concat())
    };
    assert_eq!(train(true)?, train(false)?);
    Ok(())
}

#[test]
fn values_for_the_host_and_writes_by_hand_are_refused() -> Result<()> {
    let _alone = alone();
    let w = Parameter::new(vector(&[4.0]))?;
    let x = vector(&[1.0]);
    let why = refusal(capture(&[&x], |given| {
        let scale = (w.tensor() * &given[0]).sum().item::<f32>()?;
        descend(&w, &(&given[0] * f64::from(scale)), 0.5)
    }));
    assert!(why.contains("before its commit"), "{why}");
    assert_eq!(w.tensor().to_vec::<f32>()?, [4.0]);
    let why = refusal(capture(&[&x], |given| {
        let results = descend(&w, &given[0], 0.5)?;
        w.set(&vector(&[1.0]))?;
        Ok(results)
    }));
    assert!(why.contains("by its commit only"), "{why}");
    // After the commit values may be read.
    let step = capture(&[&x], |given| {
        let results = descend(&w, &given[0], 0.5)?;
        assert_eq!(results[0].item::<f32>()?, 2.0);
        Ok::<_, tapeflow::Error>(results)
    })?;
    assert_eq!(step.item::<f32>(0)?, 2.0, "the first run's loss, before any other");
    assert_eq!(step.to_vec::<f32>(0)?, [2.0]);
    let kept = (w.tensor() * 2.0).square();
    kept.realize()?;
    let why = refusal(capture(&[&x], |given| {
        let loss = (w.tensor() * 2.0).square().sum() * given[0].sum();
        commit(&[(w.slot(), w.tensor() + kept.detach() * 0.0 + 1.0)])?;
        Ok(vec![loss])
    }));
    assert!(why.contains("keeps its graph"), "{why}");
    Ok(())
}

#[test]
fn every_result_is_read_where_it_is_written() -> Result<()> {
    let _alone = alone();
    let (w, last) = (Parameter::new(vector(&[1.0, 2.0]))?, Slot::new(vector(&[0.0, 0.0]))?);
    let x = vector(&[1.0, 1.0]);
    // Twice the same value; a result that is also a new version, in place and apart.
    let mut step = capture(&[&x], |given| {
        let (double, again) = (w.tensor() * 2.0 * &given[0], w.tensor() * 2.0 * &given[0]);
        let new = w.tensor() + &given[0];
        commit(&[(w.slot(), new.clone()), (&last, double.clone())])?;
        Ok::<_, tapeflow::Error>(vec![double, again, new])
    })?;
    for i in 0..4 {
        let old = i as f32;
        assert_eq!(step.to_vec::<f32>(0)?, [2.0 * (1.0 + old), 2.0 * (2.0 + old)], "run {i}");
        assert_eq!(step.to_vec::<f32>(1)?, [2.0 * (1.0 + old), 2.0 * (2.0 + old)], "run {i}");
        assert_eq!(step.to_vec::<f32>(2)?, [2.0 + old, 3.0 + old], "run {i}");
        assert_eq!(last.tensor().to_vec::<f32>()?, [2.0 * (1.0 + old), 2.0 * (2.0 + old)], "run {i}");
        assert_eq!(w.tensor().to_vec::<f32>()?, [2.0 + old, 3.0 + old], "run {i}");
        step.run(&[&x])?;
    }
    // A result stays what the run gave, whatever becomes of the slot.
    w.set(&vector(&[0.0, 0.0]))?;
    assert_eq!(step.to_vec::<f32>(2)?, [6.0, 7.0]);
    // One value for two slots, or one that no program computes.
    let other = Slot::new(vector(&[0.0, 0.0]))?;
    let why = refusal(capture(&[&x], |given| {
        let new = &given[0] * 2.0;
        commit(&[(&last, new.clone()), (&other, new)])?;
        Ok(vec![])
    }));
    assert!(why.contains("are one value"), "{why}");
    let why = refusal(capture(&[&x], |given| {
        commit(&[(&last, given[0].clone()), (&other, other.tensor() + 1.0)])?;
        Ok(vec![])
    }));
    assert!(why.contains("is not computed by the step's program"), "{why}");
    Ok(())
}

#[test]
fn a_failed_first_replay_loses_nothing() -> Result<()> {
    let _alone = alone();
    let (w, seen) = (Parameter::new(vector(&[1.0, 2.0]))?, Slot::new(vector(&[7.0]))?);
    let row = |i: i64| Tensor::from_vec(vec![i], [1]);
    // `seen` is not read by its update, and its memory is shared, so nothing is taken over.
    let shared = seen.tensor().with_grad()?;
    let mut step = capture(&[&row(0)], |given| {
        let picked = w.tensor().index_select(0, &given[0]);
        commit(&[(&seen, &picked * 10.0), (w.slot(), w.tensor() + picked.detach().sum())])?;
        Ok::<_, tapeflow::Error>(vec![picked])
    })?;
    assert_eq!(seen.tensor().to_vec::<f32>()?, [10.0]);
    assert!(step.run(&[&row(5)]).is_err());
    assert_eq!(seen.tensor().to_vec::<f32>()?, [10.0]);
    assert_eq!(w.tensor().to_vec::<f32>()?, [2.0, 3.0]);
    assert_eq!(step.to_vec::<f32>(0)?, [1.0]);
    step.run(&[&row(1)])?;
    assert_eq!(seen.tensor().to_vec::<f32>()?, [30.0]);
    assert_eq!(shared.to_vec::<f32>()?, [7.0]);
    assert_eq!(step.to_vec::<f32>(0)?, [3.0]);
    Ok(())
}

#[test]
fn one_tensor_given_twice_is_two_inputs() -> Result<()> {
    let _alone = alone();
    let w = Parameter::new(vector(&[0.0]))?;
    let x = vector(&[3.0]);
    let mut step = capture(&[&x, &x], |given| {
        let difference = &given[0] - &given[1];
        commit(&[(w.slot(), w.tensor() + &difference)])?;
        Ok::<_, tapeflow::Error>(vec![difference])
    })?;
    step.run(&[&vector(&[5.0]), &vector(&[1.0])])?;
    assert_eq!(step.item::<f32>(0)?, 4.0);
    assert_eq!(w.tensor().to_vec::<f32>()?, [4.0]);
    Ok(())
}

#[test]
fn the_reference_device_refuses() -> Result<()> {
    let _alone = alone();
    Device::reference().scope(|| {
        let w = Parameter::new(vector(&[1.0]))?;
        let x = vector(&[1.0]);
        let why = refusal(capture(&[&x], |given| descend(&w, &given[0], 0.5)));
        assert!(why.contains("reference device"), "{why}");
        let why = refusal(Device::cpu().scope(|| capture(&[], |_| Device::reference().scope(|| descend(&w, &x, 0.5)))));
        assert!(why.contains("reference device"), "{why}");
        Ok(())
    })
}

#[test]
fn a_panicking_hook_loses_nothing() -> Result<()> {
    let _alone = alone();
    let w = Parameter::new(vector(&[8.0]))?;
    let x = vector(&[1.0]);
    let panics = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mut step = capture(&[&x], |given| {
        let panics = panics.clone();
        on_replay(move |when| assert!(when == Replay::Done || !panics.load(Relaxed), "as the test wants"));
        descend(&w, &given[0], 0.5)
    })?;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step.run(&[&x])));
    assert!(outcome.is_err());
    assert_eq!(w.tensor().to_vec::<f32>()?, [4.0]);
    panics.store(false, Relaxed);
    step.run(&[&x])?;
    assert_eq!(w.tensor().to_vec::<f32>()?, [2.0]);
    Ok(())
}

/// Two steps over the same slots, plain commits over them and readers, on four threads: nothing waits for ever, and
/// every reader sees versions that belong together.
#[test]
fn threads_wait_for_each_other_and_not_for_ever() -> Result<()> {
    let _alone = alone();
    let (a, b) = (Slot::new(vector(&[0.0; 64]))?, Slot::new(vector(&[0.0; 64]))?);
    let x = vector(&[1.0; 64]);
    let advance = |x: &Tensor| {
        let (new_a, new_b) = (a.tensor() + x, b.tensor() + x);
        commit(&[(&a, new_a), (&b, new_b)])?;
        Ok::<_, tapeflow::Error>(vec![])
    };
    let steps = [capture(&[&x], |given| advance(&given[0]))?, capture(&[&x], |given| advance(&given[0]))?];
    std::thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::new();
        for mut step in steps {
            let x = &x;
            threads.push(scope.spawn(move || -> Result<usize> {
                let mut done = 0;
                for _ in 0..300 {
                    // A reader may hold a handle just now: that is refused, and nothing happened.
                    match step.run(&[x]) {
                        Ok(()) => done += 1,
                        Err(e) => assert!(e.to_string().contains("held elsewhere"), "{e}"),
                    }
                }
                Ok(done)
            }));
        }
        threads.push(scope.spawn(|| -> Result<usize> {
            for _ in 0..300 {
                a.set(&(a.tensor() * 1.0))?;
                let _ = (&a.tensor() + &b.tensor()).sum().item::<f32>()?;
            }
            Ok(0)
        }));
        threads.push(scope.spawn(|| -> Result<usize> {
            for _ in 0..300 {
                commit(&[(&a, a.tensor() + 0.0), (&b, b.tensor() + 0.0)])?;
            }
            Ok(0)
        }));
        for thread in threads {
            let _ = thread.join().expect("no thread panics")?;
        }
        Ok(())
    })?;
    let (a, b) = (a.tensor().to_vec::<f32>()?, b.tensor().to_vec::<f32>()?);
    assert!(a.iter().all(|v| *v == a[0]) && b.iter().all(|v| *v == b[0]));
    Ok(())
}
