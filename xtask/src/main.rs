//! The developer's commands: `cargo xtask test|tidy|bench|gpu|instructions|golden`. Owns how the workspace is checked
//! and measured; it runs cargo, Python, Valgrind and the bench binaries as processes, and links no crate of the
//! workspace.

mod artifacts;
mod bench;
mod golden;
mod gpu;
mod instructions;
mod packages;
mod process;
mod test;
mod tidy;
mod vulkan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "tapeflow's developer commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formatting, lints, house invariants, all tests and the examples in short form.
    Test(test::Args),
    /// The house invariants, checked from the source text.
    Tidy,
    /// Time workloads, alone or interleaved with PyTorch.
    Bench(bench::Args),
    /// All that a machine with a GPU is for: the Vulkan tests, the bench there, PyTorch on the same GPU, the record.
    Gpu(gpu::Args),
    /// Count the instructions of small steps with Valgrind, and compare them with those that are kept.
    Instructions(instructions::Args),
    /// Make the golden files again with PyTorch (`git diff --stat tests/golden` then shows what moved).
    Golden(golden::Args),
}

/// The workspace's folder. What cargo says when it runs this counts, not where this was built; without cargo, and
/// away from there, the current folder.
fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&own).parent().filter(|root| root.is_dir());
    root.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where data and peer scripts shared by checkouts lie: `TAPEFLOW_SHARED`, else `../shared`.
fn shared() -> PathBuf {
    std::env::var_os("TAPEFLOW_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from)
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Tidy => tidy::run(),
        Command::Bench(args) => bench::run(&args),
        Command::Gpu(args) => gpu::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Golden(args) => golden::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
