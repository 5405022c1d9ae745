//! Text to tokens and back: the trait, and the file every tokenizer is kept in.
//!
//! A tokenizer knows nothing of tensors or models. A `tokenizer.json` says itself which kind it is, so that a
//! checkpoint can be read without being told: ours carry a `type`, those of pretrained models a `model`.

#[cfg(feature = "tokenizers")]
mod bpe;
mod byte;
mod char;

#[cfg(feature = "tokenizers")]
pub use bpe::Bpe;
pub use byte::ByteTokenizer;
pub use char::CharTokenizer;

use std::fmt::Debug;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

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

    /// How many different tokens there are: all are below this number.
    fn vocab_size(&self) -> usize;

    /// The token that stands between texts, and that a model writes where a text ends; not every tokenizer has one.
    fn end_of_text(&self) -> Option<u32> {
        None
    }

    /// What [`save`](Tokenizer::save) writes: everything that [`load`] needs to build the same tokenizer again.
    fn to_json(&self) -> String;

    /// Writes the tokenizer to `path` as JSON, under another name first.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be written.
    fn save(&self, path: &Path) -> Result<()> {
        write_atomically(path, self.to_json().as_bytes())
    }
}

/// Our own kinds of `tokenizer.json`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Own {
    Char { characters: String },
    Byte,
}

/// What tells the files of pretrained models from ours.
#[derive(Deserialize)]
struct Kind {
    model: Option<IgnoredAny>,
}

/// Reads a tokenizer that [`Tokenizer::save`] wrote, or that came with a pretrained model.
///
/// # Errors
/// [`Error::File`] if the file cannot be read, [`Error::Malformed`] if it is not such a file, or one of a pretrained
/// model's that this build cannot read.
pub fn load(path: &Path) -> Result<Box<dyn Tokenizer>> {
    let json = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let kind: Kind = serde_json::from_str(&json).map_err(|e| Error::malformed(path, e))?;
    if kind.model.is_some() {
        return pretrained(json, path);
    }
    let own: Own = serde_json::from_str(&json).map_err(|e| Error::malformed(path, e))?;
    Ok(match own {
        Own::Char { characters } => Box::new(CharTokenizer::from_text(&characters)),
        Own::Byte => Box::new(ByteTokenizer),
    })
}

#[cfg(feature = "tokenizers")]
fn pretrained(json: String, path: &Path) -> Result<Box<dyn Tokenizer>> {
    Ok(Box::new(Bpe::from_json(json, path)?))
}

#[cfg(not(feature = "tokenizers"))]
fn pretrained(_: String, path: &Path) -> Result<Box<dyn Tokenizer>> {
    let why = "it is the tokenizer of a pretrained model, and this program was built without the cargo feature \
               `tokenizers`, which reads those";
    Err(Error::malformed(path, why))
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
            assert_eq!(read.to_json(), tokenizer.to_json());
            assert_eq!(read.encode("a fox").unwrap(), tokenizer.encode("a fox").unwrap());
        }
        std::fs::write(&path, r#"{"type":"runes"}"#).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("runes"));
        std::fs::write(&path, r#"{"model":{"type":"Unigram","vocab":[]}}"#).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: ") && !error.contains("type"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
