//! One token per byte of UTF-8: no vocabulary to build, nothing unknown.

use super::Tokenizer;
use crate::error::{Error, Result};

/// Tokens are the bytes of the text, so the vocabulary has 256 and every text can be encoded.
///
/// A model may sample bytes that are no UTF-8; [`decode`](Tokenizer::decode) shows U+FFFD for each such run instead of
/// failing, since a sample is there to be looked at.
///
/// ```
/// use tapeflow_nn::tokenizer::{ByteTokenizer, Tokenizer};
/// let tokens = ByteTokenizer.encode("é!")?;
/// assert_eq!(tokens, [0xC3, 0xA9, 0x21]);
/// assert_eq!(ByteTokenizer.decode(&tokens[1..])?, "\u{FFFD}!");
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteTokenizer;

impl Tokenizer for ByteTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        let bytes = tokens
            .iter()
            .enumerate()
            .map(|(position, &token)| {
                u8::try_from(token).map_err(|_| Error::UnknownToken { token, position, vocab_size: 256 })
            })
            .collect::<Result<Vec<u8>>>()?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn vocab_size(&self) -> usize {
        256
    }

    fn to_json(&self) -> String {
        r#"{"type": "byte"}"#.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_and_what_is_no_byte_is_named() {
        let text = "Öl und 水\n";
        assert_eq!(ByteTokenizer.decode(&ByteTokenizer.encode(text).unwrap()).unwrap(), text);
        let error = ByteTokenizer.decode(&[65, 256]).unwrap_err().to_string();
        assert_eq!(error, "decode: token 256 at position 1 is beyond the vocabulary of 256 tokens");
    }
}
