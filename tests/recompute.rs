//! Recomputation: the same bits as without it, in less memory.

use tapeflow::prelude::*;
use tapeflow::{Result, planned_bytes, recompute};

/// What one training step of `model` takes: the loss and all gradients.
fn planned(model: &Gpt, batch: usize) -> Result<usize> {
    let (t, v) = (model.config().block_size, model.config().vocab_size as i64);
    let tokens: Vec<i64> = (0..(batch * t) as i64).map(|i| i % v).collect();
    let tokens = Tensor::from_vec(tokens, [batch, t]);
    let loss = model.loss(&tokens, &tokens);
    let gradients = loss.backward()?;
    let asked: Vec<&Tensor> = gradients.iter().map(|(_, g)| g).chain([&loss]).collect();
    Ok(planned_bytes(&asked)?)
}

#[test]
fn a_step_at_baby_takes_less_memory() -> Result<()> {
    let config = GptConfig::preset("baby", 65).unwrap();
    let model = Gpt::new(&config, &Generator::new(1))?;
    let plain = planned(&model, 64)?;
    let again = planned(&model.recompute(true), 64)?;
    println!("planned: {plain} bytes, {again} with recomputation");
    assert!(again * 3 < plain, "{again} is not less than a third of {plain}");
    Ok(())
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn small(dropout: f64) -> GptConfig {
    GptConfig { block_size: 8, vocab_size: 11, n_layer: 2, n_head: 2, n_embd: 16, dropout, bias: true }
}

/// Losses of some steps of training with dropout, and every parameter after them.
fn trained(again: bool, read_first: bool) -> Result<Vec<Vec<u32>>> {
    let generator = Generator::new(3);
    let model = Gpt::new(&small(0.3), &generator)?.recompute(again);
    let mut optimizer = AdamW::new(&model).learning_rate(1e-2);
    let mut out = Vec::new();
    for step in 0..4i64 {
        let tokens: Vec<i64> = (0..24).map(|i| (i * 7 + step) % 11).collect();
        let tokens = Tensor::from_vec(tokens, [3, 8]);
        let loss = model.loss(&tokens, &tokens);
        if read_first {
            // The loss is computed before anybody asks for gradients: backward begins from what was kept.
            loss.item::<f32>()?;
        }
        optimizer.step(loss.backward()?.clip_norm(1.0).0)?;
        out.push(bits(&[loss.item::<f32>()?]));
    }
    for (_, parameter) in model.named_parameters() {
        out.push(bits(&parameter.tensor().to_vec::<f32>()?));
    }
    Ok(out)
}

#[test]
fn training_with_dropout_has_the_same_bits() -> Result<()> {
    let plain = trained(false, false)?;
    assert_eq!(plain, trained(true, false)?);
    assert_eq!(plain, trained(true, true)?);
    assert_eq!(plain, trained(false, true)?);
    assert_eq!(plain, tapeflow::without_fusion(|| trained(true, false))?);
    Ok(())
}

/// A chain of wide layers, of which each is a region in a region of two.
fn chain(weights: &[Parameter], x: &Tensor, outer: bool, inner: bool) -> Tensor {
    let wrapped = |wanted: bool, f: &dyn Fn() -> Tensor| if wanted { recompute(f) } else { f() };
    let layer = |x: &Tensor, w: &Parameter| x.matmul(&w.tensor()).tanh().exp().sin();
    weights.chunks(2).fold(x.clone(), |x, pair| {
        wrapped(outer, &|| pair.iter().fold(x.clone(), |x, w| wrapped(inner, &|| layer(&x, w))))
    })
}

#[test]
fn regions_in_regions_give_the_same_gradients_in_less_memory() -> Result<()> {
    let generator = Generator::new(5);
    let weights: Vec<Parameter> =
        (0..8).map(|_| Parameter::new(generator.randn([32, 32]) * 0.2)).collect::<Result<_, _>>()?;
    let x = generator.randn([512, 32]);
    x.realize()?;
    let run = |outer, inner| -> Result<(usize, Vec<Vec<u32>>)> {
        let loss = chain(&weights, &x, outer, inner).square().sum();
        let gradients = loss.backward()?;
        let asked: Vec<&Tensor> = gradients.iter().map(|(_, g)| g).collect();
        let planned = planned_bytes(&asked)?;
        let found = weights.iter().map(|w| Ok(bits(&gradients.get(w).unwrap().to_vec::<f32>()?)));
        Ok((planned, found.collect::<Result<_>>()?))
    };
    let (plain, expected) = run(false, false)?;
    for (outer, inner) in [(true, false), (false, true), (true, true)] {
        let (planned, found) = run(outer, inner)?;
        assert_eq!(found, expected, "outer {outer}, inner {inner}");
        assert!(planned < plain, "outer {outer}, inner {inner}: {planned} of {plain} bytes");
    }
    Ok(())
}

#[test]
fn gradients_of_gradients_and_the_reference_device() -> Result<()> {
    let values: Vec<f64> = (0..6).map(|i| 0.3 * f64::from(i) - 0.7).collect();
    let twice = |x: &Tensor, again: bool| -> Result<Vec<f64>> {
        let f = || (x.sin() * x).exp();
        let y = if again { recompute(f) } else { f() };
        let first = grad(&y.sum(), &[x])?.remove(0);
        Ok(grad(&first.square().sum(), &[x])?.remove(0).to_vec::<f64>()?)
    };
    let x = Tensor::from_vec(values.clone(), [6]);
    assert_eq!(twice(&x, true)?, twice(&x, false)?);
    Device::reference().scope(|| {
        let x = Tensor::from_vec(values, [6]);
        assert_eq!(twice(&x, true)?, twice(&x, false)?);
        Ok(())
    })
}

#[test]
fn what_is_computed_again_is_computed_from_the_first_inputs() -> Result<()> {
    // The region begins with a leaf: nothing but the barrier tells the copy from the original.
    let w = Parameter::new(Tensor::full([64, 64], 0.1, DType::F32))?;
    let x = Tensor::ones([4096, 64], DType::F32);
    x.realize()?;
    let plan = |again: bool| -> Result<usize> {
        let f = || x.matmul(&w.tensor()).exp().matmul(&w.tensor()).tanh().matmul(&w.tensor());
        let y = if again { recompute(f) } else { f() };
        // Something large between the region and its backward.
        let loss = y.matmul(&w.tensor()).exp().matmul(&w.tensor()).exp().square().sum();
        let gradients = loss.backward()?;
        Ok(planned_bytes(&[gradients.get(&w).unwrap()])?)
    };
    let (plain, again) = (plan(false)?, plan(true)?);
    assert!(again < plain, "{again} of {plain}");
    Ok(())
}

#[derive(Module)]
#[module(forward = |x| out(inner(x).tanh().exp()))]
struct Wide {
    inner: Linear,
    out: Linear,
}

#[derive(Module)]
#[module(recompute, forward = |x| out(inner(x).tanh().exp()))]
struct WideAgain {
    inner: Linear,
    out: Linear,
}

#[derive(Module)]
#[module(forward = |x| layers(x))]
struct Plain {
    layers: Vec<Wide>,
}

#[derive(Module)]
#[module(forward = |x| layers(x))]
struct OnTheField {
    #[module(recompute)]
    layers: Vec<Wide>,
}

#[derive(Module)]
#[module(forward = |x| layers(x))]
struct OnTheStruct {
    layers: Vec<WideAgain>,
}

#[test]
fn the_attribute_on_a_field_and_on_a_struct() -> Result<()> {
    let generator = Generator::new(9);
    let linear =
        || -> Result<[Linear; 2]> { Ok([Linear::drawn(8, 64, &generator)?, Linear::drawn(64, 8, &generator)?]) };
    let parts: Vec<[Linear; 2]> = (0..4).map(|_| linear()).collect::<Result<_>>()?;
    let wide = |[inner, out]: &[Linear; 2]| Wide { inner: inner.clone(), out: out.clone() };
    let again = |[inner, out]: &[Linear; 2]| WideAgain { inner: inner.clone(), out: out.clone() };
    let plain = Plain { layers: parts.iter().map(wide).collect() };
    let field = OnTheField { layers: parts.iter().map(wide).collect() };
    let whole = OnTheStruct { layers: parts.iter().map(again).collect() };
    let x = generator.randn([1024, 8]);
    x.realize()?;
    let step = |y: Tensor| -> Result<(usize, Vec<Vec<u32>>)> {
        let gradients = y.square().mean().backward()?;
        let asked: Vec<&Tensor> = gradients.iter().map(|(_, g)| g).collect();
        let planned = planned_bytes(&asked)?;
        let found = plain.parameters().into_iter().map(|p| Ok(bits(&gradients.get(&p).unwrap().to_vec::<f32>()?)));
        Ok((planned, found.collect::<Result<_>>()?))
    };
    let (most, expected) = step(plain.forward(&x))?;
    for (planned, found) in [step(field.forward(&x))?, step(whole.forward(&x))?] {
        assert_eq!(found, expected);
        assert!(planned < most * 2 / 3, "{planned} of {most} bytes");
    }
    Ok(())
}
