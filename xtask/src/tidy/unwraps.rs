//! `.unwrap()` and `.expect(…)` outside tests say which invariant makes them sound: `// invariant: …` on the same line
//! or above it within the statement, or `expect("invariant: …")`.

use super::Finding;
use super::source::Source;

pub fn justified(source: &Source) -> Vec<Finding> {
    source.find(|i, line| {
        let found = [".unwrap()", ".expect("].into_iter().find(|call| line.code.contains(call))?;
        if line.test || source.is_specimen() || is_justified(source, i) {
            return None;
        }
        Some(format!("`{found}` without `// invariant: …` on this line or above: return an error, or say why it holds"))
    })
}

/// Looks upwards until the statement before this one ends.
fn is_justified(source: &Source, i: usize) -> bool {
    for (k, line) in source.lines[..=i].iter().enumerate().rev() {
        let code = line.code.trim_end();
        if k < i && code.ends_with([';', '{', '}']) {
            return false;
        }
        if line.text.contains("invariant:") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::justified;

    #[test]
    fn an_unwrap_needs_its_invariant() {
        assert_eq!(check(justified, "core/src/a.rs", "let a = b.unwrap();").len(), 1);
        assert_eq!(check(justified, "core/src/a.rs", "let a = b.expect(\"c\");").len(), 1);
        let other = "let c = d; // invariant: of another statement\nlet a = b.unwrap();";
        assert_eq!(check(justified, "core/src/a.rs", other).len(), 1);
    }

    #[test]
    fn tests_and_justified_unwraps_pass() {
        assert!(check(justified, "core/src/a.rs", "let a = b.expect(\"invariant: b is set in new\");").is_empty());
        assert!(check(justified, "core/src/a.rs", "let a = b.unwrap(); // invariant: b is set in new").is_empty());
        let chain = "// invariant: never empty,\n// as new checks.\nlet a = b\n    .iter()\n    .max()\n    .unwrap();";
        assert!(check(justified, "core/src/a.rs", chain).is_empty());
        assert!(
            check(justified, "core/src/a.rs", "#[cfg(test)]\nmod tests {\n    fn a() { b.unwrap(); }\n}").is_empty()
        );
        assert!(check(justified, "core/src/a.rs", "/// `b.unwrap()`\nlet a = b.unwrap_or(1);").is_empty());
    }
}
