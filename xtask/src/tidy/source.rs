//! A Rust file cut into lines, each with its code (comments and literals blanked) and its comment apart, and with what
//! is test code marked. A lexer, not a parser: enough for rules about words and neighbouring lines.

use std::collections::HashSet;
use std::path::Path;

use super::Finding;

pub struct Source {
    /// Relative to the workspace, with `/`.
    pub path: String,
    pub lines: Vec<Line>,
}

#[derive(Default)]
pub struct Line {
    /// As written.
    pub text: String,
    /// `text` without comments, and with what stands in string and char literals blanked.
    pub code: String,
    /// What comments say on this line, their markers included.
    pub comment: String,
    /// Inside a `#[cfg(test)]` item or a test file.
    pub test: bool,
}

impl Source {
    pub fn parse(path: &str, text: &str) -> Source {
        let mut lines = lex(text);
        mark_tests(&mut lines);
        if is_test_path(path) {
            lines.iter_mut().for_each(|line| line.test = true);
        }
        Source { path: path.to_owned(), lines }
    }

    /// One finding for each line `is_wrong` says so of.
    pub fn find(&self, is_wrong: impl Fn(usize, &Line) -> Option<String>) -> Vec<Finding> {
        let wrong = self.lines.iter().enumerate().filter_map(|(i, line)| Some((i, is_wrong(i, line)?)));
        wrong.map(|(i, what)| Finding { path: self.path.clone(), line: i + 1, what }).collect()
    }

    /// Inputs and outputs of macro tests: written by a macro or wrong on purpose.
    pub fn is_specimen(&self) -> bool {
        let folders = ["ui", "expand", "golden", "snapshots"];
        self.path.contains("tests/") && self.path.split('/').any(|part| folders.contains(&part))
    }

    /// The crate's folder: `core`, `nn`, … (the facade's files give `src`, `examples`, `tests`).
    pub fn package(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }
}

/// Every `.rs` file of the workspace. Modules declared `#[cfg(test)] mod name;` are test code.
pub fn read_all(root: &Path) -> Result<Vec<Source>, String> {
    let mut paths = Vec::new();
    walk(root, &mut paths).map_err(|e| format!("{}: {e}", root.display()))?;
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        sources.push(Source::parse(&relative, &text));
    }
    let tests: HashSet<String> = sources.iter().flat_map(test_modules).collect();
    for source in sources.iter_mut().filter(|s| tests.contains(&s.path)) {
        source.lines.iter_mut().for_each(|line| line.test = true);
    }
    Ok(sources)
}

fn walk(folder: &Path, found: &mut Vec<std::path::PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "runs" {
                walk(&path, found)?;
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// The files that `#[cfg(test)] mod name;` in this file may mean.
fn test_modules(source: &Source) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let folder = match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        other => format!("{folder}/{}", other.trim_end_matches(".rs")),
    };
    let declared = source.lines.iter().filter(|line| line.test);
    let names =
        declared.filter_map(|line| line.code.trim().trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    names.flat_map(|name| [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]).collect()
}

/// Marks the items after `#[cfg(test)]`, `#[cfg(all(test, …))]` and `#[test]`.
fn mark_tests(lines: &mut [Line]) {
    let mut from = 0;
    while let Some(start) = (from..lines.len()).find(|&i| is_test_attribute(&lines[i].code)) {
        let mut depth = 0i32;
        let mut end = start;
        'item: for (i, line) in lines.iter().enumerate().skip(start) {
            end = i;
            // An attribute's own brackets close on its line; an item ends with `;` or its closing brace.
            for c in line.code.chars() {
                match c {
                    '{' | '(' | '[' => depth += 1,
                    '}' | ')' | ']' => {
                        depth -= 1;
                        if c == '}' && depth == 0 {
                            break 'item;
                        }
                    }
                    ';' if depth == 0 => break 'item,
                    _ => {}
                }
            }
        }
        lines[start..=end].iter_mut().for_each(|line| line.test = true);
        from = end + 1;
    }
}

fn is_test_attribute(code: &str) -> bool {
    let code = code.trim();
    let condition = code.strip_prefix("#[cfg(").unwrap_or_default();
    let positive = !condition.contains("not(");
    code.starts_with("#[test]") || (positive && words(condition).any(|word| word == "test"))
}

/// The identifiers in a piece of code.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

enum State {
    Code,
    LineComment,
    /// How deeply nested.
    BlockComment(u32),
    /// How many `#` close it; `None` for an ordinary string with escapes.
    Text(Option<usize>),
}

