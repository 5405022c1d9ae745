//! GPT: training steps on one random batch (forward, loss, backward, AdamW; no clipping, no bias, weights tied), and
//! GPT-2 of 124M random weights reading a prompt and going on from it.

use tapeflow::models::KvCache;
use tapeflow::prelude::*;
use tapeflow::{Precision, Result};

use crate::harness::{Bench, Floor};

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
        "gpt_baby_train_b16" | "gpt_baby_train_b16_bf16" => (config(6, 384, 256, 0.0), 16),
        "gpt_baby_train_b64" => (config(6, 384, 256, 0.0), 64),
        "gpt_baby_drop_b16" => (config(6, 384, 256, 0.2), 16),
        "gpt_baby_drop_b64" => (config(6, 384, 256, 0.2), 64),
        _ => (config(4, 128, 64, 0.0), 12),
    };
    let precision = if name.ends_with("_bf16") { Precision::Bf16 } else { Precision::F32 };
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
    // Three times what forward takes.
    let floor = Floor::operations(3.0 * tokens_per_step * products(&config, config.block_size) * 2.0);
    bench.ms(
        name,
        floor,
        || {
            let loss = precision.scope(|| model.loss(&inputs, &targets));
            optimizer.step(loss.backward()?)
        },
        &[("tokens_per_s", tokens_per_step)],
    )
}

/// Multiplications of a token in a context of `places`: 12 C² weights a layer, the visible half of attention's two
/// products, the head.
fn products(config: &GptConfig, places: usize) -> f64 {
    let (layers, width) = (config.n_layer as f64, config.n_embd as f64);
    layers * (12.0 * width * width + width * (places + 1) as f64) + width * config.vocab_size as f64
}

/// Tokens that a prompt has before the measured ones, and how many those are.
const PROMPT: usize = 32;
const DECODED: usize = 64;

/// GPT-2 124M with random weights, as the name's last word says; and the bytes of a weight.
fn gpt2(name: &str) -> Result<(Gpt, f64)> {
    let config = GptConfig::preset("gpt2", 50257).unwrap_or_else(|| unreachable!("invariant: gpt2 is a preset"));
    let model = Gpt::new(&config, &Generator::new(0))?;
    if name.ends_with("_bf16") {
        model.to(DType::BF16)?;
        model.prepack()?;
        return Ok((model, 2.0));
    }
    if name.ends_with("_int8") {
        model.quantize_int8()?;
        return Ok((model, 1.0));
    }
    model.prepack()?;
    Ok((model, 4.0))
}

/// Tokens per second, greedy, one after the other with a cache of keys and values; the prompt is not in the time.
pub fn decode(bench: &mut Bench, name: &str) -> Result<()> {
    let (model, bytes) = gpt2(name)?;
    let mut cache = KvCache::new(&model, 1)?;
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|i| i * 1009 % 50257).collect();
    model.prefill(&prompt, PROMPT, 0, &mut cache)?;
    // Every weight but those of other places and of other tokens is read.
    let weights = model.num_parameters() as f64 - model.wpe.weight.tensor().numel() as f64;
    let unit = ("decode", "tokens/s", Floor::bytes(weights * bytes));
    bench.rate(name, unit, DECODED as f64, 1, || {
        cache.truncate(0, PROMPT);
        let mut token = 1;
        for _ in 0..DECODED {
            let logits = model.advance(&[Some(token)], &mut cache)?;
            token = logits.argmax(-1, false).to_vec::<i64>()?[0] as u32;
        }
        Ok::<_, tapeflow::Error>(())
    })
}

/// Tokens per second of reading a prompt of 512 and naming what follows.
pub fn prefill(bench: &mut Bench, name: &str) -> Result<()> {
    let (model, _) = gpt2(name)?;
    let (config, places) = (model.config().clone(), 512);
    let tokens = Generator::new(1).randint(0, 50257, [1, places]);
    tokens.realize()?;
    let head = (config.n_embd * config.vocab_size) as f64;
    let per_token = products(&config, places) - head * (1.0 - 1.0 / places as f64);
    let unit = ("prefill", "tokens/s", Floor::operations(2.0 * per_token));
    no_grad(|| {
        bench.rate(name, unit, places as f64, 1, || {
            let last = model.hidden(&tokens).slice(1, places - 1..places);
            model.head(&last).argmax(-1, false).to_vec::<i64>().map(drop)
        })
    })
}
