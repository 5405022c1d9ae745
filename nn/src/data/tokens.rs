//! A stream of tokens cut into blocks: at random for training, one after the other for evaluation.
//!
//! Knows nothing of text; the targets are the inputs moved by one.

use std::sync::Arc;

use tapeflow_core::Tensor;

use super::draw::below;
use crate::error::{Error, Result};

/// Which part of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The first part.
    Train,
    /// The rest.
    Validation,
}

/// Tokens in two splits; cheap to clone, so that a loader's thread can have its own.
#[derive(Clone, Debug)]
pub struct TokenDataset {
    tokens: Arc<[i64]>,
    /// Where validation begins.
    boundary: usize,
}

/// Blocks of a batch: token numbers as they are fed to a model and as it should predict them.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// `(B, T)`, i64.
    pub inputs: Tensor,
    /// `(B, T)`, i64: at each place the token that follows it.
    pub targets: Tensor,
    /// B · T
    pub count: usize,
}

impl TokenDataset {
    /// The first `train_share` of the tokens for training, rounded down, the rest for validation.
    ///
    /// # Errors
    /// [`Error::Configuration`] if the share does not lie in 0 ..= 1.
    pub fn new(tokens: &[u32], train_share: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&train_share) {
            return Err(Error::Configuration(format!("a train share of {train_share} does not lie in 0 to 1")));
        }
        let boundary = (tokens.len() as f64 * train_share) as usize;
        Ok(TokenDataset { tokens: tokens.iter().map(|&t| i64::from(t)).collect(), boundary })
    }

    /// The tokens of a split.
    pub fn split(&self, split: Split) -> &[i64] {
        match split {
            Split::Train => &self.tokens[..self.boundary],
            Split::Validation => &self.tokens[self.boundary..],
        }
    }

    /// `batch` blocks of `block` tokens that begin at random places, as nanoGPT's `get_batch` draws them.
    ///
    /// The same `(split, seed, step)` gives the same blocks, on every machine.
    ///
    /// # Errors
    /// [`Error::Configuration`] if the split has fewer than `block + 1` tokens, or the batch or block is empty.
    pub fn random_blocks(&self, split: Split, batch: usize, block: usize, seed: u64, step: u64) -> Result<Blocks> {
        let tokens = self.split(split);
        if batch == 0 || block == 0 || tokens.len() <= block {
            return Err(Error::Configuration(format!(
                "{batch} blocks of {block} tokens cannot be drawn from a {split:?} split of {} tokens: a block needs \
                 one token more than its length",
                tokens.len()
            )));
        }
        let places = (tokens.len() - block) as u64;
        let starts: Vec<usize> =
            (0..batch as u64).map(|i| below(places, [seed, split as u64, step, i]) as usize).collect();
        Ok(gather(tokens, &starts, block))
    }

    /// The whole split in consecutive blocks, `batch` at a time; its last tokens, too few for a block, make a shorter
    /// one.
    ///
    /// Together the batches predict every token of the split but the first, once.
    pub fn consecutive_blocks(&self, split: Split, batch: usize, block: usize) -> impl Iterator<Item = Blocks> + '_ {
        let tokens = self.split(split);
        let (batch, block) = (batch.max(1), block.max(1));
        let predicted = tokens.len().saturating_sub(1);
        let whole: Vec<usize> = (0..predicted / block).map(|i| i * block).collect();
        let rest = predicted % block;
        let last = (rest > 0).then(|| gather(tokens, &[predicted - rest], rest));
        let batches = whole.chunks(batch).map(<[usize]>::to_vec).collect::<Vec<_>>();
        batches.into_iter().map(move |starts| gather(tokens, &starts, block)).chain(last)
    }
}

fn gather(tokens: &[i64], starts: &[usize], block: usize) -> Blocks {
    let cut = |shift: usize| {
        let values = starts.iter().flat_map(|&s| &tokens[s + shift..s + shift + block]).copied().collect::<Vec<i64>>();
        Tensor::from_vec(values, [starts.len(), block])
    };
    Blocks { inputs: cut(0), targets: cut(1), count: starts.len() * block }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(t: &Tensor) -> Vec<i64> {
        t.to_vec::<i64>().unwrap()
    }

    #[test]
    fn consecutive_blocks_predict_every_token_once_and_the_last_batch_is_partial() {
        let data = TokenDataset::new(&(0..24).collect::<Vec<u32>>(), 0.0).unwrap();
        let blocks: Vec<Blocks> = data.consecutive_blocks(Split::Validation, 2, 4).collect();
        let shapes: Vec<Vec<usize>> = blocks.iter().map(|b| b.inputs.shape().to_vec()).collect();
        assert_eq!(shapes, [vec![2, 4], vec![2, 4], vec![1, 4], vec![1, 3]]);
        let predicted: Vec<i64> = blocks.iter().flat_map(|b| values(&b.targets)).collect();
        assert_eq!(predicted, (1..24).collect::<Vec<i64>>());
        assert_eq!(blocks.iter().map(|b| b.count).sum::<usize>(), 23);
        assert_eq!(data.consecutive_blocks(Split::Train, 2, 4).count(), 0);
    }

    #[test]
    fn random_blocks_are_a_function_of_seed_and_step() {
        let data = TokenDataset::new(&(0..100).collect::<Vec<u32>>(), 0.9).unwrap();
        let draw = |seed, step| data.random_blocks(Split::Train, 8, 16, seed, step).unwrap();
        let (a, b) = (draw(1, 5), draw(1, 5));
        assert_eq!(values(&a.inputs), values(&b.inputs));
        assert_ne!(values(&a.inputs), values(&draw(1, 6).inputs));
        assert_ne!(values(&a.inputs), values(&draw(2, 5).inputs));
        let moved: Vec<i64> = values(&a.inputs).iter().map(|t| t + 1).collect();
        assert_eq!(values(&a.targets), moved);
        assert!(moved.iter().all(|&t| t < 90));
    }

    #[test]
    fn every_place_is_drawn_and_none_beyond() {
        let data = TokenDataset::new(&(0..6).collect::<Vec<u32>>(), 1.0).unwrap();
        let mut seen = [false; 6];
        for step in 0..50 {
            seen[values(&data.random_blocks(Split::Train, 1, 3, 0, step).unwrap().inputs)[0] as usize] = true;
        }
        assert_eq!(seen, [true, true, true, false, false, false]);
        let error = data.random_blocks(Split::Train, 1, 6, 0, 0).unwrap_err().to_string();
        assert!(error.contains("6 tokens"), "{error}");
        assert!(TokenDataset::new(&[], 1.5).is_err());
    }
}
