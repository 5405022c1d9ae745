//! Parameters change while readers, views, other optimizers and other threads look on: old versions stay what they were,
//! and a step that fails changes nothing.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tapeflow::data::Loader;
use tapeflow::prelude::*;
use tapeflow::{Error, Problem, Result, Slot, commit, program_cache, without_fusion};

#[derive(Module)]
struct Point {
    w: Parameter,
}

impl Point {
    fn new(values: &[f64]) -> Point {
        Point { w: Parameter::new(Tensor::from_slice(values, [values.len()])).unwrap() }
    }

    /// Σ w², whose gradient is 2 w.
    fn loss(&self) -> Tensor {
        self.w.tensor().square().sum()
    }

    fn values(&self) -> Vec<f64> {
        self.w.tensor().to_vec().unwrap()
    }
}

fn mlp(seed: u64) -> Mlp {
    Mlp::new(&[3, 8, 2], Tensor::tanh, &Generator::new(seed)).unwrap()
}

/// Inputs and targets that differ from step to step.
fn batch(step: u64, rows: usize) -> (Tensor, Tensor) {
    let generator = Generator::new(1000 + step);
    (generator.randn([rows, 3]), generator.rand([rows, 2]))
}

const GPT: GptConfig =
    GptConfig { block_size: 8, vocab_size: 13, n_layer: 2, n_head: 2, n_embd: 16, dropout: 0.0, bias: true };

fn gpt(seed: u64) -> Gpt {
    Gpt::new(&GPT, &Generator::new(seed)).unwrap()
}

fn tokens(step: u64, shift: i64) -> Tensor {
    Tensor::from_vec((0..24).map(|i| (i * i + shift + step as i64) % 13).collect(), [3, 8])
}

fn gpt_step(model: &Gpt, optimizer: &mut AdamW, step: u64) -> Result<()> {
    let loss = model.loss(&tokens(step, 0), &tokens(step, 1));
    let (gradients, _) = loss.backward()?.clip_norm(1.0);
    optimizer.step(gradients)
}

/// The bits of tensors by name; no handle of them is left.
fn bits(state: Vec<(String, Tensor)>) -> Vec<(String, Vec<u8>)> {
    state.into_iter().map(|(name, t)| (name, t.with_bytes(<[u8]>::to_vec).unwrap())).collect()
}

#[test]
fn a_reader_recorded_before_a_step_sees_the_old_values() -> Result<()> {
    let p = Point::new(&[1.0, -2.0, 3.0]);
    let mut sgd = Sgd::new(&p).learning_rate(0.1);
    let mut readers = Vec::new();
    for _ in 0..4 {
        let before = Tensor::from_vec(p.values(), [3]).square().sum().item::<f64>()?;
        let n = p.w.tensor().square().sum();
        readers.push((p.w.tensor().square().sum(), before));
        sgd.step(p.loss().backward()?)?;
        assert_eq!(n.item::<f64>()?, before);
    }
    for (reader, before) in readers {
        assert_eq!(reader.item::<f64>()?, before);
    }
    Ok(())
}

#[test]
fn a_reader_of_a_reader_sees_the_old_values_even_if_the_first_was_read() -> Result<()> {
    let p = Point::new(&[1.0, -2.0, 3.0]);
    let mut sgd = Sgd::new(&p).learning_rate(0.1);
    let first = p.w.tensor() * 2.0;
    assert_eq!(first.to_vec::<f64>()?, [2.0, -4.0, 6.0]);
    let second = &first + &p.w.tensor();
    sgd.step(p.loss().backward()?)?;
    assert_eq!(second.to_vec::<f64>()?, [3.0, -6.0, 9.0]);
    assert_eq!((first + 1.0).to_vec::<f64>()?, [3.0, -3.0, 7.0]);
    Ok(())
}