fn lex(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut state = State::Code;
    for text in text.lines() {
        let mut line = Line { text: text.to_owned(), ..Line::default() };
        let chars: Vec<char> = text.chars().collect();
        let mut i = 0;
        while i < chars.len() {
            i += step(&chars, i, &mut state, &mut line);
        }
        if matches!(state, State::LineComment) {
            state = State::Code;
        }
        lines.push(line);
    }
    lines
}

/// Takes in what stands at `i`; gives the number of chars it is long.
fn step(chars: &[char], i: usize, state: &mut State, line: &mut Line) -> usize {
    let at = |k: usize| chars.get(i + k).copied().unwrap_or('\0');
    let blank = |line: &mut Line, n: usize| line.code.extend(std::iter::repeat_n(' ', n));
    match *state {
        State::LineComment => line.comment.push(at(0)),
        State::BlockComment(depth) => {
            let (open, close) = (at(0) == '/' && at(1) == '*', at(0) == '*' && at(1) == '/');
            if open || close {
                *state = if open { State::BlockComment(depth + 1) } else { State::BlockComment(depth - 1) };
                if matches!(*state, State::BlockComment(0)) {
                    *state = State::Code;
                }
                return 2;
            }
            line.comment.push(at(0));
        }
        State::Text(None) if at(0) == '\\' => {
            blank(line, 2);
            return 2;
        }
        State::Text(hashes) => {
            let n = hashes.unwrap_or(0);
            if at(0) == '"' && (1..=n).all(|k| at(k) == '#') {
                *state = State::Code;
                line.code.push('"');
                return 1 + n;
            }
            blank(line, 1);
        }
        State::Code => return step_code(chars, i, state, line),
    }
    1
}

fn step_code(chars: &[char], i: usize, state: &mut State, line: &mut Line) -> usize {
    let at = |k: usize| chars.get(i + k).copied().unwrap_or('\0');
    let in_word = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    match at(0) {
        '/' if at(1) == '/' => {
            *state = State::LineComment;
            line.comment.push_str("//");
            return 2;
        }
        '/' if at(1) == '*' => {
            *state = State::BlockComment(1);
            return 2;
        }
        '"' => *state = State::Text(None),
        'r' | 'b' | 'c' if !in_word => {
            let prefix = if at(0) != 'r' && at(1) == 'r' { 2 } else { 1 };
            let raw = at(prefix - 1) == 'r';
            let hashes = if raw { (0..).take_while(|k| at(prefix + k) == '#').count() } else { 0 };
            if raw && at(prefix + hashes) == '"' {
                *state = State::Text(Some(hashes));
                line.code.push('"');
                return prefix + hashes + 1;
            }
        }
        '\'' => {
            // 'x', '\n', '\u{1f}' are literals; 'a without a closing quote is a lifetime.
            let length = match at(1) {
                '\\' => (3..12).find(|&k| at(k) == '\'').map(|k| k + 1),
                _ if at(2) == '\'' => Some(3),
                _ => None,
            };
            if let Some(length) = length {
                line.code.push_str("' '");
                return length;
            }
        }
        _ => {}
    }
    line.code.push(at(0));
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        lex(text).iter().map(|l| l.code.trim_end()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        assert_eq!(code("let a = \"b // c\"; // d"), "let a = \"      \";");
        assert_eq!(code("let a = r#\"x\" .unwrap()\"#; f(b\"y\")"), "let a = \"            \"; f(b\" \")");
        assert_eq!(code("a /* b /* c */ d\n e */ f"), "a\n f");
        assert_eq!(code("x: &'a str, '\\'', '{', b'\\x7f'"), "x: &'a str, ' ', ' ', b' '");
        assert_eq!(code("\"one\n two\" + three"), "\"\n    \" + three");
    }

    #[test]
    fn test_items_are_marked_to_their_end() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod t {\n    fn b() { c[0] = 1; }\n}\nfn d() {}\n#[cfg(not(test))]\nfn e() {}";
        let marked: Vec<_> = Source::parse("core/src/a.rs", text).lines.iter().map(|l| l.test).collect();
        assert_eq!(marked, [false, true, true, true, true, false, false, false]);
        let source = Source::parse("core/src/a.rs", "#[cfg(all(test, loom))]\nmod models;\nfn b() {}");
        assert_eq!(source.lines.iter().map(|l| l.test).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(test_modules(&source), ["core/src/a/models.rs", "core/src/a/models/mod.rs"]);
    }
}
