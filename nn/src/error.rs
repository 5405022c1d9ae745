//! What can go wrong above the tensor engine: text, files, checkpoints, configurations.
//!
//! Owns the crate's one error enum. Mistakes of tensor operations come from `tapeflow_core` and pass through unchanged.

use std::path::{Path, PathBuf};

/// Everything that can go wrong in this crate, and, passed through, in the tensor engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A mistake recorded by a tensor operation, or a failure of the program that ran it.
    #[error(transparent)]
    Tensor(#[from] tapeflow_core::Error),

    /// A text holds a character that the tokenizer was not built from.
    #[error(
        "encode: {character:?} (U+{:04X}) at character {position} (line {line}, column {column}) is not in the \
         vocabulary, which knows {known}", *.character as u32
    )]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Its index among the characters of the text, from 0.
        position: usize,
        /// Its line, from 1.
        line: usize,
        /// Its column in characters, from 1.
        column: usize,
        /// The characters that are known, as they are shown to people.
        known: String,
    },

    /// A sequence of tokens holds a number beyond the vocabulary.
    #[error("decode: token {token} at position {position} is beyond the vocabulary of {vocab_size} tokens")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Its index in the sequence, from 0.
        position: usize,
        /// The size of the vocabulary.
        vocab_size: usize,
    },

    /// A tokenizer could not do what it was asked.
    #[error("{action}: {reason}")]
    Tokenizer {
        /// What was asked: `encode` or `decode`.
        action: &'static str,
        /// What the tokenizer said.
        reason: String,
    },

    /// The file system refused something.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A file was read but does not hold what its name promises.
    #[error("{}: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The tensors of a checkpoint are not those of the module.
    #[error("{source_name} does not fit the module{}", list_mismatches(.missing, .unexpected, .unlike))]
    CheckpointMismatch {
        /// Where the tensors came from.
        source_name: String,
        /// Paths of the module that the checkpoint lacks.
        missing: Vec<String>,
        /// Names in the checkpoint that the module has no place for.
        unexpected: Vec<String>,
        /// Paths whose shape or dtype differ, each with both.
        unlike: Vec<String>,
    },

    /// Two parameters or buffers of one module have the same path.
    #[error("two different tensors of the module are both named `{path}`")]
    SamePath {
        /// The path.
        path: String,
    },

    /// A configuration that no model or run can have.
    #[error("{0}")]
    Configuration(String),

    /// A path pattern that matches no parameter, which is nearly always a slip of the pen.
    #[error("the pattern `{pattern}` matches none of the paths: {}", shorten(.paths, 12))]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// The paths there are.
        paths: Vec<String>,
    },

    /// A sample that could not be made, or samples that make no batch.
    #[error("{which}: {source}")]
    Sample {
        /// Which.
        which: String,
        /// Why.
        source: Box<Error>,
    },

    /// The thread that prepares batches ended before its time.
    #[error("the loader's thread ended: {0}")]
    Loader(String),
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A refusal of the file system; for use in `map_err`.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::File { action, path, source }
    }

    /// The character at index `position` of a text, which a vocabulary lacks, with its line and column.
    pub(crate) fn unknown_character(text: &str, position: usize, character: char, known: String) -> Error {
        let (mut line, mut column) = (1, 1);
        for c in text.chars().take(position) {
            if c == '\n' {
                (line, column) = (line + 1, 1);
            } else {
                column += 1;
            }
        }
        Error::UnknownCharacter { character, position, line, column, known }
    }

    /// A file that does not hold what it should.
    pub fn malformed(path: &Path, reason: impl ToString) -> Error {
        Error::Malformed { path: path.to_path_buf(), reason: reason.to_string() }
    }
}

fn list_mismatches(missing: &[String], unexpected: &[String], unlike: &[String]) -> String {
    let mut text = String::new();
    for (title, names) in [("missing", missing), ("unexpected", unexpected), ("of another shape or dtype", unlike)] {
        if !names.is_empty() {
            text.push_str(&format!("\n  {title} ({}): {}", names.len(), shorten(names, 20)));
        }
    }
    text
}

fn shorten(names: &[String], limit: usize) -> String {
    let mut text = names.iter().take(limit).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > limit {
        text.push_str(&format!(", … and {} more", names.len() - limit));
    }
    text
}
