//! Text to tokens and back: the trait, and the file every tokenizer is kept in.
//!
//! A tokenizer knows nothing of tensors or models. `tokenizer.json` carries a `type`, so that a checkpoint can be read
//! without being told which kind it was trained with.

mod byte;
mod char;

pub use byte::ByteTokenizer;
pub use char::CharTokenizer;

use std::fmt::Debug;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::write_atomically;

/// Turns text into token numbers below [`vocab_size`](Tokenizer::vocab_size), and back.
pub trait Tokenizer: Debug + Send + Sync {
    /// The tokens of `text`.
    ///
    /// # Errors
    /// [`Error::UnknownCharacter`] if the text holds something the vocabulary lacks.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// The text of `tokens`.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] if a token is not below the size of the vocabulary.
    fn decode(&self, tokens: &[u32]) -> Result<String>;

    /// How many different tokens there are.
    fn vocab_size(&self) -> usize;

    /// What [`save`](Tokenizer::save) writes: everything needed to build the same tokenizer again.
    fn description(&self) -> Description;

    /// Writes the tokenizer to `path` as JSON, under another name first.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be written.
    fn save(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.description()).map_err(|e| Error::malformed(path, e))?;
        write_atomically(path, json.as_bytes())
    }
}

/// The contents of a `tokenizer.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Description {
    /// A [`CharTokenizer`].
    Char {
        /// The characters in the order of their tokens.
        characters: String,
    },
    /// A [`ByteTokenizer`].
    Byte,
}

/// Reads a tokenizer that [`Tokenizer::save`] wrote.
///
/// # Errors
/// [`Error::File`] if the file cannot be read, [`Error::Malformed`] if it is not such a file.
pub fn load(path: &Path) -> Result<Box<dyn Tokenizer>> {
    let json = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let description: Description = serde_json::from_str(&json).map_err(|e| Error::malformed(path, e))?;
    Ok(match description {
        Description::Char { characters } => Box::new(CharTokenizer::from_text(&characters)),
        Description::Byte => Box::new(ByteTokenizer),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = std::env::temp_dir().join(format!("tapeflow-tokenizer-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("tokenizer.json");
        for tokenizer in [&CharTokenizer::from_text("a quick\n\"fox\" é") as &dyn Tokenizer, &ByteTokenizer] {
            tokenizer.save(&path).unwrap();
            let read = load(&path).unwrap();
            assert_eq!(read.description(), tokenizer.description());
            assert_eq!(read.encode("a fox").unwrap(), tokenizer.encode("a fox").unwrap());
        }
        std::fs::write(&path, r#"{"type":"runes"}"#).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("runes"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
