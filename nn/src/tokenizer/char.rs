//! One token per character, numbered in the order of the characters.

use super::Tokenizer;
use crate::error::{Error, Result};

/// Tokens are the distinct characters of a text, sorted.
///
/// ```
/// use tapeflow_nn::tokenizer::{CharTokenizer, Tokenizer};
/// let tokenizer = CharTokenizer::from_text("banana");
/// assert_eq!(tokenizer.vocab_size(), 3);
/// assert_eq!(tokenizer.encode("nab")?, [2, 0, 1]);
/// assert_eq!(tokenizer.decode(&[1, 0, 2])?, "ban");
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CharTokenizer {
    /// Sorted and distinct: a character's index is its token.
    characters: Vec<char>,
}

impl CharTokenizer {
    /// The vocabulary of exactly the characters that `text` holds.
    pub fn from_text(text: &str) -> Self {
        let mut characters: Vec<char> = text.chars().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        characters.shrink_to_fit();
        CharTokenizer { characters }
    }

    /// The characters in the order of their tokens.
    pub fn characters(&self) -> &[char] {
        &self.characters
    }

    /// The vocabulary as people read it: characters in quotes, neighbouring letters and digits as ranges.
    fn known(&self) -> String {
        if self.characters.is_empty() {
            return "no characters at all".to_owned();
        }
        let mut runs: Vec<(char, char)> = Vec::new();
        for &c in &self.characters {
            match runs.last_mut() {
                Some((_, last)) if c.is_alphanumeric() && *last as u32 + 1 == c as u32 && last.is_alphanumeric() => {
                    *last = c;
                }
                _ => runs.push((c, c)),
            }
        }
        let shown: Vec<String> = runs
            .iter()
            .take(40)
            .map(|&(first, last)| if first == last { format!("{first:?}") } else { format!("{first:?}–{last:?}") })
            .collect();
        let rest = if runs.len() > 40 { ", …" } else { "" };
        format!("{} characters: {}{rest}", self.characters.len(), shown.join(" "))
    }
}

impl Tokenizer for CharTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        text.chars()
            .enumerate()
            .map(|(position, c)| match self.characters.binary_search(&c) {
                Ok(token) => Ok(token as u32),
                Err(_) => Err(Error::unknown_character(text, position, c, self.known())),
            })
            .collect()
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        tokens
            .iter()
            .enumerate()
            .map(|(position, &token)| {
                self.characters.get(token as usize).copied().ok_or(Error::UnknownToken {
                    token,
                    position,
                    vocab_size: self.characters.len(),
                })
            })
            .collect()
    }

    fn vocab_size(&self) -> usize {
        self.characters.len()
    }

    fn to_json(&self) -> String {
        let characters: String = self.characters.iter().collect();
        format!("{:#}", serde_json::json!({ "type": "char", "characters": characters }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_character_is_named_with_its_place_and_what_is_known() {
        let tokenizer = CharTokenizer::from_text("abcd\n !");
        assert_eq!(
            tokenizer.encode("ab\na?").unwrap_err().to_string(),
            "encode: '?' (U+003F) at character 4 (line 2, column 2) is not in the vocabulary, which knows 7 \
             characters: '\\n' ' ' '!' 'a'–'d'"
        );
        assert!(CharTokenizer::from_text("").encode("x").unwrap_err().to_string().contains("no characters at all"));
        assert_eq!(CharTokenizer::from_text("").encode("").unwrap(), Vec::<u32>::new());
    }

    #[test]
    fn a_text_of_its_own_characters_survives() {
        let text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Deich.\n";
        let tokenizer = CharTokenizer::from_text(text);
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
        assert!(tokenizer.decode(&[10_000]).is_err());
    }
}
