//! The validation loss: on some blocks, or on the whole split. In nats per token, in evaluation mode.

use tapeflow::data::{Blocks, Split, TokenDataset};
use tapeflow::models::Gpt;
use tapeflow::{ModuleExt, Result, no_grad};

use crate::recipe::Recipe;

/// The mean over `batches` random batches, the same ones at each call.
pub fn on_some_blocks(model: &Gpt, data: &TokenDataset, recipe: &Recipe, seed: u64, batches: usize) -> Result<f64> {
    let mut sum = 0.0;
    for index in 0..batches {
        let (batch, block) = (recipe.batch_size, recipe.block());
        sum += loss(model, &data.random_blocks(Split::Validation, batch, block, seed, index as u64)?)?;
    }
    Ok(sum / batches as f64)
}

/// The mean over all whole blocks of the split, one after the other; what is left at its end is too short for a block.
pub fn on_whole_split(model: &Gpt, data: &TokenDataset, recipe: &Recipe) -> Result<f64> {
    let block = recipe.block();
    let at_once = (LOGITS_AT_ONCE / model.config().vocab_size).min(TOKENS_AT_ONCE);
    let (mut sum, mut count) = (0.0, 0);
    for blocks in data.consecutive_blocks(Split::Validation, (at_once / block).max(1), block) {
        if blocks.inputs.shape()[1] == block {
            sum += loss(model, &blocks)? * blocks.count as f64;
            count += blocks.count;
        }
    }
    Ok(sum / count as f64)
}

/// Bounds the memory of an evaluation: 64 blocks of 64, and 256 MB of logits.
const TOKENS_AT_ONCE: usize = 4096;
const LOGITS_AT_ONCE: usize = 1 << 26;

fn loss(model: &Gpt, blocks: &Blocks) -> Result<f64> {
    let loss = no_grad(|| model.eval(|| model.loss(&blocks.inputs, &blocks.targets)));
    Ok(f64::from(loss.item::<f32>()?))
}
