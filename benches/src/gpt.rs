//! GPT training steps on one random batch: forward, loss, backward, AdamW; no clipping, no bias, weights tied.

use tapeflow::Result;
use tapeflow::prelude::*;

use crate::harness::Bench;

/// nanoGPT's configuration for the CPU, and its "baby" GPU one, both with the 65 characters of tiny Shakespeare.
pub fn train(bench: &mut Bench, name: &str) -> Result<()> {
    let config = |n_layer, n_embd, block_size, dropout| GptConfig {
        vocab_size: 65,
        block_size,
        n_layer,
        n_head: n_layer,
        n_embd,
        dropout,
        bias: false,
    };
    let (config, batch) = match name {
        "gpt_baby_train_b16" => (config(6, 384, 256, 0.0), 16),
        "gpt_baby_train_b64" => (config(6, 384, 256, 0.0), 64),
        "gpt_baby_drop_b16" => (config(6, 384, 256, 0.2), 16),
        _ => (config(4, 128, 64, 0.0), 12),
    };
    let generator = Generator::new(0);
    let model = Gpt::new(&config, &generator)?;
    let mut optimizer = AdamW::new(&model)
        .learning_rate(1e-3)
        .betas(0.9, 0.99)
        .weight_decay(0.1)
        .group_where(|_, shape| shape.len() < 2, |group| group.weight_decay(0.0));
    let tokens = || generator.randint(0, 65, [batch, config.block_size]);
    let (inputs, targets) = (tokens(), tokens());
    Tensor::realize_all(&[&inputs, &targets])?;
    let tokens_per_step = (batch * config.block_size) as f64;
    bench.ms(
        name,
        || {
            let loss = model.loss(&inputs, &targets);
            optimizer.step(loss.backward()?)
        },
        &[("tokens_per_s", tokens_per_step)],
    )
}