#[test]
fn live_views_and_handles_of_old_versions_stay_valid() -> Result<()> {
    let p = Point::new(&[1.0, 2.0, 3.0, 4.0]);
    let mut adam = Adam::new(&p).learning_rate(0.1);
    let mut kept = Vec::new();
    for _ in 0..5 {
        let now = p.values();
        let handle = p.w.tensor();
        let (view, of_temporary) = (handle.slice(0, 1..3), p.w.tensor().reshape([2, 2]).t());
        let read = p.w.tensor().slice(0, ..2);
        assert_eq!(read.to_vec::<f64>()?, now[..2]);
        kept.push((now, handle, view, of_temporary, read));
        adam.step(p.loss().backward()?)?;
        // Once without a live handle of the version, so that its memory may be taken over under the views.
        let (now, view) = (p.values(), p.w.tensor().slice(0, 1..3));
        adam.step(p.loss().backward()?)?;
        assert_eq!(view.to_vec::<f64>()?, now[1..3]);
    }
    for (now, handle, view, of_temporary, read) in kept {
        assert_eq!(handle.to_vec::<f64>()?, now);
        assert_eq!(view.to_vec::<f64>()?, now[1..3]);
        assert_eq!(of_temporary.to_vec::<f64>()?, [now[0], now[2], now[1], now[3]]);
        assert_eq!(read.to_vec::<f64>()?, now[..2]);
    }
    Ok(())
}

#[test]
fn a_gradient_that_is_another_parameters_value_keeps_it() -> Result<()> {
    let pair = (Parameter::new(Tensor::from_vec(vec![1.0f64, 2.0], [2]))?, Parameter::new(Tensor::from_vec(vec![3.0, 4.0], [2]))?);
    let mut sgd = Sgd::new(&pair).learning_rate(0.5);
    let gradients = (pair.0.tensor() * pair.1.tensor()).sum().backward()?;
    let (kept, detached) = (gradients.clone(), pair.0.tensor().detach());
    sgd.step(gradients)?;
    assert_eq!(kept.get(&pair.0).unwrap().to_vec::<f64>()?, [3.0, 4.0]);
    assert_eq!(kept.get(&pair.1).unwrap().to_vec::<f64>()?, [1.0, 2.0]);
    assert_eq!(detached.to_vec::<f64>()?, [1.0, 2.0]);
    assert_eq!(pair.0.tensor().to_vec::<f64>()?, [-0.5, 0.0]);
    assert_eq!(pair.1.tensor().to_vec::<f64>()?, [2.5, 3.0]);
    Ok(())
}

#[test]
fn what_is_recorded_twice_is_right_twice() -> Result<()> {
    let x = Tensor::from_vec(vec![1.0f64, 2.0], [2]);
    let [a, b] = [0, 1].map(|_| x.square().sum());
    Tensor::realize_all(&[&a, &b])?;
    assert_eq!((a.item::<f64>()?, b.item::<f64>()?), (5.0, 5.0));
    let [s, t] = [0, 1].map(|_| Slot::new(Tensor::zeros([2], DType::F64) + 1.0).unwrap());
    commit(&[(&s, x.exp()), (&t, x.exp())])?;
    commit(&[(&s, s.tensor() * 0.0), (&t, t.tensor() * 1.0)])?;
    assert_eq!((s.tensor().to_vec::<f64>()?, t.tensor().to_vec::<f64>()?), (vec![0.0; 2], x.exp().to_vec()?));
    Ok(())
}

#[test]
fn two_optimizers_on_one_model() -> Result<()> {
    let p = Point::new(&[1.0, -2.0]);
    let (mut one, mut two) = (Sgd::new(&p).learning_rate(0.25), Sgd::new(&p).learning_rate(0.125));
    // In turn: each sees what the other did.
    one.step(p.loss().backward()?)?;
    two.step(p.loss().backward()?)?;
    assert_eq!(p.values(), [0.375, -0.75]);
    // Both gradients of one version: the second step starts from the new version with the old gradient.
    let (a, b) = (p.loss().backward()?, p.loss().backward()?);
    one.step(a)?;
    two.step(b)?;
    assert_eq!(p.values(), [0.375 * 0.25, -0.75 * 0.25]);
    // One gradient for both.
    let gradients = p.loss().backward()?;
    one.step(gradients.clone())?;
    two.step(gradients)?;
    assert_eq!(p.values(), [0.375 * 0.0625, -0.75 * 0.0625]);
    Ok(())
}

