//! What a file looks like: its opening, its length, the width of its lines, and nothing left unfinished.

use super::Finding;
use super::source::Source;

const MAX_LINES: usize = 500;
const MAX_WIDTH: usize = 120;

/// Files that may be longer than `MAX_LINES`, each with the reason.
const LONG: &[(&str, &str)] = &[];

pub fn opening(source: &Source) -> Vec<Finding> {
    let opens = source.lines.iter().find(|l| !l.text.is_empty()).is_some_and(|l| l.text.starts_with("//!"));
    if opens || source.is_specimen() {
        return Vec::new();
    }
    let what = "does not open with `//!` (what the file owns, and what it must not know)".to_owned();
    vec![Finding { path: source.path.clone(), line: 1, what }]
}

pub fn length(source: &Source) -> Vec<Finding> {
    let lines = source.lines.len();
    if lines <= MAX_LINES || source.is_specimen() || LONG.iter().any(|(path, _)| *path == source.path) {
        return Vec::new();
    }
    let what = format!("{lines} lines, more than {MAX_LINES}: split it by concept, or list it with the reason");
    vec![Finding { path: source.path.clone(), line: 0, what }]
}

pub fn width(source: &Source) -> Vec<Finding> {
    source.find(|_, line| {
        let width = line.text.chars().count();
        // A message stays whole, so that it can be searched for.
        let message = line.text.contains('"') || (line.code.trim().is_empty() && line.comment.is_empty());
        (width > MAX_WIDTH && !message && !source.is_specimen())
            .then(|| format!("{width} columns, more than {MAX_WIDTH}"))
    })
}

pub fn unfinished(source: &Source) -> Vec<Finding> {
    source.find(|_, line| {
        let names = ["todo!", "unimplemented!"];
        let found = names.iter().find(|name| line.code.contains(**name))?;
        Some(format!("`{found}` left in the code"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn a_file_opens_with_its_documentation() {
        assert!(check(opening, "ir/src/a.rs", "//! Owns a.\n").is_empty());
        assert_eq!(check(opening, "ir/src/a.rs", "use b;\n").len(), 1);
        assert!(check(opening, "tests/ui/a.rs", "use b;\n").is_empty());
    }

    #[test]
    fn long_files_and_wide_lines_are_found() {
        assert_eq!(check(length, "a.rs", &"\n".repeat(501)).len(), 1);
        assert!(check(length, "a.rs", &"\n".repeat(500)).is_empty());
        assert_eq!(check(width, "a.rs", &"é".repeat(121)), ["1: 121 columns, more than 120"]);
        assert!(check(width, "a.rs", &"é".repeat(120)).is_empty());
    }

    #[test]
    fn unfinished_code_is_found_even_in_tests() {
        assert_eq!(check(unfinished, "tests/a.rs", "fn a() { todo!() }").len(), 1);
        assert!(check(unfinished, "a.rs", "// not a todo!() but a word\nlet a = \"todo!\";").is_empty());
    }
}
