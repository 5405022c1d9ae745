//! Patterns over module paths: `h.*.attn.*`, `*.weight`, `h.?.mlp.c_fc.bias`.

/// A pattern in which `*` stands for any characters, dots included, and `?` for a single one.
///
/// ```
/// use tapeflow_nn::Pattern;
/// assert!(Pattern::new("h.*.attn.*").matches("h.0.attn.c_attn.weight"));
/// assert!(!Pattern::new("*.bias").matches("wte.weight"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern as it is written; every text is one.
    pub fn new(text: impl Into<String>) -> Self {
        Pattern(text.into())
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &str) -> bool {
        let (pattern, path): (Vec<char>, Vec<char>) = (self.0.chars().collect(), path.chars().collect());
        // Where the last star was, and how much of the path it has taken: on a mismatch it takes one more.
        let (mut p, mut s, mut star) = (0, 0, None);
        while s < path.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, s));
                    p += 1;
                }
                Some(&c) if c == '?' || c == path[s] => {
                    p += 1;
                    s += 1;
                }
                _ => {
                    let Some((at, taken)) = star else { return false };
                    star = Some((at, taken + 1));
                    p = at + 1;
                    s = taken + 1;
                }
            }
        }
        pattern[p..].iter().all(|&c| c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_take_as_much_as_they_need() {
        for (pattern, path, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "h.0.w", true),
            ("a*b*c", "a.b.b.c", true),
            ("a*b*c", "a.b.b", false),
            ("*.weight", "h.0.ln_1.weight", true),
            ("*.weight", "weight", false),
            ("h.?.ln_*", "h.3.ln_1.bias", true),
            ("h.?.ln_*", "h.13.ln_1.bias", false),
            ("h.*.attn.*", "h.0.mlp.c_fc.weight", false),
            ("wte.weight", "wte.weight", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(path), expected, "{pattern} on {path}");
        }
    }
}
