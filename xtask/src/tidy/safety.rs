//! Every `unsafe` block and `unsafe impl` has its SAFETY comment in sight.

use super::Finding;
use super::source::{Source, words};

/// How far above the comment may stand, when code comes between.
const REACH: usize = 3;

pub fn explained(source: &Source) -> Vec<Finding> {
    source.find(|i, line| {
        let code: Vec<&str> = words(&line.code).collect();
        let implements = code.windows(2).any(|pair| pair == ["unsafe", "impl"]);
        if !(implements || opens_block(&line.code)) || source.is_specimen() || is_explained(source, i) {
            return None;
        }
        Some(format!("`unsafe` without a SAFETY comment within the {REACH} lines above"))
    })
}

fn opens_block(code: &str) -> bool {
    code.match_indices("unsafe").any(|(at, _)| code[at + "unsafe".len()..].trim_start().starts_with('{'))
}

fn is_explained(source: &Source, i: usize) -> bool {
    let says = |k: usize| source.lines[k].comment.contains("SAFETY:");
    // The comment's first line says SAFETY; its last line is what must be near.
    let near = i.saturating_sub(REACH);
    let from =
        (0..near).rev().take_while(|&k| source.lines[near].code.trim().is_empty() && is_comment(source, k)).last();
    (from.unwrap_or(near)..=i).any(says)
}

fn is_comment(source: &Source, k: usize) -> bool {
    source.lines[k].code.trim().is_empty() && !source.lines[k].comment.is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::explained;

    #[test]
    fn unexplained_unsafe_is_found() {
        let found = "1: `unsafe` without a SAFETY comment within the 3 lines above";
        assert_eq!(check(explained, "core/src/a.rs", "let a = unsafe { *b };"), [found]);
        assert_eq!(check(explained, "core/src/a.rs", "unsafe impl Send for A {}"), [found]);
        let far = "// SAFETY: b is valid.\nlet c = 1;\nlet d = 2;\nlet e = 3;\nlet a = unsafe { *b };";
        assert_eq!(check(explained, "core/src/a.rs", far).len(), 1);
    }

    #[test]
    fn explained_unsafe_passes() {
        assert!(check(explained, "a.rs", "// SAFETY: b is valid.\nlet a = unsafe { *b };").is_empty());
        let long = "// SAFETY: b is valid,\n// for\n// four\n// reasons\n// told here.\nlet a =\n    unsafe { *b };";
        assert!(check(explained, "a.rs", long).is_empty());
        assert!(check(explained, "a.rs", "unsafe fn a() {}\n// an unsafe { word }\n").is_empty());
    }
}
