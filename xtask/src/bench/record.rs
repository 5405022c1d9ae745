//! `benches/RECORD.md`: what was measured, section after section. Nothing there is ever rewritten.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::machine;
use super::peak::Peak;
use super::table::{Row, Table};

const HEAD: &str = "\
# Bench record

Written by `cargo xtask bench NAME… --peers PYTHON --record`, newest last. `median` is the median of the rounds'
medians, `best` the best single iteration; systems took turns in every round. Ratios are of the values (for times less
is better, for rates more), against PyTorch's best variant with as many threads and on the same kind of device, the
processor or a GPU; PyTorch runs with a tuned heap (kept, huge pages), tapeflow with the system's default. A row with
`other CPUs` above 0.1 was disturbed. `of floor`: the least time that the workload's operations or bytes take at the
peak of the processor and its memory, by the peers' `peak.c`, over the median. `peak MiB`: resident memory of the process.
";

/// What was measured: the commit, and the compiler that built it.
pub struct Origin {
    pub commit: String,
    pub rustc: String,
}

impl Origin {
    /// The workspace as it is.
    pub fn here() -> Origin {
        let is_changed = !machine::ask("git", &["status", "--porcelain"]).is_empty();
        let commit = machine::ask("git", &["rev-parse", "--short", "HEAD"]);
        let commit = if commit.is_empty() { "no commit yet" } else { &commit };
        let commit = format!("{commit}{}", if is_changed { " and uncommitted changes" } else { "" });
        Origin { commit, rustc: machine::ask("rustc", &["--version"]) }
    }
}

pub fn append(path: &Path, note: &str, table: &Table<'_>, origin: &Origin) -> io::Result<()> {
    let &Table(rows, peak) = table;
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
    let mut devices: Vec<String> = Vec::new();
    for row in rows.iter().map(Row::first) {
        let device = row.device_name.as_ref().map(|name| format!("{} is {name}", row.device));
        devices.extend(device.filter(|device| !devices.contains(device)));
    }
    write!(file, "\n## {}", machine::today())?;
    if !note.is_empty() {
        write!(file, " · {note}")?;
    }
    writeln!(file, "\n\n{}; {}.", machine::describe(), origin.rustc)?;
    if !devices.is_empty() {
        writeln!(file, "{}.", devices.join("; "))?;
    }
    writeln!(
        file,
        "{}; at {}; {} rounds.",
        versions.join(", "),
        origin.commit,
        rows.first().map_or(0, |r| r.lines.len())
    )?;
    if let Some(Peak { gflops, gigabytes_per_second }) = peak {
        writeln!(file, "Floors by peak.c before and after: {gflops:.0} GFLOP/s, {gigabytes_per_second:.1} GB/s.")?;
    }
    write!(file, "\n{table}")
}

#[cfg(test)]
mod tests {
    use super::super::line::Line;
    use super::*;

    #[test]
    fn a_section_names_devices_and_origin() {
        let text = concat!(
            r#"{"system": "tapeflow", "workload": "w", "metric": "time", "unit": "ms", "median": 2.0, "min": 1.0, "#,
            r#""max": 3.0, "threads": 2, "device": "vulkan:0", "device_name": "A (B)", "version": "1"}"#
        );
        let rows = [Row { lines: vec![Line::parse(text).unwrap()] }];
        let path = std::env::temp_dir().join(format!("tapeflow-record-{}.md", std::process::id()));
        let origin = Origin { commit: "abc".into(), rustc: "rustc 1".into() };
        append(&path, "a note", &Table(&rows, None), &origin).unwrap();
        append(&path, "", &Table(&rows, None), &origin).unwrap();
        let found = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found.matches("# Bench record\n").count(), 1);
        let section = "; rustc 1.\nvulkan:0 is A (B).\ntapeflow 1; at abc; 1 rounds.\n\n| workload |";
        assert_eq!(found.matches(section).count(), 2, "{found}");
        assert!(
            found.contains(" · a note\n") && found.contains("| w        | tapeflow | vulkan:0 | 2       | 2.000 ms |")
        );
    }
}
