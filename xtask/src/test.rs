//! `cargo xtask test`: every check in order, all of them run even after one failed, and a summary.

use std::process::Command;
use std::time::Instant;

use crate::packages::{self, Part, in_path};
use crate::process::{self, Counts, cargo};
use crate::{instructions, vulkan};

#[derive(clap::Args)]
pub struct Args {
    /// Also the long tests, those marked `#[ignore]`, in release; and loom's models of the pool's protocols.
    #[arg(long)]
    full: bool,
}

struct Outcome {
    name: &'static str,
    seconds: f64,
    counts: Counts,
    failure: Option<String>,
}

pub fn run(args: &Args) -> Result<(), String> {
    let started = Instant::now();
    let scratch = Scratch::new()?;
    let valgrind: Part = ("valgrind", "valgrind", || in_path("valgrind"));
    packages::install_missing(vulkan::PARTS.into_iter().chain([valgrind]));
    let mut steps = vec![
        ("format", cargo(["fmt", "--all", "--check"])),
        ("lints", cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"])),
        ("tests", vulkan::validated(cargo(["test", "--workspace", "--no-fail-fast"]))),
        ("documentation", documentation()),
    ];
    steps.extend(examples(&scratch));
    if args.full {
        steps.push(("loom", loom()));
        let long = cargo(["test", "--workspace", "--release", "--no-fail-fast", "--", "--ignored"]);
        steps.push(("long tests", vulkan::validated(long)));
    }
    let mut outcomes = vec![measure("tidy", || crate::tidy::run().map(|()| Counts::default()).map_err(without_counts))];
    for (name, command) in steps {
        println!("\n== {name}: {}", shown(&command));
        outcomes.push(measure(name, || process::run(command)));
    }
    if instructions::is_possible() {
        println!("\n== instructions");
        let counted = || instructions::run(&instructions::Args::default());
        outcomes.push(measure("instructions", || counted().map(|()| Counts::default()).map_err(without_counts)));
    } else {
        println!("\nskipped: instructions are not counted without valgrind on Linux on x86-64");
    }
    summary(&outcomes, started.elapsed().as_secs_f64())
}

fn documentation() -> Command {
    let mut command = cargo(["doc", "--workspace", "--no-deps", "--quiet"]);
    command.env("RUSTDOCFLAGS", "--deny warnings");
    command
}

/// The pool's protocols under every interleaving.
fn loom() -> Command {
    let mut command = cargo(["test", "--package", "tapeflow-core", "--release", "--lib", "loom"]);
    command.env("RUSTFLAGS", "--cfg loom");
    command
}

/// Each example as a user would start it, but short. Those with an output folder write into `scratch`.
fn examples(scratch: &Scratch) -> Vec<(&'static str, Command)> {
    let (gpt_out, cnn_out) = (scratch.0.join("gpt"), scratch.0.join("cnn"));
    let mut found = Vec::new();
    let mut example = |name: &'static str, more: &[&str]| {
        if !crate::root().join(format!("examples/{name}.rs")).exists()
            && !crate::root().join(format!("examples/{name}/main.rs")).exists()
        {
            println!("example {name}: not there");
            return;
        }
        let mut command = cargo(["run", "--release", "--quiet", "--example", name]);
        if !more.is_empty() {
            command.arg("--").args(more);
        }
        found.push((name, command));
    };
    example("xor", &[]);
    example("gpt", &["--config", "tiny", "--steps", "20", "--out", &gpt_out.to_string_lossy()]);
    example("cnn", &["--drawn", "300", "--epochs", "1", "--out", &cnn_out.to_string_lossy()]);
    found
}

/// A folder for what the examples write, gone at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, String> {
        let path = std::env::temp_dir().join(format!("tapeflow-xtask-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed from a temporary folder does no harm there.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn without_counts(message: String) -> (String, Counts) {
    (message, Counts::default())
}

fn measure(name: &'static str, step: impl FnOnce() -> Result<Counts, (String, Counts)>) -> Outcome {
    let started = Instant::now();
    let (counts, failure) = match step() {
        Ok(counts) => (counts, None),
        Err((message, counts)) => (counts, Some(message)),
    };
    Outcome { name, seconds: started.elapsed().as_secs_f64(), counts, failure }
}

fn shown(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(k, v)| Some(format!("{}={}", k.to_string_lossy(), v?.to_string_lossy())));
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    set.chain(["cargo".to_owned()]).chain(words).collect::<Vec<_>>().join(" ")
}

fn summary(outcomes: &[Outcome], seconds: f64) -> Result<(), String> {
    println!("\n== summary");
    let mut total = Counts::default();
    for outcome in outcomes {
        total.add(outcome.counts);
        let tests = match outcome.counts {
            counts if counts == Counts::default() => String::new(),
            counts => format!("  {counts}"),
        };
        let state = if outcome.failure.is_none() { "ok" } else { "FAILED" };
        let why = outcome.failure.as_ref().map(|m| format!("  ({m})")).unwrap_or_default();
        println!("{:<14} {state:<6} {:>7.1} s{tests}{why}", outcome.name, outcome.seconds);
    }
    println!("{total}; {seconds:.0} s in all");
    let failed: Vec<_> = outcomes.iter().filter(|o| o.failure.is_some()).map(|o| o.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}
