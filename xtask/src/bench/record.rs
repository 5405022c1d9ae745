//! `benches/RECORD.md`: what was measured, section after section. Nothing there is ever rewritten.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::machine;
use super::table::{Row, Table};

const HEAD: &str = "\
# Bench record

Written by `cargo xtask bench NAME… --peers PYTHON --record`, newest last. `median` is the median of the rounds'
medians, `best` the best single iteration; systems took turns in every round. Ratios are of the values (for times less
is better, for rates more), against PyTorch's best variant with as many threads; PyTorch runs with a tuned heap (kept,
huge pages), tapeflow with the system's default. A row with `other CPUs` above 0.1 was disturbed.
";

pub fn append(path: &Path, note: &str, rows: &[Row]) -> io::Result<()> {
    let new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if new {
        file.write_all(HEAD.as_bytes())?;
    }
    let mut versions: Vec<String> = Vec::new();
    for row in rows.iter().map(Row::first) {
        let version = format!("{} {}", row.system, row.version);
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    let changed =
        if machine::ask("git", &["status", "--porcelain"]).is_empty() { "" } else { " and uncommitted changes" };
    let commit = machine::ask("git", &["rev-parse", "--short", "HEAD"]);
    let commit = if commit.is_empty() { "no commit yet" } else { &commit };
    write!(file, "\n## {}", machine::today())?;
    if !note.is_empty() {
        write!(file, " · {note}")?;
    }
    writeln!(file, "\n\n{}; {}.", machine::describe(), machine::ask("rustc", &["--version"]))?;
    writeln!(
        file,
        "{}; at {commit}{changed}; {} rounds.",
        versions.join(", "),
        rows.first().map_or(0, |r| r.lines.len())
    )?;
    write!(file, "\n{}", Table(rows))
}
