//! Parameters in eight bits: their values, what reads them, what is refused, and a model that generates with them.

use std::sync::{Mutex, PoisonError};

use tapeflow::prelude::*;
use tapeflow::{Result, capture, commit, memory_report, reset_memory_peak};

/// Memory is the process's: what counts it and what takes much of it run one after the other.
static SERIAL: Mutex<()> = Mutex::new(());

fn drawn(seed: u64, shape: [usize; 2]) -> Tensor {
    Generator::new(seed).randn(shape)
}

#[test]
fn values_are_off_by_half_a_scale_at_most() -> Result<()> {
    let weight = Parameter::new(drawn(1, [7, 33]))?;
    let before = weight.tensor().to_vec::<f32>()?;
    weight.quantize_int8()?;
    assert!(weight.is_quantized() && !weight.is_trainable());
    assert_eq!((weight.tensor().dims(), weight.tensor().dtype()), ([7, 33], DType::F32));
    let after = weight.tensor().to_vec::<f32>()?;
    for (a, b) in before.chunks(33).zip(after.chunks(33)) {
        let scale = a.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
        assert!(a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 0.5001 * scale));
    }
    // What was codes before is the same codes again.
    weight.quantize_int8()?;
    assert_eq!(weight.tensor().to_vec::<f32>()?, after);
    // Zeros are kept as they are.
    weight.set(&Tensor::zeros([7, 33], DType::F32))?;
    assert!(!weight.is_quantized());
    weight.quantize_int8()?;
    assert_eq!(weight.tensor().to_vec::<f32>()?, vec![0.0; 7 * 33]);
    Ok(())
}

#[test]
fn layers_read_the_codes_as_they_are() -> Result<()> {
    let _alone = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    let (layer, table) = (Linear::new(300, 400)?.bias(false), Embedding::new(400, 300)?);
    let x = drawn(2, [3, 300]);
    let index = Tensor::from_vec(vec![5i64, 399, 0, 5], [2, 2]);
    let run = || (layer.forward(&x), table.forward(&index));
    let whole = run();
    Tensor::realize_all(&[&x, &index, &whole.0, &whole.1])?;
    layer.quantize_int8("weight")?;
    table.quantize_int8("weight")?;
    let values = x.matmul(&layer.weight.tensor().t()).to_vec::<f32>()?;
    let rows = table.weight.tensor().embedding(&index).to_vec::<f32>()?;
    reset_memory_peak();
    let before = memory_report().peak;
    let (y, picked) = run();
    let (y, picked) = (y.to_vec::<f32>()?, picked.to_vec::<f32>()?);
    let used = memory_report().peak - before;
    assert!(used < 300 * 400, "{used} bytes: a weight was made whole");
    assert_eq!(picked, rows);
    for ((a, b), exact) in y.iter().zip(&values).zip(whole.0.to_vec::<f32>()?) {
        assert!((a - b).abs() < 1e-4 && (a - exact).abs() < 0.1, "{a}, by its values {b}, before {exact}");
    }
    Ok(())
}

#[test]
fn rows_get_gradients_and_weights_get_none() -> Result<()> {
    let weight = Parameter::new(drawn(3, [6, 5]))?;
    weight.quantize_int8()?;
    let x = Parameter::new(drawn(4, [2, 5]))?;
    let gradients = weight.linear(&x.tensor()).square().sum().backward()?;
    let spelled = x.tensor().matmul(&weight.tensor().t()).square().sum().backward()?;
    let of = |gradients: &tapeflow::Gradients| gradients.get(&x).map(|g| g.to_vec::<f32>()).transpose();
    for (a, b) in of(&gradients)?.unwrap_or_default().iter().zip(of(&spelled)?.unwrap_or_default()) {
        assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a} and {b}");
    }
    assert!(gradients.get(&weight).is_none());
    Ok(())
}

#[test]
fn what_cannot_be_is_said() -> Result<()> {
    let said = |r: tapeflow::Result<()>| r.unwrap_err().to_string();
    let bias = Parameter::new(Tensor::zeros([3], DType::F32))?;
    assert!(said(bias.quantize_int8().map_err(Into::into)).contains("(3,)"));
    let wild = Parameter::new(Tensor::from_vec(vec![1.0f32, f32::NAN], [1, 2]))?;
    assert!(said(wild.quantize_int8().map_err(Into::into)).contains("not finite"));
    assert!(!wild.is_quantized() && wild.is_trainable());
    let weight = Parameter::new(drawn(5, [2, 2]))?;
    weight.quantize_int8()?;
    let update = commit(&[(weight.slot(), drawn(6, [2, 2]))]);
    assert!(said(update.map_err(Into::into)).contains("eight bits"));
    assert!(said(weight.freeze(false).map_err(Into::into)).contains("eight bits"));
    weight.freeze(true)?;
    let layer = Linear::new(2, 2)?;
    assert!(said(layer.quantize_int8("bias").map(drop)).contains("bias"), "it has one axis");
    let short = weight.linear(&Tensor::ones([1, 3], DType::F32)).to_vec::<f32>();
    assert!(said(short.map(drop).map_err(Into::into)).contains("(2, 2)"));
    Ok(())
}

#[test]
fn a_captured_step_follows_the_codes_and_their_scales() -> Result<()> {
    let weight = Parameter::new(Tensor::ones([1, 2], DType::F32))?;
    weight.quantize_int8()?;
    let (x, total) = (Tensor::ones([1, 2], DType::F32), Parameter::new(Tensor::zeros([1, 1], DType::F32))?);
    let mut step = capture(&[&x], |inputs| {
        let y = weight.linear(&inputs[0]);
        commit(&[(total.slot(), total.tensor() + &y)])?;
        Ok::<_, tapeflow::Error>(vec![y])
    })?;
    step.run(&[&x])?;
    assert_eq!(step.to_vec::<f32>(0)?, [2.0]);
    weight.set(&Tensor::from_vec(vec![6.0f32, 3.0], [1, 2]))?;
    weight.quantize_int8()?;
    step.run(&[&x])?;
    let found = step.to_vec::<f32>(0)?[0];
    assert!((found - 9.0).abs() < 0.05, "{found}");
    Ok(())
}

#[test]
fn a_model_in_eight_bits_says_nearly_the_same() -> Result<()> {
    let _alone = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    let config = GptConfig { block_size: 32, ..GptConfig::preset("tiny", 65).unwrap() };
    let model = Gpt::new(&config, &Generator::new(1))?;
    let tokens = Generator::new(2).randint(0, 65, [2, 20]);
    let loss = || model.eval(|| model.loss(&tokens, &tokens).item::<f32>());
    let before = loss()?;
    model.quantize_int8()?;
    let after = loss()?;
    assert!((before - after).abs() < 0.01 && before != after, "{before} and {after}");
    let (mut cached, mut anew) = (GenerateOptions::greedy(40), GenerateOptions::greedy(40));
    (cached.cache, anew.cache) = (true, false);
    let generate = |how: &GenerateOptions| model.generate(&[1, 2, 3], how)?.collect::<Result<Vec<u32>>>();
    assert_eq!(generate(&cached)?, generate(&anew)?);
    // What is written down are the values.
    assert!(model.state().iter().all(|(_, tensor)| tensor.dtype() == DType::F32));
    Ok(())
}
