//! Tokens to text as they come: no half characters, and nothing of a string that ends the text.
//!
//! Knows no model; what it is given are tokens.

use std::fmt;

use tapeflow_nn::Result;
use tapeflow_nn::tokenizer::Tokenizer;

use super::Generation;

/// Turns tokens into text one by one, and finds where the text ends.
///
/// What may still become something else is held back: a character of which tokens are missing, and what may be the
/// beginning of a stop string.
pub struct TextDecoder<'t> {
    tokenizer: &'t dyn Tokenizer,
    /// What comes next is decoded together with the tokens before it, back to the last but one place where all text was
    /// handed out: a tokenizer may write a token differently where a text begins.
    tokens: Vec<u32>,
    /// How many of them came before the last such place.
    before: usize,
    /// What was handed out of their text, the prompt's included.
    shown: String,
    stops: Vec<String>,
    stopped: bool,
}

impl fmt::Debug for TextDecoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextDecoder").field("tokens", &self.tokens.len()).field("stopped", &self.stopped).finish()
    }
}

impl<'t> TextDecoder<'t> {
    /// For what comes after `prompt`, up to the first of `stops`.
    ///
    /// # Errors
    /// A token beyond the tokenizer's vocabulary.
    pub fn after(tokenizer: &'t dyn Tokenizer, prompt: &[u32], stops: &[String]) -> Result<Self> {
        let (tokens, before, shown) = (prompt.to_vec(), prompt.len(), tokenizer.decode(prompt)?);
        Ok(TextDecoder { tokenizer, tokens, before, shown, stops: stops.to_vec(), stopped: false })
    }

    /// What a token adds to the text that is certain by now.
    ///
    /// # Errors
    /// A token beyond the tokenizer's vocabulary.
    pub fn push(&mut self, token: u32) -> Result<String> {
        if self.stopped {
            return Ok(String::new());
        }
        self.tokens.push(token);
        let new = self.new_text()?;
        if let Some(end) = self.stops.iter().filter_map(|stop| new.find(stop.as_str())).min() {
            self.stopped = true;
            return Ok(new[..end].to_owned());
        }
        let whole = new.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        let certain = &new[..whole.min(new.len() - self.held(&new))];
        self.shown += certain;
        if certain.len() == new.len() && !self.shown.ends_with(char::REPLACEMENT_CHARACTER) {
            self.tokens.drain(..self.before);
            self.before = self.tokens.len();
            self.shown = self.tokenizer.decode(&self.tokens)?;
        }
        Ok(certain.to_owned())
    }

    /// What was not handed out yet.
    fn new_text(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.tokens)?;
        if !text.starts_with(&self.shown) {
            // The prompt ended within a character, which is another now.
            let whole = self.shown.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
            self.shown.truncate(whole);
        }
        Ok(text.strip_prefix(self.shown.as_str()).unwrap_or_default().to_owned())
    }

    /// Bytes at the end of `new` that a stop string may begin with.
    fn held(&self, new: &str) -> usize {
        let begins = |stop: &String| {
            let lengths = stop.char_indices().map(|(at, _)| at).skip(1);
            lengths.filter(|&length| new.ends_with(&stop[..length])).max()
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }

    /// What was held back, when no more tokens come.
    ///
    /// # Errors
    /// None that `push` did not report.
    pub fn finish(&mut self) -> Result<String> {
        if self.stopped {
            return Ok(String::new());
        }
        self.stopped = true;
        self.new_text()
    }

    /// Whether the text has ended.
    pub fn has_stopped(&self) -> bool {
        self.stopped
    }
}

/// Texts that are continued at once: an iterator over rounds, in each of which every text gets a piece, which may be
/// empty.
#[derive(Debug)]
pub struct TextGeneration<'m> {
    tokens: Generation<'m>,
    decoders: Vec<TextDecoder<'m>>,
}

impl<'m> TextGeneration<'m> {
    pub(super) fn new(tokens: Generation<'m>, decoders: Vec<TextDecoder<'m>>) -> Self {
        TextGeneration { tokens, decoders }
    }

    /// Whether text `row` is complete.
    pub fn has_ended(&self, row: usize) -> bool {
        self.decoders.get(row).is_none_or(TextDecoder::has_stopped)
    }

    fn pieces(&mut self, round: &[Option<u32>]) -> Result<Vec<String>> {
        let mut pieces = Vec::with_capacity(round.len());
        for (row, (token, decoder)) in round.iter().zip(&mut self.decoders).enumerate() {
            let mut piece = token.map_or(Ok(String::new()), |token| decoder.push(token))?;
            if decoder.has_stopped() {
                self.tokens.end(row);
            } else if self.tokens.has_ended(row) {
                piece += &decoder.finish()?;
            }
            pieces.push(piece);
        }
        Ok(pieces)
    }
}

impl Iterator for TextGeneration<'_> {
    type Item = Result<Vec<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        let round = self.tokens.next()?;
        Some(round.and_then(|round| self.pieces(&round)))
    }
}
