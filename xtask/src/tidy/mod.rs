//! `cargo xtask tidy`: the house invariants that no compiler checks, read from the source text. Owns the list of rules;
//! a rule is a function from a file to findings, and knows no other rule.

mod layers;
mod safety;
mod shape;
mod source;
mod threads;
mod unwraps;

use std::fmt;

use source::Source;

/// A broken invariant at a place.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; 0 where the whole file is meant.
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// The rules that read one Rust file. Those about manifests are in `layers`.
const RULES: &[fn(&Source) -> Vec<Finding>] = &[
    shape::opening,
    shape::length,
    shape::width,
    shape::unfinished,
    safety::explained,
    unwraps::justified,
    threads::only_in_the_pool,
    layers::names,
];

pub fn run() -> Result<(), String> {
    let sources = source::read_all(&crate::root())?;
    let mut findings: Vec<_> = sources.iter().flat_map(|s| RULES.iter().flat_map(|rule| rule(s))).collect();
    findings.extend(layers::manifests(&crate::root())?);
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", sources.len(), findings.len());
    if findings.is_empty() { Ok(()) } else { Err(format!("{} tidy findings", findings.len())) }
}

/// Findings of `rule` on a text, as `line: what`, for the rules' own tests.
#[cfg(test)]
fn check(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<String> {
    rule(&Source::parse(path, text)).into_iter().map(|f| format!("{}: {}", f.line, f.what)).collect()
}
