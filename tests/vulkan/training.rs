//! Training on Vulkan: the CPU's losses, the same bits twice.

use tapeflow::prelude::*;
use tapeflow::{Result, no_grad};

use super::Vulkan;

/// The losses of ten steps on a device.
fn losses(on: Device, train: impl Fn(u64) -> Result<Vec<f32>>) -> Vec<f32> {
    on.scope(|| train(7)).unwrap_or_else(|e| panic!("{on}: {e}"))
}

fn check(vulkan: &Vulkan, train: impl Fn(u64) -> Result<Vec<f32>>) {
    let (first, second) = (losses(vulkan.device, &train), losses(vulkan.device, &train));
    let cpu = losses(Device::cpu(), &train);
    assert_eq!(first.len(), 10);
    assert!(first.iter().zip(&second).all(|(a, b)| a.to_bits() == b.to_bits()), "{first:?} and {second:?}");
    for (step, (ours, cpu)) in first.iter().zip(&cpu).enumerate() {
        assert!((ours - cpu).abs() <= 1e-4 * cpu.abs(), "step {step}: {ours}, {cpu} on the CPU");
    }
    assert!(first[9] < first[0], "nothing was learned: {first:?}");
}

#[derive(Module)]
#[module(forward = |x| out(hidden(x).tanh()))]
struct Xor {
    hidden: Linear,
    out: Linear,
}

#[test]
fn xor() {
    let Some(vulkan) = Vulkan::open() else { return };
    check(&vulkan, |seed| {
        let generator = Generator::new(seed);
        let model = Xor { hidden: Linear::drawn(2, 8, &generator)?, out: Linear::drawn(8, 1, &generator)? };
        let inputs = Tensor::from_vec(vec![0f32, 0., 0., 1., 1., 0., 1., 1.], [4, 2]);
        let targets = Tensor::from_vec(vec![0f32, 1., 1., 0.], [4, 1]);
        let mut optimizer = Sgd::new(&model).learning_rate(0.1).momentum(0.9);
        (0..10)
            .map(|_| {
                let loss = model.forward(&inputs).mse_loss(&targets);
                optimizer.step(loss.backward()?)?;
                Ok(loss.item::<f32>()?)
            })
            .collect()
    });
}

#[test]
fn mlp() {
    let Some(vulkan) = Vulkan::open() else { return };
    check(&vulkan, |seed| {
        let generator = Generator::new(seed);
        let model = Mlp::new(&[20, 33, 33, 5], Tensor::gelu, &generator)?;
        let inputs = generator.randn([17, 20]);
        let targets = Tensor::from_vec((0..17).map(|i| i % 5).collect::<Vec<i64>>(), [17]);
        let mut optimizer = Adam::new(&model).learning_rate(1e-2);
        (0..10)
            .map(|_| {
                let loss = model.forward(&inputs).cross_entropy(&targets);
                optimizer.step(loss.backward()?)?;
                Ok(loss.item::<f32>()?)
            })
            .collect()
    });
}

pub fn gpt(seed: u64, dropout: f64) -> Result<Gpt> {
    let config = GptConfig { block_size: 16, vocab_size: 19, n_layer: 2, n_head: 2, n_embd: 32, dropout, bias: true };
    Gpt::new(&config, &Generator::new(seed))
}

/// One step with clipping and weight decay on matrices; its loss.
pub fn gpt_step(model: &Gpt, optimizer: &mut AdamW, step: i64) -> Result<Tensor> {
    let tokens = Tensor::from_vec((0..68).map(|i| (i * i + step) % 19).collect::<Vec<i64>>(), [4, 17]);
    let loss = model.loss(&tokens.slice(1, ..16), &tokens.slice(1, 1..));
    let (gradients, _) = loss.backward()?.clip_norm(1.0);
    optimizer.step(gradients)?;
    Ok(loss)
}

#[test]
fn gpt_of_two_layers() {
    let Some(vulkan) = Vulkan::open() else { return };
    for dropout in [0.0, 0.1] {
        check(&vulkan, |seed| {
            let model = gpt(seed, dropout)?;
            let mut optimizer =
                AdamW::new(&model).learning_rate(3e-3).group_where(|_, s| s.len() < 2, |g| g.weight_decay(0.0));
            // The same batch again and again, so that the loss must fall.
            (0..10).map(|_| Ok(gpt_step(&model, &mut optimizer, 0)?.item::<f32>()?)).collect()
        });
    }
}

/// In half precision: learns what the CPU learns, the same bits twice.
#[test]
fn gpt_in_half_precision() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    for precision in [Precision::Bf16, Precision::F16] {
        let train = |on: Device| -> Result<Vec<f32>> {
            on.scope(|| {
                let model = gpt(7, 0.0)?;
                let mut optimizer = LossScaler::new(AdamW::new(&model).learning_rate(3e-3)).initial_scale(1024.0);
                let tokens = Tensor::from_vec((0..68).map(|i| i * i % 19).collect::<Vec<i64>>(), [4, 17]);
                let step = |_| {
                    let loss = precision.scope(|| model.loss(&tokens.slice(1, ..16), &tokens.slice(1, 1..)));
                    optimizer.step(optimizer.scale(&loss).backward()?)?;
                    Ok(loss.item::<f32>()?)
                };
                (0..10).map(step).collect()
            })
        };
        let (first, second, cpu) = (train(vulkan.device)?, train(vulkan.device)?, train(Device::cpu())?);
        assert_eq!(first, second, "{precision}");
        assert!(first[9] < first[0], "{precision}: nothing was learned: {first:?}");
        for (ours, cpu) in first.iter().zip(&cpu) {
            assert!((ours - cpu).abs() <= 0.02 * cpu, "{precision}: {ours}, {cpu} on the CPU");
        }
    }
    Ok(())
}

/// A network for images in half precision, whose convolutions compute in f32 there.
#[test]
fn lenet_in_half_precision() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    let losses = |on: Device| -> Result<Vec<f32>> {
        on.scope(|| {
            let generator = Generator::new(3);
            let model = LeNet::new(10, &generator)?;
            let mut optimizer = Sgd::new(&model).learning_rate(0.05);
            let images = generator.rand([4, 1, 28, 28]);
            let targets = Tensor::from_vec(vec![0i64, 1, 2, 3], [4]);
            let step = |_| {
                let loss = Precision::Bf16.scope(|| model.forward(&images).cross_entropy(&targets));
                optimizer.step(loss.backward()?)?;
                Ok(loss.item::<f32>()?)
            };
            (0..3).map(step).collect()
        })
    };
    let (ours, cpu) = (losses(vulkan.device)?, losses(Device::cpu())?);
    assert!(ours.iter().zip(&cpu).all(|(a, b)| (a - b).abs() <= 0.02 * b), "{ours:?}, {cpu:?} on the CPU");
    Ok(())
}

#[test]
fn a_model_evaluates_and_samples() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    let logits = |on: Device| -> Result<Vec<f32>> {
        on.scope(|| {
            let model = gpt(3, 0.2)?;
            let tokens = Tensor::from_vec((0..16).map(|i| i * 5 % 19).collect::<Vec<i64>>(), [1, 16]);
            Ok(model.eval(|| no_grad(|| model.forward(&tokens))).to_vec::<f32>()?)
        })
    };
    let (ours, cpu) = (logits(vulkan.device)?, logits(Device::cpu())?);
    for (a, b) in ours.iter().zip(&cpu) {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} is not {b}");
    }
    Ok(())
}
