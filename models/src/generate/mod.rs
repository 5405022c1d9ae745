//! Generation: prompts continued token by token, one or several at once, with a cache of keys and values or without.
//!
//! Owns the rule of the window, which both ways share, so that they give the same tokens: a context grows up to
//! block_size tokens; when it is full, generation goes on from its last half. Knows no text; that is `text`'s.

mod options;
#[cfg(test)]
mod tests;
mod text;

pub use options::GenerateOptions;
pub use text::{TextDecoder, TextGeneration};

use tapeflow_nn::tokenizer::Tokenizer;
use tapeflow_nn::{Error, Result};

use crate::gpt::Gpt;
use crate::kv_cache::KvCache;
use crate::sampling::Sampler;

/// What is known of one prompt.
#[derive(Debug)]
struct Row {
    /// The prompt and what was generated.
    seen: Vec<u32>,
    /// How many of the last tokens the model looks at.
    window: usize,
    sampler: Sampler,
    /// How many tokens may still come.
    left: usize,
}

/// Several prompts that are continued at once: an iterator over rounds, in each of which every prompt that has not
/// ended gets a token.
///
/// Each prompt's tokens are those that it would get alone. After an error it ends.
#[derive(Debug)]
pub struct Generation<'m> {
    model: &'m Gpt,
    rows: Vec<Row>,
    stop_tokens: Vec<u32>,
    /// Only tokens below this are drawn.
    drawn: usize,
    /// The cache, and how many tokens a prompt is padded to.
    cache: Option<(KvCache, usize)>,
    /// Whether prompts of one token are read in too, although there is nothing to read: contexts will be full, and the
    /// program that reads them in then is compiled at once.
    reads_all: bool,
}

/// One prompt that is continued: an iterator over its tokens.
#[derive(Debug)]
pub struct Tokens<'m>(Generation<'m>);

impl Gpt {
    /// Continues a prompt, in evaluation mode: an iterator over the tokens, each computed when it is asked for.
    ///
    /// The context grows up to block_size tokens; when it is full, generation goes on from its last half. Nothing is
    /// compiled after the first token.
    ///
    /// # Errors
    /// An empty prompt, options that make no sense; a token beyond the vocabulary comes out of the iterator.
    /// # Example
    /// ```
    /// use tapeflow_models::{GenerateOptions, Gpt, GptConfig};
    /// use tapeflow_nn::Generator;
    /// let model = Gpt::new(&GptConfig::preset("tiny", 65).unwrap(), &Generator::new(1))?;
    /// let options = GenerateOptions { temperature: 0.8, top_p: Some(0.9), seed: 7, ..GenerateOptions::new(5) };
    /// for token in model.generate(&[1, 2, 3], &options)? {
    ///     print!("{} ", token?);
    /// }
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    pub fn generate(&self, prompt: &[u32], options: &GenerateOptions) -> Result<Tokens<'_>> {
        Ok(Tokens(self.generate_batch(&[prompt], options)?))
    }

    /// Continues several prompts, of any lengths, at once: an iterator over rounds, with a token for each prompt that
    /// has not ended.
    ///
    /// Prompt `i` draws with seed `options.seed + i`, as it would alone with that seed.
    ///
    /// # Errors
    /// No prompts, an empty one, options that make no sense; a token beyond the vocabulary comes out of the iterator.
    pub fn generate_batch<P: AsRef<[u32]>>(&self, prompts: &[P], options: &GenerateOptions) -> Result<Generation<'_>> {
        if !options.stop.is_empty() {
            let why =
                "stop strings can be found in text only: `generate_text` looks for them, `stop_tokens` needs none";
            return Err(Error::Configuration(why.into()));
        }
        Generation::new(self, prompts.iter().map(|p| p.as_ref().to_vec()).collect(), options)
    }

    /// Continues several texts at once: an iterator over rounds, with a piece of text for each prompt, which may be
    /// empty.
    ///
    /// A prompt ends before the first stop string in what is generated; nothing of that string is handed out. Tokens
    /// beyond the tokenizer's vocabulary, with which a model may have been padded, are never drawn.
    ///
    /// # Errors
    /// As [`generate_batch`](Gpt::generate_batch), and what the tokenizer says of the prompts.
    pub fn generate_text<'m, P: AsRef<str>>(
        &'m self,
        prompts: &[P],
        tokenizer: &'m dyn Tokenizer,
        options: &GenerateOptions,
    ) -> Result<TextGeneration<'m>> {
        let tokens = prompts.iter().map(|p| tokenizer.encode(p.as_ref())).collect::<Result<Vec<_>>>()?;
        let decoder = |tokens: &Vec<u32>| TextDecoder::after(tokenizer, tokens, &options.stop);
        let decoders = tokens.iter().map(decoder).collect::<Result<Vec<_>>>()?;
        let mut generation = Generation::new(self, tokens, options)?;
        generation.drawn = generation.drawn.min(tokenizer.vocab_size());
        Ok(TextGeneration::new(generation, decoders))
    }
}

