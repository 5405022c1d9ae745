//! Several threads: a loader's, two models at once, one model twice.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tapeflow::data::Loader;

use super::*;

#[test]
fn a_loader_thread_records_meanwhile() -> Result<()> {
    // Batches are left pending: the training thread computes what the loader's thread recorded.
    fn prepared(step: u64) -> Result<(Tensor, Tensor)> {
        let (x, y) = batch(step, 6);
        Ok(((x * 0.5).tanh(), y.sqrt()))
    }
    fn train(batches: impl Iterator<Item = Result<(Tensor, Tensor)>>) -> Result<Vec<(String, Vec<u8>)>> {
        let model = mlp(4);
        let mut optimizer = AdamW::new(&model);
        for batch in batches {
            let (x, y) = batch?;
            optimizer.step(model.forward(&x).mse_loss(&y).backward()?)?;
        }
        Ok(bits(model.state()))
    }
    assert_eq!(train(Loader::new(0..60, prepared))?, train((0..60).map(prepared))?);
    Ok(())
}

#[test]
fn two_models_trained_from_two_threads_at_once() {
    let train = |seed: u64| {
        let model = gpt(seed);
        let mut optimizer = AdamW::new(&model).learning_rate(1e-2);
        for step in 0..25 {
            gpt_step(&model, &mut optimizer, step + seed).unwrap();
        }
        bits(model.state())
    };
    let alone = [train(1), train(2)];
    for _ in 0..2 {
        let together = std::thread::scope(|s| {
            let [a, b] = [1, 2].map(|seed| s.spawn(move || train(seed)));
            [a.join().unwrap(), b.join().unwrap()]
        });
        assert!(together == alone, "two trainings at once gave other bits");
    }
}

#[test]
fn one_model_trained_from_two_threads_loses_no_step_halfway() {
    let model = mlp(6);
    std::thread::scope(|s| {
        for thread in 0..2 {
            let model = &model;
            s.spawn(move || {
                let mut optimizer = Sgd::new(model).learning_rate(0.01);
                for step in 0..200 {
                    let (x, y) = batch(step * 2 + thread, 4);
                    let loss = model.forward(&x).mse_loss(&y);
                    match loss.backward() {
                        Ok(gradients) => optimizer.step(gradients).unwrap(),
                        Err(error) => assert!(matches!(error.problem(), Problem::Released), "{error}"),
                    }
                }
            });
        }
    });
    for (path, parameter) in model.named_parameters() {
        assert!(parameter.tensor().to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()), "{path}");
    }
}

#[test]
fn a_gradient_taken_while_another_thread_steps_is_right_or_an_error() {
    // 2 w is never 0: a zero would be a gradient cut silently.
    let p = Point::new(&[1.0; 64]);
    let done = AtomicBool::new(false);
    let mut taken = 0;
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut sgd = Sgd::new(&p).learning_rate(1e-6);
            for _ in 0..3000 {
                match p.loss().backward() {
                    Ok(gradients) => sgd.step(gradients).unwrap(),
                    Err(error) => assert!(matches!(error.problem(), Problem::Released), "{error}"),
                }
            }
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            let loss = p.loss();
            let gradient = match loss.backward() {
                Ok(gradients) => gradients.get(&p.w).unwrap().to_vec::<f64>(),
                Err(error) => Err(error),
            };
            match gradient {
                Ok(values) => {
                    taken += 1;
                    assert!(values.iter().all(|v| (1.0..=2.0).contains(v)), "{values:?}");
                }
                Err(error) => assert!(matches!(error.problem(), Problem::Released), "{error}"),
            }
            assert!((1.0..=64.0).contains(&loss.item::<f64>().unwrap()));
        }
    });
    assert!(taken > 0);
}

#[test]
fn at_most_two_programs_are_in_flight() {
    std::thread::scope(|s| {
        for seed in 0..6 {
            s.spawn(move || {
                let x = Generator::new(seed).rand([96, 96]);
                for _ in 0..20 {
                    x.matmul(&x).sum().item::<f32>().unwrap();
                }
            });
        }
    });
    assert!((1..=2).contains(&tapeflow::__test::programs_in_flight()));
}
