//! Training steps of small networks: a classifier for 28 × 28 images, and the smallest net there is.

use tapeflow::Result;
use tapeflow::prelude::*;

use crate::harness::Bench;

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
    let mut optimizer = Adam::new(&net).learning_rate(1e-3);
    let generator = Generator::new(0);
    let (x, y) = (generator.randn([128, 784]), generator.randint(0, 10, [128]));
    Tensor::realize_all(&[&x, &y])?;
    bench.ms(
        name,
        || {
            let loss = net.forward(&x).cross_entropy(&y);
            optimizer.step(loss.backward()?)
        },
        &[("steps_per_s", 1.0)],
    )
}

/// 2-4-1 with tanh on the four cases of XOR, mean squared error, plain gradient descent.
pub fn xor(bench: &mut Bench, name: &str) -> Result<()> {
    #[derive(Module)]
    #[module(forward = |x| output(hidden(x).tanh()))]
    struct Net {
        hidden: Linear,
        output: Linear,
    }
    let net = Net { hidden: Linear::new(2, 4)?, output: Linear::new(4, 1)? };
    let mut optimizer = Sgd::new(&net).learning_rate(0.1);
    let x = Tensor::from_vec(vec![0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], [4, 2]);
    let y = Tensor::from_vec(vec![0f32, 1.0, 1.0, 0.0], [4, 1]);
    bench.rate(name, "steps/s", 1.0, 100, || {
        let loss = net.forward(&x).mse_loss(&y);
        optimizer.step(loss.backward()?)
    })
}
