//! The command line: the flags, their help and what each value alone must be.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use tapeflow::{Device, Precision};

/// Trains a convolutional network to read digits.
///
/// Without flags it trains for less than a minute on two cores, on digits it draws itself, and leaves in runs/cnn a
/// checkpoint (model.safetensors, config.json), metrics.jsonl, mistakes.png and filters.png.
#[derive(Debug, Parser)]
#[command(name = "cnn")]
pub struct Options {
    /// Folder with MNIST as IDX files, gzipped or not; with the test files alone, their first 8,000 images are trained
    /// on and their last 2,000 tested [default: drawn digits]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// How many digits to draw for training; a fifth as many for testing
    #[arg(long, value_name = "N", default_value_t = 8000, value_parser = count, conflicts_with = "data")]
    pub drawn: usize,

    /// The network
    #[arg(long, value_enum, default_value_t = Network::Lenet)]
    pub model: Network,

    /// Times that every image is seen
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count)]
    pub epochs: usize,

    /// Images in a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count)]
    pub batch_size: usize,

    /// Highest learning rate of Adam; it rises over the first steps and falls along a cosine
    #[arg(long, value_name = "RATE", default_value_t = 2e-3, value_parser = rate)]
    pub learning_rate: f64,

    /// Pixels by which training images are shifted at random, at most
    #[arg(long, value_name = "PIXELS", default_value_t = 2)]
    pub shift: usize,

    /// Seed of the initial weights, the order of the images, the shifts and the drawn digits
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Threads to compute with, this one included; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = count)]
    pub threads: Option<usize>,

    /// What convolutions and products are computed in: f32, bf16, or f16 with a scaled loss
    #[arg(long, value_name = "f32|bf16|f16", default_value = "f32", value_parser = Precision::from_str)]
    pub precision: Precision,

    /// Device to compute on: cpu, vulkan, vulkan:N, best, or reference (slow, for comparison)
    #[arg(long, value_name = "NAME", default_value = "cpu", value_parser = Device::from_str)]
    pub device: Device,

    /// At the end, print which kernels took how long (TAPEFLOW_PROFILE=trace.json writes all events)
    #[arg(long)]
    pub profile: bool,

    /// Folder for what a run leaves; if it exists, the next free of DIR-2, DIR-3, …
    #[arg(long, value_name = "DIR", default_value = "runs/cnn")]
    pub out: PathBuf,
}

/// The networks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// LeNet-5: 61,706 parameters
    Lenet,
    /// ResNet-20: 269,434 parameters
    Resnet20,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number of at least 1 is needed".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("a number above 0 is needed, such as 0.001 or 1e-3".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for bad in [
            &["--epochs", "0"][..],
            &["--learning-rate", "-1"],
            &["--model", "alexnet"],
            &["--device", "abacus"],
            &["--precision", "f8"],
        ] {
            assert!(Options::try_parse_from([&["cnn"], bad].concat()).is_err(), "{bad:?} is accepted");
        }
    }
}
