//! Whole trainings: what may stand between steps, and that a step is all or nothing.

use tapeflow::{Slot, commit, without_fusion};

use super::*;

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