#[test]
fn a_thousand_losses_kept() -> Result<()> {
    let model = mlp(1);
    let mut optimizer = AdamW::new(&model).learning_rate(0.01);
    let (x, y) = batch(0, 4);
    Tensor::realize_all(&[&x, &y])?;
    let (mut kept, mut read) = (Vec::new(), Vec::new());
    for step in 0..1000 {
        let loss = model.forward(&x).mse_loss(&y);
        optimizer.step(loss.backward()?)?;
        if step % 100 == 0 {
            read.push((step, loss.item::<f32>()?));
        }
        kept.push(loss);
    }
    for (step, value) in read {
        assert_eq!(kept[step].item::<f32>()?, value);
    }
    assert!(kept.iter().all(Tensor::is_realized));
    assert!(kept[999].item::<f32>()? < 0.1 * kept[0].item::<f32>()?);
    Ok(())
}

#[test]
fn a_thousand_losses_read_at_the_end_without_steps_between() -> Result<()> {
    let w = Parameter::new(Tensor::scalar(3.0f64))?;
    let kept: Vec<Tensor> = (0..1000).map(|i| w.tensor() * f64::from(i)).collect();
    w.set(&Tensor::scalar(5.0f64))?;
    for (i, loss) in kept.iter().enumerate() {
        assert_eq!(loss.item::<f64>()?, 3.0 * i as f64);
    }
    Ok(())
}

#[test]
fn evaluation_between_backward_and_step_changes_nothing() -> Result<()> {
    let train = |evaluate: bool| {
        let model = gpt(3);
        let mut optimizer = AdamW::new(&model).learning_rate(1e-2);
        for step in 0..6 {
            let loss = model.loss(&tokens(step, 0), &tokens(step, 1));
            let gradients = loss.backward()?;
            if evaluate {
                let held_out = || model.loss(&tokens(77, 0), &tokens(77, 1)).item::<f32>();
                assert!(no_grad(|| model.eval(held_out))?.is_finite());
                assert!(model.eval(held_out)?.is_finite());
                assert!(loss.item::<f32>()?.is_finite());
            }
            optimizer.step(gradients)?;
        }
        Ok::<_, Error>(bits(model.state()))
    };
    assert_eq!(train(true)?, train(false)?);
    Ok(())
}

