//! Byte-pair encoding as pretrained models come with it: a `tokenizer.json` read by the `tokenizers` crate.
//!
//! Owns what is refused, so that nothing of a text is lost without notice: settings that cut or pad, that draw, and
//! vocabularies that lack characters. Sennrich et al. 2016, arXiv:1508.07909; over bytes: Radford et al. 2019 (GPT-2).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use tokenizers::{Model, ModelWrapper};

use super::Tokenizer;
use crate::error::{Error, Result};

/// The token between texts, as GPT-2 and most that came after it spell it.
const END_OF_TEXT: &str = "<|endoftext|>";

/// A byte-pair encoding from a `tokenizer.json`, such as GPT-2's.
///
/// Special tokens that stand in a text (`<|endoftext|>`) become those tokens, and are written out by
/// [`decode`](Tokenizer::decode). Needs the cargo feature `tokenizers`.
///
/// ```
/// use tapeflow_nn::tokenizer::{Bpe, Tokenizer};
/// # let path = std::env::temp_dir().join(format!("tapeflow-doc-bpe-{}.json", std::process::id()));
/// let json = r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
///     "decoder": {"type": "Fuse"}}"#;
/// std::fs::write(&path, json).unwrap();
/// let tokenizer = Bpe::from_file(&path)?;
/// assert_eq!(tokenizer.encode("abba")?, [2, 1, 0]);
/// assert_eq!(tokenizer.decode(&[2, 1, 0])?, "abba");
/// assert!(tokenizer.encode("abc").unwrap_err().to_string().contains("'c' (U+0063) at character 2"));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone)]
pub struct Bpe(Arc<Inner>);

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// The file, word for word.
    json: String,
    vocab_size: usize,
    end_of_text: Option<u32>,
    /// Whether characters that the vocabulary lacks would be left out without notice.
    loses: bool,
}

/// The part of the file that says which tokens were added to the model's.
#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl fmt::Debug for Bpe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bpe").field("vocab_size", &self.0.vocab_size).finish_non_exhaustive()
    }
}

