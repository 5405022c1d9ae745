//! The text: read, turned into tokens, split, and found long enough.

use std::path::Path;

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
    pub tokenizer: CharTokenizer,
    /// The first nine tenths are for training, the rest for validation.
    pub dataset: TokenDataset,
    /// What a sample begins with if nothing is asked for.
    pub beginning: u32,
    /// What tells it from other texts.
    pub checksum: u64,
}

impl Text {
    /// The text of a file, or the built-in one.
    pub fn read(path: Option<&Path>, block_size: usize) -> Result<Text, Failure> {
        let (name, text) = match path {
            Some(path) => (path.display().to_string(), read(path)?),
            None => ("the built-in tales".to_owned(), corpus::text()),
        };
        let tokenizer = CharTokenizer::from_text(&text);
        let tokens = tokenizer.encode(&text)?;
        let dataset = TokenDataset::new(&tokens, 0.9)?;
        let (train, validation) = (dataset.split(Split::Train).len(), dataset.split(Split::Validation).len());
        if train.min(validation) <= block_size {
            return Err(Failure::Run(format!(
                "{name} is too short: its {} characters make {train} for training and {validation} for validation, and \
                 blocks of {block_size} need at least {} of each; a longer text or a smaller --block-size would do",
                tokens.len(),
                block_size.saturating_add(1)
            )));
        }
        // A sample begins where a line does; in a text of one line, where the text does.
        let beginning = match tokenizer.encode("\n") {
            Ok(line_end) => line_end[0],
            Err(_) => tokens[0],
        };
        Ok(Text { name, tokenizer, dataset, beginning, checksum: checksum(text.as_bytes()) })
    }
}

fn read(path: &Path) -> NnResult<String> {
    let bytes = std::fs::read(path).map_err(Error::file("read the text", path))?;
    String::from_utf8(bytes).map_err(|e| {
        Error::malformed(path, format!("it is no UTF-8 text: byte {} does not fit", e.utf8_error().valid_up_to()))
    })
}