#[test]
fn the_last_partial_batch() -> Result<()> {
    let epochs = || {
        let model = mlp(2);
        let mut optimizer = Sgd::new(&model).learning_rate(0.1).momentum(0.9);
        let (x, y) = batch(5, 10);
        Tensor::realize_all(&[&x, &y])?;
        for _ in 0..3 {
            for start in (0..10).step_by(4) {
                let rows = start..(start + 4).min(10);
                let loss = model.forward(&x.slice(0, rows.clone())).mse_loss(&y.slice(0, rows));
                optimizer.step(loss.backward()?)?;
            }
        }
        Ok::<_, Error>(bits(model.state()))
    };
    assert_eq!(epochs()?, without_fusion(epochs)?);
    Ok(())
}

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
fn the_same_tensor_bound_twice() -> Result<()> {
    let x = Tensor::from_vec(vec![1.0f64, 2.0, 3.0, 4.0], [2, 2]);
    assert_eq!((&x + &x).to_vec::<f64>()?, [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(x.matmul(&x).to_vec::<f64>()?, [7.0, 10.0, 15.0, 22.0]);
    assert_eq!(x.matmul(&x.t()).to_vec::<f64>()?, [5.0, 11.0, 11.0, 25.0]);
    // The same program must not serve one tensor twice and two tensors: they are two keys.
    let y = Tensor::from_vec(vec![0.0f64; 4], [2, 2]);
    assert_eq!((&x + &y).to_vec::<f64>()?, [1.0, 2.0, 3.0, 4.0]);

    // Two parameters that start as one tensor: a step must not write the memory they share.
    let [a, b] = [Parameter::new(x.clone())?, Parameter::new(x.clone())?];
    let both = (a.clone(), b.clone());
    let mut sgd = Sgd::new(&both).learning_rate(0.25);
    for _ in 0..2 {
        sgd.step((a.tensor().square().sum() - b.tensor().square().sum()).backward()?)?;
    }
    assert_eq!(a.tensor().to_vec::<f64>()?, [0.25, 0.5, 0.75, 1.0]);
    assert_eq!(b.tensor().to_vec::<f64>()?, [2.25, 4.5, 6.75, 9.0]);
    assert_eq!(x.to_vec::<f64>()?, [1.0, 2.0, 3.0, 4.0]);

    // One parameter read at two places, and one new value for two slots.
    let w = Parameter::new(x.clone())?;
    let gradients = (w.tensor().sum() + (w.tensor() * 3.0).sum()).backward()?;
    assert_eq!(gradients.get(&w).unwrap().to_vec::<f64>()?, [4.0; 4]);
    let [s, t] = [Slot::new(Tensor::zeros([2], DType::F64) + 1.0)?, Slot::new(Tensor::zeros([2], DType::F64) + 2.0)?];
    let sum = s.tensor() + t.tensor();
    commit(&[(&s, sum.clone()), (&t, sum)])?;
    commit(&[(&s, s.tensor() * 10.0), (&t, t.tensor() + 1.0)])?;
    assert_eq!((s.tensor().to_vec::<f64>()?, t.tensor().to_vec::<f64>()?), (vec![30.0; 2], vec![4.0; 2]));
    Ok(())
}

#[test]
fn slots_can_exchange_their_values() -> Result<()> {
    let [a, b] = [1.0f64, 2.0].map(|v| Slot::new(Tensor::from_vec(vec![v; 3], [3])).unwrap());
    for _ in 0..3 {
        commit(&[(&a, b.tensor() * 1.0), (&b, a.tensor() * 1.0)])?;
    }
    assert_eq!((a.tensor().to_vec::<f64>()?, b.tensor().to_vec::<f64>()?), (vec![2.0; 3], vec![1.0; 3]));
    let (x, y) = (a.tensor(), b.tensor());
    commit(&[(&a, y), (&b, x)])?;
    assert_eq!((a.tensor().to_vec::<f64>()?, b.tensor().to_vec::<f64>()?), (vec![1.0; 3], vec![2.0; 3]));
    // A value that needs its neighbours must not be written over what it still reads.
    let line = Slot::new(Tensor::from_vec((0..5000).map(f64::from).collect(), [5000]))?;
    for _ in 0..2 {
        let x = line.tensor();
        commit(&[(&line, Tensor::cat(&[x.slice(0, 1..), x.slice(0, ..1)], 0))])?;
    }
    assert_eq!(line.tensor().slice(0, 4996..).to_vec::<f64>()?, [4998.0, 4999.0, 0.0, 1.0]);
    let turned = Slot::new(Tensor::from_vec((0..10_000).map(f64::from).collect(), [100, 100]))?;
    commit(&[(&turned, turned.tensor().t() + 0.0)])?;
    assert_eq!(turned.tensor().slice(0, 1..2).slice(1, ..3).to_vec::<f64>()?, [1.0, 101.0, 201.0]);
    Ok(())
}

#[test]
fn a_check_that_depends_on_an_updated_value() -> Result<()> {
    let w = Slot::new(Tensor::from_vec(vec![0.0f64, 1.0, 2.0], [3]))?;
    // What is looked up comes from the new value, and is wanted in the same program.
    for shift in [1.0, 7.0] {
        let new = w.tensor() + 1.0;
        let index = (&new - shift).cast(DType::I64);
        let picked = new.index_select(0, &index);
        let before = w.tensor().to_vec::<f64>()?;
        let kept = &before;
        let done = commit(&[(&w, new)]);
        match shift == 1.0 {
            true => {
                done?;
                assert_eq!(picked.to_vec::<f64>()?, [1.0, 2.0, 3.0]);
            }
            false => {
                assert!(matches!(done.unwrap_err().problem(), Problem::Run(_)));
                assert_eq!(&w.tensor().to_vec::<f64>()?, kept);
            }
        }
    }
    Ok(())
}

#[test]
fn forced_hash_collisions_change_nothing() -> Result<()> {
    let train = || {
        let model = mlp(9);
        let mut optimizer = AdamW::new(&model);
        for step in 0..5 {
            let (x, y) = batch(step, 3 + step as usize % 3);
            optimizer.step(model.forward(&x).mse_loss(&y).backward()?)?;
        }
        Ok::<_, Error>(bits(model.state()))
    };
    let apart = train()?;
    // From here on every program of this process lies in one bucket, and only the full comparison tells them apart.
    tapeflow::__test::collide_program_hashes();
    let (compiled, _) = program_cache();
    assert_eq!(train()?, apart);
    let x = Tensor::from_vec(vec![1.0f32, 2.0], [2]);
    assert_eq!((&x + 1.0).to_vec::<f32>()?, [2.0, 3.0]);
    assert_eq!((&x * 3.0).to_vec::<f32>()?, [3.0, 6.0]);
    assert_eq!((&x + 1.0).to_vec::<f32>()?, [2.0, 3.0]);
    assert!(program_cache().0 >= compiled);
    Ok(())
}

#[test]
fn an_index_out_of_range_leaves_everything_as_it_was() -> Result<()> {
    let train = |spoil: bool| {
        let model = gpt(5);
        let mut optimizer = AdamW::new(&model).learning_rate(1e-2);
        for step in 0..8 {
            if spoil && step >= 2 {
                let before = (bits(model.state()), bits(optimizer.state()), optimizer.steps());
                let wrong = Tensor::full([3, 8], 13.0, DType::I64);
                let (inputs, targets) = (tokens(step, 0), tokens(step, 1));
                let cases = [(&wrong, &targets, "wte"), (&inputs, &wrong, ""), (&inputs, &(&wrong - 27), "")];
                for (inputs, targets, place) in cases {
                    let loss = model.loss(inputs, targets);
                    let error = optimizer.step(loss.backward()?).unwrap_err();
                    let Error::Tensor(error) = error else { panic!("{error}") };
                    assert!(matches!(error.problem(), Problem::Run(_)), "{error}");
                    assert_eq!(error.module_path(), place);
                    let after = (bits(model.state()), bits(optimizer.state()), optimizer.steps());
                    assert!(before == after, "a failed step changed something");
                }
            }
            gpt_step(&model, &mut optimizer, step)?;
        }
        Ok::<_, Error>((bits(model.state()), bits(optimizer.state())))
    };
    assert!(train(true)? == train(false)?, "training went on differently");
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
fn backward_through_a_released_value_says_so() -> Result<()> {
    let p = Point::new(&[1.0, 2.0]);
    let mut sgd = Sgd::new(&p).learning_rate(0.1);
    let loss = p.loss();
    // Reading alone releases nothing.
    assert_eq!(loss.item::<f64>()?, 5.0);
    assert_eq!(loss.backward()?.get(&p.w).unwrap().to_vec::<f64>()?, [2.0, 4.0]);
    sgd.step(loss.backward()?)?;
    assert_eq!(*loss.backward().unwrap_err().problem(), Problem::Released);
    assert_eq!(*(&loss + p.loss()).backward().unwrap_err().problem(), Problem::Released);
    // `detach` says that it is a number by now.
    assert!((&loss.detach() + p.loss()).backward().is_ok());
    Ok(())
}

#[test]
fn grad_through_a_released_value_is_no_silent_zero() -> Result<()> {
    let p = Point::new(&[1.0, 2.0]);
    let mut sgd = Sgd::new(&p).learning_rate(0.1);
    let x = Tensor::from_vec(vec![3.0f64, 4.0], [2]).with_grad()?;
    let product = &x * &p.w.tensor();
    sgd.step(p.loss().backward()?)?;
    // d/dx (x + x·w) = 1 + w, of which the second part cannot be known any more.
    let error = grad(&(x.sum() + product.sum()), &[&x]).unwrap_err();
    assert_eq!(*error.problem(), Problem::Released);
    Ok(())
}

#[test]
fn nothing_to_differentiate() -> Result<()> {
    let p = Point::new(&[1.0, 2.0]);
    let nothing = |t: &Tensor| assert_eq!(*t.backward().unwrap_err().problem(), Problem::NothingToDifferentiate);
    nothing(&Tensor::scalar(1.0f32).exp());
    nothing(&no_grad(|| p.loss()));
    nothing(&p.loss().detach());
    nothing(&p.w.tensor().argmax(0, false).cast(DType::F64).detach());
    p.freeze("*")?;
    nothing(&p.loss());
    p.unfreeze("w")?;
    assert!(p.loss().backward().is_ok());
    Ok(())
}

/// The integer becomes part of the value, by way of an `if`.
#[kernel]
fn times(i: i32, x: f64) -> f64 {
    x * (if i > 1 { i } else { 1 }) as f64
}

#[kernel]
fn times_through_a_call(i: i32, x: f64) -> f64 {
    times(i + 1, x) + 1.0
}

#[test]
fn a_cotangent_never_stops_silently() {
    let p = Point::new(&[1.0, 2.0]);
    let severed = |t: Tensor| {
        let error = t.backward().unwrap_err();
        assert!(matches!(error.problem(), Problem::Severed { .. }), "{error}");
    };
    severed(p.w.tensor().cast(DType::I64).cast(DType::F64).sum());
    severed(p.w.tensor().gt(&Tensor::scalar(0.5f64)).cast(DType::F64).sum());
    severed(p.loss() + p.w.tensor().argmax(0, false).cast(DType::F64));
    let bits = p.w.tensor().gt(&Tensor::scalar(0.5f64)).logical_not();
    severed(bits.reshape([2, 1]).cast(DType::F64).sum());
    let whole = p.w.tensor().cast(DType::I32);
    severed(times::map(&whole, &p.w.tensor()).sum());
    severed(times_through_a_call::map(&whole, &p.w.tensor()).sum());
    // What only chooses needs no derivative.
    let chosen = p.w.tensor().gt(&Tensor::scalar(1.5f64)).where_(&p.w.tensor(), &Tensor::scalar(0.0f64));
    assert_eq!(chosen.sum().backward().unwrap().get(&p.w).unwrap().to_vec::<f64>().unwrap(), [0.0, 1.0]);
}

#[test]
fn gradients_of_small_batches_add_up() -> Result<()> {
    let model = mlp(7);
    let (x, y) = batch(1, 8);
    Tensor::realize_all(&[&x, &y])?;
    let of = |rows: std::ops::Range<usize>| {
        model.forward(&x.slice(0, rows.clone())).mse_loss(&y.slice(0, rows)).backward()
    };
    let whole = of(0..8)?;
    let parts = of(0..2)?.add(of(2..4)?).add(of(4..6)?).add(of(6..8)?).scale(0.25);
    assert_eq!(parts.len(), 4);
    for parameter in model.parameters() {
        let (a, b) = (whole.get(&parameter).unwrap().to_vec::<f32>()?, parts.get(&parameter).unwrap().to_vec::<f32>()?);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-6 + 1e-5 * a.abs()), "{a:?} {b:?}");
    }
    // Those that only one side reached stay as they are.
    let [a, b] = [Point::new(&[1.0]), Point::new(&[2.0])];
    let sum = a.loss().backward()?.add((a.loss() + b.loss()).backward()?);
    assert_eq!(sum.get(&a.w).unwrap().item::<f64>()?, 4.0);
    assert_eq!(sum.get(&b.w).unwrap().item::<f64>()?, 4.0);
    Sgd::new(&(a.w.clone(), b.w.clone())).learning_rate(0.25).step(sum)?;
    assert_eq!((a.values(), b.values()), (vec![0.0], vec![1.0]));
    Ok(())
}

#[test]
fn no_grad_and_detach_keep_gradients_out() -> Result<()> {
    let p = Point::new(&[3.0]);
    let w = p.w.tensor();
    let gradient = |t: Tensor| t.backward().map(|g| g.get(&p.w).unwrap().item::<f64>().unwrap());
    assert_eq!(gradient((&w * &w.detach()).sum())?, 3.0);
    let factor = no_grad(|| &w * 2.0);
    assert!(!factor.requires_grad());
    assert_eq!(gradient((&w * &factor).sum())?, 6.0);
    assert_eq!(gradient((&w * &w).sum())?, 6.0);
    // Numbers to whatever is outside, and through `grad` too, read before or not.
    let x = Tensor::scalar(3.0f64);
    let square = no_grad(|| &x * &x);
    assert_eq!(grad(&(&x * &square), &[&x])?[0].item::<f64>()?, 9.0);
    assert!(matches!(grad(&square, &[&x]).unwrap_err().problem(), Problem::Independent { .. }));
    assert_eq!(square.item::<f64>()?, 9.0);
    assert_eq!(grad(&(&x * &square), &[&x])?[0].item::<f64>()?, 9.0);
    // But a derivative by such a value is one.
    let y = no_grad(|| &x * 2.0);
    assert_eq!(grad(&(&y * &y), &[&y])?[0].item::<f64>()?, 12.0);
    // A panic inside must not leave gradients off.
    let panicked = std::panic::catch_unwind(|| no_grad(|| panic!("on purpose")));
    assert!(panicked.is_err());
    assert_eq!(gradient((&w * &w).sum())?, 6.0);
    Ok(())
}

#[test]
fn freezing_by_pattern_keeps_bits() -> Result<()> {
    let model = gpt(8);
    model.freeze("h.0.*")?;
    model.freeze("*.bias")?;
    let is_frozen = |path: &str| path.starts_with("h.0.") || path.ends_with(".bias");
    let before = bits(model.state());
    let mut optimizer = AdamW::new(&model).learning_rate(1e-2).weight_decay(0.1);
    for step in 0..3 {
        let gradients = model.loss(&tokens(step, 0), &tokens(step, 1)).backward()?;
        let unreached = gradients.unreached(&model.parameters());
        assert!(!unreached.is_empty() && unreached.iter().all(|path| is_frozen(path)), "{unreached:?}");
        optimizer.step(gradients)?;
    }
    for ((path, old), (_, new)) in before.iter().zip(bits(model.state())) {
        assert_eq!(*old == new, is_frozen(path), "{path}");
    }
    // Thawed, they learn again; what was recorded before stays without.
    let recorded_frozen = model.loss(&tokens(9, 0), &tokens(9, 1));
    model.unfreeze("*")?;
    assert!(!recorded_frozen.backward()?.unreached(&model.parameters()).is_empty());
    assert!(model.loss(&tokens(9, 0), &tokens(9, 1)).backward()?.unreached(&model.parameters()).is_empty());
    Ok(())
}

#[test]
fn a_state_with_a_mistake_in_it_sets_nothing() {
    let model = mlp(11);
    let before = bits(model.state());
    let mut state: Vec<(String, Tensor)> =
        model.state().into_iter().map(|(name, t)| (name, Tensor::ones(t.shape(), DType::F32))).collect();
    let last = state.last_mut().unwrap();
    // The right shape, and a mistake behind it that only computing it shows.
    let index = Tensor::from_vec(vec![99i64; last.1.numel()], [last.1.numel()]);
    last.1 = Tensor::ones([3], DType::F32).index_select(0, &index).reshape(last.1.shape().to_vec());
    assert!(model.load_state(state).is_err());
    assert_eq!(bits(model.state()), before);
}
