//! The step of generation: one more token of each row of a cache, recorded once and then run again as a captured step.
//!
//! Owns when a step is captured and when it no longer fits; what it computes stands with the model, where it writes
//! with the cache.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tapeflow_nn::{
    CapturedStep, DType, Device, Error, Precision, Result, Tensor, capture, is_capturing, is_checking_nan,
};

use crate::gpt::Gpt;
use crate::kv_cache::{KvCache, Pass};

/// What goes on with a cache.
#[derive(Default)]
pub(crate) enum DecodeStep {
    /// Nothing has been captured.
    #[default]
    Unknown,
    /// Nothing can be.
    Recorded,
    /// A step. A lock lets several threads hold the cache; nobody waits for it.
    Captured(Box<Mutex<CapturedStep>>, Maker),
}

/// What a step is captured from: a model, known by the place of its table of tokens, in a precision.
type Maker = (usize, Precision);

impl fmt::Debug for DecodeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeStep::Unknown => "Unknown",
            DecodeStep::Recorded => "Recorded",
            DecodeStep::Captured(..) => "Captured",
        })
    }
}

impl Gpt {
    /// The logits of what follows one more token of each row; `taken` says which rows go on.
    ///
    /// # Shapes
    /// `tokens: (rows, 1)`, i64 → `(rows, V)`, f32
    pub(crate) fn decode(&self, tokens: &Tensor, taken: &[bool], cache: &mut KvCache) -> Result<Tensor> {
        let first = cache.place_next();
        let captures = first.device() == Device::cpu() && !is_capturing() && !is_checking_nan();
        let logits = match captures {
            true => self.replay_step(tokens, &first, cache)?,
            false => self.record_step(tokens, &first, cache)?,
        };
        cache.fill(taken);
        Ok(logits)
    }

    fn replay_step(&self, tokens: &Tensor, first: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let maker = (self.wte.weight.slot().id(), Precision::current());
        match std::mem::take(&mut cache.step) {
            DecodeStep::Captured(step, of) if of == maker => {
                let mut captured = step.lock().unwrap_or_else(PoisonError::into_inner);
                // What is wrong with a token is said by the step as it is recorded. Weights that are kept in another
                // form now need another step.
                if captured.run(&[tokens, first]).is_ok() {
                    let logits = captured.tensor(0)?;
                    drop(captured);
                    cache.step = DecodeStep::Captured(step, of);
                    return Ok(logits);
                }
                self.record_step(tokens, first, cache)
            }
            DecodeStep::Recorded => {
                cache.step = DecodeStep::Recorded;
                self.record_step(tokens, first, cache)
            }
            DecodeStep::Unknown | DecodeStep::Captured(..) => {
                let record = |inputs: &[Tensor]| Ok::<_, Error>(vec![self.record_step(&inputs[0], &inputs[1], cache)?]);
                if let Ok(step) = capture(&[tokens, first], record) {
                    let logits = step.tensor(0)?;
                    cache.step = DecodeStep::Captured(Box::new(Mutex::new(step)), maker);
                    return Ok(logits);
                }
                // The first run wrote nothing that this one does not write again.
                let logits = self.record_step(tokens, first, cache)?;
                cache.step = DecodeStep::Recorded;
                Ok(logits)
            }
        }
    }

    fn record_step(&self, tokens: &Tensor, first: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let rows = cache.rows();
        let mut pass = Pass::next(cache, first.clone());
        let x = self.hidden_cached(tokens, &mut pass); // (B, 1, C)
        let logits = self.head(&x).reshape([rows, self.config().vocab_size]).cast(DType::F32); // (B, V)
        drop(x);
        // The program that fills the cache computes the logits too: their handle is there.
        pass.finish()?;
        Ok(logits)
    }
}