impl<'m> Generation<'m> {
    fn new(model: &'m Gpt, prompts: Vec<Vec<u32>>, options: &GenerateOptions) -> Result<Self> {
        options.check(model.config().vocab_size)?;
        if prompts.is_empty() {
            return Err(Error::Configuration("there are no prompts: there is nothing to continue".into()));
        }
        if let Some(empty) = prompts.iter().position(Vec::is_empty) {
            let which = if prompts.len() > 1 { format!("prompt {empty}") } else { "the prompt".into() };
            return Err(Error::Configuration(format!("{which} is empty: there is nothing to continue")));
        }
        let block = model.config().block_size;
        let row = |(index, prompt): (usize, Vec<u32>)| Row {
            window: prompt.len().min(block),
            seen: prompt,
            sampler: options.sampler(index as u64),
            left: options.max_tokens,
        };
        let rows: Vec<Row> = prompts.into_iter().enumerate().map(row).collect();
        let longest = rows.iter().map(|row| row.window).max().unwrap_or(1);
        // Whether a context will be full: then its last half is read in again, by the prompts' program.
        let refills = longest.saturating_add(options.max_tokens) > block.saturating_add(1);
        let read = if refills { longest.max(half(block)) } else { longest };
        let padded = (read - 1).next_power_of_two().min(block);
        let cache = match options.cache {
            true => Some((KvCache::new(model, rows.len())?, padded)),
            false => None,
        };
        let (stop_tokens, drawn) = (options.stop_tokens.clone(), model.config().vocab_size);
        Ok(Generation { model, rows, stop_tokens, drawn, cache, reads_all: refills })
    }

    /// How many prompts there are.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Whether prompt `row` has ended, or is not there.
    pub fn has_ended(&self, row: usize) -> bool {
        self.rows.get(row).is_none_or(|row| row.left == 0)
    }

    /// Ends prompt `row`: it gets no more tokens.
    pub fn end(&mut self, row: usize) {
        if let Some(row) = self.rows.get_mut(row) {
            row.left = 0;
        }
    }

    /// The logits of what follows each prompt that has not ended.
    fn logits(&mut self) -> Result<Vec<Option<Vec<f32>>>> {
        let Some((cache, padded)) = &mut self.cache else {
            let next = |row: &Row| (row.left > 0).then(|| self.model.next_logits(row.looked_at())).transpose();
            return self.rows.iter().map(next).collect();
        };
        for (index, row) in self.rows.iter().enumerate().filter(|(_, row)| row.left > 0) {
            let before = &row.looked_at()[..row.window - 1];
            if cache.filled(index) != before.len() || (self.reads_all && before.is_empty()) {
                self.model.prefill(before, *padded, index, cache)?;
            }
        }
        let last = |row: &Row| row.seen.last().copied().filter(|_| row.left > 0);
        let logits = self.model.advance(&self.rows.iter().map(last).collect::<Vec<_>>(), cache)?;
        let (values, v) = (logits.to_vec::<f32>()?, self.model.config().vocab_size);
        let of_row = |(row, logits): (&Row, &[f32])| (row.left > 0).then(|| logits.to_vec());
        Ok(self.rows.iter().zip(values.chunks(v)).map(of_row).collect())
    }

    fn round(&mut self) -> Result<Vec<Option<u32>>> {
        let block = self.model.config().block_size;
        let logits = self.logits()?;
        let mut tokens = Vec::with_capacity(logits.len());
        for (row, logits) in self.rows.iter_mut().zip(logits) {
            let Some(logits) = logits else {
                tokens.push(None);
                continue;
            };
            let token = row.sampler.sample_after(&row.seen, &logits[..self.drawn])?;
            row.left -= 1;
            if self.stop_tokens.contains(&token) {
                row.left = 0;
                tokens.push(None);
                continue;
            }
            row.seen.push(token);
            row.window = if row.window < block { row.window + 1 } else { half(block) };
            tokens.push(Some(token));
        }
        Ok(tokens)
    }
}

impl Row {
    fn looked_at(&self) -> &[u32] {
        &self.seen[self.seen.len() - self.window..]
    }
}

/// How much of a full context is kept.
fn half(block: usize) -> usize {
    (block / 2).max(1)
}

impl Iterator for Generation<'_> {
    type Item = Result<Vec<Option<u32>>>;

    fn next(&mut self) -> Option<Self::Item> {
        if (0..self.rows.len()).all(|row| self.has_ended(row)) {
            return None;
        }
        let round = self.round();
        if round.is_err() {
            (0..self.rows.len()).for_each(|row| self.end(row));
        }
        Some(round)
    }
}

impl Iterator for Tokens<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        match self.0.next()? {
            Ok(round) => round.first().copied().flatten().map(Ok),
            Err(e) => Some(Err(e)),
        }
    }
}