impl Bpe {
    /// Reads a `tokenizer.json`.
    ///
    /// What the file says of cutting and padding is for batches of other programs, and left aside.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read; [`Error::Malformed`] if it is no such file, or holds another kind of
    /// model, one that merges at random, or one over bytes that lacks some of them.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Bpe::from_json(std::fs::read_to_string(path).map_err(Error::file("read", path))?, path)
    }

    /// From the contents of a `tokenizer.json`; `source` is what errors call it.
    ///
    /// # Errors
    /// As [`from_file`](Bpe::from_file).
    pub fn from_json(json: String, source: &Path) -> Result<Self> {
        let malformed = |why: String| Error::malformed(source, why);
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(&json)
            .map_err(|e| malformed(format!("not a tokenizer that the `tokenizers` crate reads: {e}")))?;
        tokenizer.with_truncation(None).map_err(|e| malformed(e.to_string()))?;
        tokenizer.with_padding(None);
        let ModelWrapper::BPE(bpe) = tokenizer.get_model() else {
            let kind = match tokenizer.get_model() {
                ModelWrapper::WordPiece(_) => "a WordPiece",
                ModelWrapper::WordLevel(_) => "a word-level",
                ModelWrapper::Unigram(_) => "a Unigram",
                ModelWrapper::BPE(_) => "a BPE",
            };
            return Err(malformed(format!("it holds {kind} model; byte-pair encodings (BPE) can be read")));
        };
        if let Some(p) = bpe.dropout.filter(|&p| p > 0.0) {
            return Err(malformed(format!(
                "it merges at random (`dropout` is {p}): a text would have no fixed tokens"
            )));
        }
        let says_unknown = bpe.unk_token.is_some() || bpe.byte_fallback;
        let is_byte_level = tokenizer.get_pre_tokenizer().is_some_and(splits_bytes);
        if is_byte_level && !says_unknown {
            let lacking: Vec<u8> =
                byte_characters().filter(|(_, c)| bpe.token_to_id(c).is_none()).map(|b| b.0).collect();
            if let Some(first) = lacking.first() {
                return Err(malformed(format!(
                    "its vocabulary lacks {} of the 256 bytes, such as 0x{first:02X}: they would be left out of texts \
                     without notice",
                    lacking.len()
                )));
            }
        }
        let added: Added = serde_json::from_str(&json).map_err(|e| malformed(e.to_string()))?;
        for token in added.added_tokens {
            let (content, wanted, found) = (&token.content, token.id, tokenizer.token_to_id(&token.content));
            // The crate gives numbers of its own to what comes after a gap.
            if found != Some(wanted) {
                let found = found.map_or("none".to_owned(), |id| id.to_string());
                return Err(malformed(format!("its token `{content}` has the number {wanted}, and would get {found}")));
            }
        }
        let loses = !is_byte_level && !says_unknown;
        let last = tokenizer.get_vocab(true).into_values().max();
        let vocab_size = last.map_or(0, |last| last as usize + 1);
        let end_of_text = tokenizer.token_to_id(END_OF_TEXT);
        Ok(Bpe(Arc::new(Inner { tokenizer, json, vocab_size, end_of_text, loses })))
    }

    /// The number of a token by its name, such as `<|endoftext|>`.
    pub fn token(&self, name: &str) -> Option<u32> {
        self.0.tokenizer.token_to_id(name)
    }

    /// The first character that no token covers; what separates words may go into none.
    fn check_covered(&self, text: &str, encoding: &tokenizers::Encoding) -> Result<()> {
        let mut covered = vec![false; text.chars().count()];
        for &(start, end) in encoding.get_offsets() {
            covered.iter_mut().take(end).skip(start).for_each(|c| *c = true);
        }
        let lost = text.chars().zip(covered).position(|(c, covered)| !covered && !c.is_whitespace());
        let Some((position, character)) = lost.and_then(|at| Some((at, text.chars().nth(at)?))) else {
            return Ok(());
        };
        let known = format!("{} tokens, none of them for what is unknown", self.0.vocab_size);
        Err(Error::unknown_character(text, position, character, known))
    }
}

/// Whether texts are split into bytes, each written as a character, so that a vocabulary of 256 has them all.
fn splits_bytes(pre_tokenizer: &tokenizers::PreTokenizerWrapper) -> bool {
    use tokenizers::PreTokenizerWrapper::{ByteLevel, Sequence};
    match pre_tokenizer {
        ByteLevel(_) => true,
        Sequence(all) => all.as_ref().iter().any(splits_bytes),
        _ => false,
    }
}

/// How GPT-2 writes each byte as a character: those that can be seen stand for themselves, the others for what comes
/// after U+00FF, in order.
fn byte_characters() -> impl Iterator<Item = (u8, String)> {
    let mut hidden = 0x100;
    (0..=u8::MAX).map(move |byte| {
        let character = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => u32::from(byte),
            _ => {
                hidden += 1;
                hidden - 1
            }
        };
        (byte, char::from_u32(character).map(String::from).unwrap_or_default())
    })
}

impl Tokenizer for Bpe {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let refused = |e: tokenizers::Error| Error::Tokenizer { action: "encode", reason: e.to_string() };
        let Inner { tokenizer, loses, .. } = &*self.0;
        if !loses {
            return Ok(tokenizer.encode_fast(text, true).map_err(refused)?.get_ids().to_vec());
        }
        let encoding = tokenizer.encode_char_offsets(text, true).map_err(refused)?;
        self.check_covered(text, &encoding)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Bytes that are no UTF-8 are shown as U+FFFD.
    fn decode(&self, tokens: &[u32]) -> Result<String> {
        let tokenizer = &self.0.tokenizer;
        // The crate leaves out what it does not know.
        if let Some(position) = tokens.iter().position(|&token| tokenizer.id_to_token(token).is_none()) {
            return Err(Error::UnknownToken { token: tokens[position], position, vocab_size: self.0.vocab_size });
        }
        tokenizer.decode(tokens, false).map_err(|e| Error::Tokenizer { action: "decode", reason: e.to_string() })
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size
    }

