//! Training steps of small networks: a classifier for 28 × 28 images, and the smallest net there is.

use tapeflow::prelude::*;
use tapeflow::{Result, capture};

use crate::harness::{Bench, Floor};

/// 784-512-512-10 with ReLU on a batch of 128, cross-entropy, Adam.
pub fn mlp(bench: &mut Bench, name: &str) -> Result<()> {
    #[derive(Module)]
    #[module(forward = |x| fc_3(fc_2(fc_1(x).relu()).relu()))]
    struct Net {
        fc_1: Linear,
        fc_2: Linear,
        fc_3: Linear,
    }
    let net = Net { fc_1: Linear::new(784, 512)?, fc_2: Linear::new(512, 512)?, fc_3: Linear::new(512, 10)? };
    let optimizer = Adam::new(&net).learning_rate(1e-3);
    let products = 128 * (2 * 784 * 512 + 3 * (512 * 512 + 512 * 10));
    classifier(bench, name, Floor::operations(2.0 * products as f64), &net, optimizer, &[128, 784])
}

/// Two 3 × 3 convolutions to 32 and 64 channels with pools, and two affine maps, on a batch of 64 images; Adam.
pub fn cnn(bench: &mut Bench, name: &str) -> Result<()> {
    let pool = || MaxPool2d::new(2);
    let net = Sequential((
        Conv2d::new(1, 32, 3)?.padding(1),
        Relu,
        pool(),
        Conv2d::new(32, 64, 3)?.padding(1),
        Relu,
        pool(),
        Flatten,
        Sequential((Linear::new(3136, 128)?, Relu, Linear::new(128, 10)?)),
    ));
    let optimizer = Adam::new(&net).learning_rate(1e-3);
    let (first, second) = (28 * 28 * 9 * 32, 14 * 14 * 9 * 32 * 64);
    let products = 64 * (2 * first + 3 * (second + 3136 * 128 + 128 * 10));
    classifier(bench, name, Floor::operations(2.0 * products as f64), &net, optimizer, &[64, 1, 28, 28])
}

/// ResNet-20 on a batch of 64 images of 32 × 32; gradient descent with momentum.
pub fn resnet20(bench: &mut Bench, name: &str) -> Result<()> {
    let net = ResNet20::new(3, 10, &Generator::new(1))?;
    let optimizer = Sgd::new(&net).learning_rate(0.1).momentum(0.9);
    // Seven convolutions on 32 × 32 places but for the first, 16 channels each; then half the places and twice the
    // channels, twice: each layer as much work as the one before, half in those that change from one to the other.
    let (first, layer) = (32 * 32 * 27 * 16, 32 * 32 * 9 * 16 * 16u64);
    let products = 64 * (2 * first + 3 * (6 * layer + 2 * (5 * layer + layer / 2) + 64 * 10));
    classifier(bench, name, Floor::operations(2.0 * products as f64), &net, optimizer, &[64, 3, 32, 32])
}

/// Training steps of a classifier with 10 classes on one random batch. The floor: every product forward, and twice
/// backward but where the input needs no gradient.
fn classifier(
    bench: &mut Bench,
    name: &str,
    floor: Floor,
    net: &(impl Module + Forward),
    mut optimizer: impl Optimizer,
    shape: &[usize],
) -> Result<()> {
    let generator = Generator::new(0);
    let (x, y) = (generator.randn(shape), generator.randint(0, 10, [shape[0]]));
    Tensor::realize_all(&[&x, &y])?;
    bench.ms(
        name,
        floor,
        || {
            let loss = net.forward(&x).cross_entropy(&y);
            optimizer.step(loss.backward()?)
        },
        &[("steps_per_s", 1.0)],
    )
}

/// 2-4-1 with tanh on the four cases of XOR, mean squared error, plain gradient descent.
pub fn xor(bench: &mut Bench, name: &str) -> Result<()> {
    let (net, x, y) = xor_parts()?;
    let mut optimizer = Sgd::new(&net).learning_rate(0.1);
    bench.rate(name, ("throughput", "steps/s", Floor::default()), 1.0, 100, || {
        let loss = net.forward(&x).mse_loss(&y);
        optimizer.step(loss.backward()?)
    })
}

/// The same step captured once as a program.
pub fn xor_captured(bench: &mut Bench, name: &str) -> Result<()> {
    let (net, x, y) = xor_parts()?;
    let mut optimizer = Sgd::new(&net).learning_rate(0.1);
    let mut step = capture(&[&x, &y], |batch| {
        let loss = net.forward(&batch[0]).mse_loss(&batch[1]);
        optimizer.step(loss.backward()?)?;
        Ok::<_, tapeflow::Error>(vec![loss])
    })?;
    bench.rate(name, ("throughput", "steps/s", Floor::default()), 1.0, 100, || step.run(&[&x, &y]))
}

#[derive(Module)]
#[module(forward = |x| output(hidden(x).tanh()))]
struct Xor {
    hidden: Linear,
    output: Linear,
}

fn xor_parts() -> Result<(Xor, Tensor, Tensor)> {
    let x = Tensor::from_vec(vec![0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], [4, 2]);
    let y = Tensor::from_vec(vec![0f32, 1.0, 1.0, 0.0], [4, 1]);
    Ok((Xor { hidden: Linear::new(2, 4)?, output: Linear::new(4, 1)? }, x, y))
}
