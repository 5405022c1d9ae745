//! `cargo xtask instructions`: how many instructions small steps take, counted by Valgrind's callgrind on one thread,
//! and compared with those of the file that is kept. Unlike times, counts hardly depend on the machine and its load, so
//! every check can look at them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::packages::in_path;

const KEPT: &str = "benches/instructions.txt";
/// What is counted: the function of the bench program that runs the steps.
const MEASURED: &str = "tapeflow_measured";
/// Instruction sets that Valgrind knows.
const SETS: [&str; 2] = ["avx2", "baseline"];
/// Which compiler the kept counts are of.
const COMPILER: &str = "# Compiler: ";
/// A count may grow by so much, in percent, before it is an error.
const TOLERANCE: u64 = 5;

#[derive(clap::Args, Default)]
pub struct Args {
    /// Keep the counts found, in place of those that were kept.
    #[arg(long)]
    update: bool,
}

/// Counts by instruction set and workload.
type Counts = BTreeMap<(String, String), u64>;

/// Whether there is what it takes here.
pub fn is_possible() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64")) && in_path("valgrind")
}

pub fn run(args: &Args) -> Result<(), String> {
    if !is_possible() {
        return Err("valgrind on Linux on x86-64 is needed (Debian: valgrind)".into());
    }
    let arguments = ["build", "--release", "--package", "tapeflow-bench", "--bin", "instructions"];
    let program = crate::artifacts::program("instructions", &arguments)?;
    let found = count_all(&program)?;
    let compiler = compiler()?;
    let path = crate::root().join(KEPT);
    if args.update {
        std::fs::write(&path, text(&compiler, &found)).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{} counts are kept in {KEPT}", found.len());
        return Ok(());
    }
    let kept = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let outcome = compare(&parse(&kept)?, &found);
    match kept.lines().find_map(|line| line.strip_prefix(COMPILER)) {
        Some(known) if known != compiler => {
            println!("not compared: the kept counts are of {known}, this is {compiler}");
            Ok(())
        }
        _ => outcome,
    }
}

/// As it names itself: another one makes other code.
fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output().map_err(|e| format!("rustc --version: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn count_all(program: &Path) -> Result<Counts, String> {
    let listed = Command::new(program).output().map_err(|e| format!("{}: {e}", program.display()))?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut found = Counts::new();
    for set in SETS.into_iter().filter(|set| is_there(set)) {
        for name in names.lines() {
            let count = count(program, set, name)?;
            println!("{set:<9} {name:<16} {count:>14}");
            found.insert((set.to_owned(), name.to_owned()), count);
        }
    }
    Ok(found)
}

/// Whether this machine has the instruction set.
fn is_there(set: &str) -> bool {
    #[cfg(target_arch = "x86_64")]
    let has_avx2 = std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("f16c");
    #[cfg(not(target_arch = "x86_64"))]
    let has_avx2 = false;
    set != "avx2" || has_avx2
}

fn count(program: &Path, set: &str, name: &str) -> Result<u64, String> {
    let file: PathBuf = std::env::temp_dir().join(format!("tapeflow-instructions-{}", std::process::id()));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", &format!("--toggle-collect={MEASURED}")]);
    command.arg(format!("--callgrind-out-file={}", file.display())).arg(program).arg(name);
    // An environment of its own: its size alone moves the stack.
    command.env_clear().env("TAPEFLOW_ISA", set).stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("valgrind: {e}"))?;
    // What it writes besides the sum is of no use here.
    let _ = std::fs::remove_file(&file);
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = || format!("{name} with {set}: {}: {}", output.status, said.trim());
    if !output.status.success() {
        return Err(failed());
    }
    collected(&said).filter(|count| *count > 0).ok_or_else(failed)
}

/// Reads `==123== Collected : 4567`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.split_whitespace().next()?.parse().ok())
}

fn text(compiler: &str, counts: &Counts) -> String {
    let mut text = String::from("# Instructions of small steps: see benches/src/bin/instructions.rs.\n");
    text += "# Made by `cargo xtask instructions --update`; a count that grows by more than 5 % fails the checks.\n";
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{COMPILER}{compiler}");
    for ((set, name), count) in counts {
        let _ = writeln!(text, "{set} {name} {count}");
    }
    text
}

fn parse(text: &str) -> Result<Counts, String> {
    let mut counts = Counts::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [set, name, count] if count.parse::<u64>().is_ok_and(|count| count > 0) => {
                counts.insert((set.to_owned(), name.to_owned()), count.parse().unwrap_or_default());
            }
            _ => return Err(format!("{KEPT}: `{line}` is no instruction set, workload and count")),
        }
    }
    Ok(counts)
}

/// Fails for what grew, and for what was never counted before.
fn compare(kept: &Counts, found: &Counts) -> Result<(), String> {
    let mut wrong = Vec::new();
    for ((set, name), &count) in found {
        let Some(&before) = kept.get(&(set.clone(), name.clone())) else {
            wrong.push(format!("{set} {name} is not in {KEPT}"));
            continue;
        };
        let change = 100.0 * (count as f64 / before as f64 - 1.0);
        println!("{set:<9} {name:<16} {before:>14} → {count:>14}  {change:+.2} %");
        if count * 100 > before * (100 + TOLERANCE) {
            wrong.push(format!("{set} {name} takes {change:.1} % more instructions than before"));
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("{}; if that is meant: `cargo xtask instructions --update`", wrong.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(count: u64) -> Counts {
        Counts::from([(("avx2".to_owned(), "mlp_step".to_owned()), count)])
    }

    #[test]
    fn what_valgrind_says_is_read() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n==7== I   refs:      123,456\n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }

    #[test]
    fn counts_survive_the_file() {
        assert_eq!(parse(&text("rustc 1.0.0", &counts(17))), Ok(counts(17)));
        assert!(parse("avx2 mlp_step many").unwrap_err().contains("mlp_step many"));
        assert!(parse("avx2 mlp_step 0").is_err());
    }

    #[test]
    fn growth_beyond_the_tolerance_fails_and_so_does_what_is_new() {
        assert_eq!(compare(&counts(1000), &counts(1050)), Ok(()));
        assert_eq!(compare(&counts(1000), &counts(10)), Ok(()));
        assert!(compare(&counts(1000), &counts(1051)).unwrap_err().contains("mlp_step takes 5.1 % more"));
        assert!(compare(&Counts::new(), &counts(1)).unwrap_err().contains("is not in"));
    }
}
