//! The text: read, turned into tokens, split, and found long enough.

use std::path::Path;
use std::sync::Arc;

use tapeflow::checkpoint::checksum;
use tapeflow::data::{Split, TokenDataset};
use tapeflow::tokenizer::{CharTokenizer, Tokenizer};
use tapeflow::{Error, Result as NnResult};

use crate::corpus;
use crate::failure::Failure;

/// A text as a model sees it.
pub struct Text {
    /// What the user knows it by.
    pub name: String,
    pub tokenizer: Arc<dyn Tokenizer>,
    /// What a token is called.
    pub unit: &'static str,
    /// The first nine tenths are for training, the rest for validation.
    pub dataset: TokenDataset,
    /// What a sample begins with if nothing is asked for.
    pub beginning: u32,
    /// What tells it from other texts.
    pub checksum: u64,
}

impl Text {
    /// The text of a file, or the built-in one; with a token for each of its characters, if there is no tokenizer.
    pub fn read(
        path: Option<&Path>,
        block_size: usize,
        tokenizer: Option<Box<dyn Tokenizer>>,
    ) -> Result<Text, Failure> {
        let (name, text) = match path {
            Some(path) => (path.display().to_string(), read(path)?),
            None => ("the built-in tales".to_owned(), corpus::text()),
        };
        let tokenizer: Arc<dyn Tokenizer> =
            tokenizer.map_or_else(|| Arc::new(CharTokenizer::from_text(&text)) as Arc<dyn Tokenizer>, Arc::from);
        let tokens = tokenizer.encode(&text)?;
        let unit = if tokens.len() == text.chars().count() { "characters" } else { "tokens" };
        let dataset = TokenDataset::new(&tokens, 0.9)?;
        let (train, validation) = (dataset.split(Split::Train).len(), dataset.split(Split::Validation).len());
        if train.min(validation) <= block_size {
            return Err(Failure::Run(format!(
                "{name} is too short: its {} {unit} make {train} for training and {validation} for validation, and \
                 blocks of {block_size} need at least {} of each; a longer text or a smaller --block-size would do",
                tokens.len(),
                block_size.saturating_add(1)
            )));
        }
        // In a text of one line, a sample begins where the text does.
        let beginning = beginning(tokenizer.as_ref()).unwrap_or(tokens[0]);
        Ok(Text { name, tokenizer, unit, dataset, beginning, checksum: checksum(text.as_bytes()) })
    }
}

/// The token after which a sample begins: where a text does, or else a line.
pub fn beginning(tokenizer: &dyn Tokenizer) -> Option<u32> {
    let line_end = || tokenizer.encode("\n").ok().and_then(|tokens| tokens.first().copied());
    tokenizer.end_of_text().or_else(line_end)
}

fn read(path: &Path) -> NnResult<String> {
    let bytes = std::fs::read(path).map_err(Error::file("read the text", path))?;
    String::from_utf8(bytes).map_err(|e| {
        Error::malformed(path, format!("it is no UTF-8 text: byte {} does not fit", e.utf8_error().valid_up_to()))
    })
}
