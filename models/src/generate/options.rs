//! How to generate. Owns the settings and what is wrong with them; what they do to logits stands with the sampler.

use tapeflow_nn::{Error, Result};

use crate::sampling::Sampler;

/// How prompts are continued.
///
/// ```
/// use tapeflow_models::GenerateOptions;
/// let options = GenerateOptions { top_k: Some(40), stop: vec!["\n\n".into()], ..GenerateOptions::new(200) };
/// assert_eq!((options.temperature, options.repetition_penalty), (1.0, 1.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// How many tokens to generate at most, for each prompt.
    pub max_tokens: usize,
    /// 1 draws as the model predicts, below 1 the likely become likelier, 0 always takes the likeliest.
    pub temperature: f64,
    /// Draw among this many of the likeliest tokens only.
    pub top_k: Option<usize>,
    /// Draw among the likeliest tokens that together have at least this probability.
    pub top_p: Option<f64>,
    /// By how much tokens that were there before lose: 1 for nothing.
    pub repetition_penalty: f64,
    /// Tokens that end a prompt; they are not handed out.
    pub stop_tokens: Vec<u32>,
    /// Texts that end a prompt, for [`generate_text`](crate::Gpt::generate_text) only.
    pub stop: Vec<String>,
    /// Of the draws.
    pub seed: u64,
    /// Whether keys and values are kept. Without, everything is computed again for each token: slow, and for
    /// comparison only.
    pub cache: bool,
}

impl GenerateOptions {
    /// At most `max_tokens`, drawn as the model predicts with seed 0.
    pub fn new(max_tokens: usize) -> Self {
        GenerateOptions {
            max_tokens,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            repetition_penalty: 1.0,
            stop_tokens: Vec::new(),
            stop: Vec::new(),
            seed: 0,
            cache: true,
        }
    }

    /// At most `max_tokens`, always the likeliest.
    pub fn greedy(max_tokens: usize) -> Self {
        GenerateOptions { temperature: 0.0, ..GenerateOptions::new(max_tokens) }
    }

    /// The sampler of prompt `index`.
    pub(super) fn sampler(&self, index: u64) -> Sampler {
        Sampler::new(self.seed.wrapping_add(index))
            .temperature(self.temperature)
            .top_k(self.top_k)
            .top_p(self.top_p)
            .repetition_penalty(self.repetition_penalty)
    }

    /// Whether the options make sense for a vocabulary.
    ///
    /// # Errors
    /// [`Error::Configuration`] naming what is wrong and what would be right.
    pub fn check(&self, vocab_size: usize) -> Result<()> {
        self.sampler(0).check()?;
        if let Some(token) = self.stop_tokens.iter().find(|&&t| t as usize >= vocab_size) {
            let why = format!("stop token {token} is beyond the vocabulary of {vocab_size} tokens");
            return Err(Error::Configuration(why));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::Configuration("an empty stop string would end every text at once".into()));
        }
        Ok(())
    }
}