    fn end_of_text(&self) -> Option<u32> {
        self.0.end_of_text
    }

    /// The file it was read from, word for word.
    fn to_json(&self) -> String {
        self.0.json.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file(model: Value, more: Value) -> String {
        let mut all = json!({ "model": model });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all.to_string()
    }

    /// Over bytes, with a merge for " t" and one within "é".
    fn byte_level(without: Option<u8>, end: u32) -> String {
        let mut vocab = serde_json::Map::new();
        for (byte, character) in byte_characters().filter(|(byte, _)| Some(*byte) != without) {
            vocab.insert(character, json!(byte));
        }
        vocab.extend([("Ġt".to_owned(), json!(256)), ("Ã©".to_owned(), json!(257))]);
        let model = json!({ "type": "BPE", "vocab": vocab, "merges": [["Ġ", "t"], ["Ã", "©"]] });
        let level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        let added = json!([{ "id": end, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true }]);
        let cut = json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
        file(model, json!({ "pre_tokenizer": level, "decoder": level, "added_tokens": added, "truncation": cut }))
    }

    fn read(json: &str) -> Result<Bpe> {
        Bpe::from_json(json.to_owned(), Path::new("tokenizer.json"))
    }

    fn said(json: &str) -> String {
        read(json).unwrap_err().to_string()
    }

    #[test]
    fn every_text_survives_with_its_special_tokens() {
        let tokenizer = read(&byte_level(None, 258)).unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.end_of_text()), (259, Some(258)));
        assert_eq!(tokenizer.encode("a té<|endoftext|>").unwrap(), [97, 256, 257, 258]);
        let text = "  Zwölf\n\n水 <|endoftext|> 👩‍🚀\u{0}\u{FFFD} it's\t";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
        assert_eq!(tokenizer.decode(&[0xE6, 0xB0]).unwrap(), "\u{FFFD}");
        let error = tokenizer.decode(&[97, 259]).unwrap_err().to_string();
        assert_eq!(error, "decode: token 259 at position 1 is beyond the vocabulary of 259 tokens");
        assert_eq!(read(&tokenizer.to_json()).unwrap().encode(text).unwrap(), tokenizer.encode(text).unwrap());
    }

    #[test]
    fn what_would_lose_text_is_refused() {
        let error = said(&byte_level(Some(0xB0), 258));
        assert!(error.contains("tokenizer.json: its vocabulary lacks 1 of the 256 bytes, such as 0xB0"), "{error}");
        assert!(said(&byte_level(None, 260)).contains("`<|endoftext|>` has the number 260, and would get 258"));
        let bpe = |more: Value| {
            let mut model = json!({ "type": "BPE", "vocab": { "a": 0, "?": 1 }, "merges": [] });
            model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            file(model, json!({}))
        };
        assert!(said(&bpe(json!({ "dropout": 0.1 }))).contains("`dropout` is 0.1"));
        let error = read(&bpe(json!({}))).unwrap().encode("aa\naxa").unwrap_err().to_string();
        assert!(error.contains("'x' (U+0078) at character 4 (line 2, column 2)"), "{error}");
        assert_eq!(read(&bpe(json!({ "unk_token": "?" }))).unwrap().encode("axa").unwrap(), [0, 1, 0]);
        let words = json!({ "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a" });
        assert!(said(&file(words, json!({}))).contains("it holds a word-level model"));
        assert!(said("{}").contains("tokenizer.json: not a tokenizer"));
        assert!(matches!(Bpe::from_file("none.json"), Err(Error::File { .. })));
    }
}
