//! Trains a convolutional network to read digits.
//!
//! `cargo run --release --example cnn` needs nothing else: it draws digits of its own, and leaves a checkpoint,
//! metrics, and pictures of its worst mistakes and its first filters in `runs/cnn`. `--data DIR` reads MNIST instead.

mod digits;
mod evaluate;
#[path = "../gpt/failure.rs"]
mod failure;
mod images;
mod mnist;
mod options;
mod picture;
mod run_folder;
#[path = "../gpt/stop.rs"]
mod stop;
mod train;

use std::process::ExitCode;

use clap::Parser;
use tapeflow::{Profiler, set_threads};

use failure::Failure;
use options::Options;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    if let Some(threads) = options.threads {
        set_threads(threads).map_err(|e| Failure::Run(format!("{threads} threads could not be started: {e}")))?;
    }
    let profiler = options.profile.then(Profiler::start);
    options.device.scope(|| train::train(options))?;
    if let Some(profiler) = profiler {
        println!("{}", profiler.stop().table().map_err(tapeflow::Error::from)?);
    }
    Ok(())
}
