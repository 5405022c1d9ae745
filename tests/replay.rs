//! What replays of captured steps read and write: the slots' present versions, no memory of others, results where they
//! are written; and what a capture refuses. The tests share one tape and run at the same time.

use std::sync::atomic::Ordering::Relaxed;

use tapeflow::prelude::*;
use tapeflow::{CapturedStep, Device, Replay, Result, Slot, capture, commit, on_replay};

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

/// As for the plain loop: a tensor that was recorded outside is the same for every run.
#[test]
fn what_was_recorded_before_the_step_is_fixed() -> Result<()> {
    let w = Parameter::new(vector(&[1.0]))?;
    let x = vector(&[1.0]);
    let anchor = no_grad(|| w.tensor() * 10.0);
    let mut step = capture(&[&x], |given| {
        let distance = anchor.clone() - w.tensor() * &given[0];
        commit(&[(w.slot(), w.tensor() + &given[0])])?;
        Ok::<_, tapeflow::Error>(vec![distance])
    })?;
    assert_eq!(step.item::<f32>(0)?, 9.0);
    step.run(&[&x])?;
    assert_eq!(step.item::<f32>(0)?, 8.0);
    let anchor = w.tensor() * 10.0;
    let why = refusal(capture(&[&x], |given| {
        commit(&[(w.slot(), w.tensor() + &anchor * &given[0])])?;
        Ok(vec![])
    }));
    assert!(why.contains("keeps its graph"), "{why}");
    assert_eq!(w.tensor().to_vec::<f32>()?, [3.0]);
    Ok(())
}

#[test]
fn every_result_is_read_where_it_is_written() -> Result<()> {
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

/// What a layer stages belongs to the step: a replay moves it as a recorded step does.
#[test]
fn running_statistics_move_with_every_replay() -> Result<()> {
    let net = || {
        let generator = Generator::new(5);
        let conv = Conv2d::drawn(1, 3, 3, &generator)?;
        let norm = BatchNorm2d::new(3)?;
        Ok::<_, tapeflow::Error>(Sequential((conv, norm, Relu, Flatten, Linear::drawn(48, 2, &generator)?)))
    };
    let batches: Vec<Tensor> = (0..4).map(|seed| Generator::new(seed).randn([5, 1, 6, 6])).collect();
    let (recorded, captured) = (net()?, net()?);
    let take = |model: &dyn Fn(&Tensor) -> Tensor, optimizer: &mut Sgd, x: &Tensor| {
        let loss = model(x).square().mean();
        optimizer.step(loss.backward()?)?;
        Ok::<_, tapeflow::Error>(vec![loss])
    };
    let mut optimizer = Sgd::new(&recorded).learning_rate(0.1);
    for x in &batches {
        take(&|x| recorded.forward(x), &mut optimizer, x)?;
    }
    let mut optimizer = Sgd::new(&captured).learning_rate(0.1);
    let mut step = capture(&[&batches[0]], |x| take(&|x| captured.forward(x), &mut optimizer, &x[0]))?;
    for x in &batches[1..] {
        step.run(&[x])?;
    }
    for ((path, a), (_, b)) in recorded.state().into_iter().zip(captured.state()) {
        assert_eq!(a.to_vec::<f32>()?, b.to_vec::<f32>()?, "{path}");
    }
    Ok(())
}
