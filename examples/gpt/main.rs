//! Trains a character-level GPT, samples from one that was trained, or fine-tunes a GPT-2.
//!
//! `cargo run --release --example gpt` needs nothing else: it has a text of its own, and leaves a checkpoint, the
//! metrics of every step and a chart of the losses in `runs/gpt`. `--help` lists what can be changed.

mod checkpoint;
mod corpus;
mod evaluate;
mod failure;
mod options;
mod recipe;
mod run_folder;
mod sample;
mod stop;
mod text;
mod train;

use std::process::ExitCode;

use tapeflow::{Profiler, set_threads};

use failure::Failure;
use options::Options;

fn main() -> ExitCode {
    match run(&Options::from_command_line()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    if let Some(threads) = options.threads {
        set_threads(threads).map_err(|e| Failure::Run(format!("{threads} threads could not be started: {e}")))?;
    }
    let profiler = options.profile.then(Profiler::start);
    options.device.scope(|| match &options.load {
        Some(folder) if options.data.is_none() => sample::from_checkpoint(folder, options),
        _ => train::train(options),
    })?;
    if let Some(profiler) = profiler {
        println!("{}", profiler.stop().table().map_err(tapeflow::Error::from)?);
    }
    Ok(())
}
