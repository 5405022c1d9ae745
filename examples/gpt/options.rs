//! The command line.
//!
//! Owns the flags, their help and what each value alone must be; what they mean together stands in `recipe`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use serde::{Deserialize, Serialize};
use tapeflow::{Device, Precision};

/// Trains a character-level GPT on a text and samples from it, samples from one that was trained, or fine-tunes GPT-2.
///
/// Without flags it trains for about two minutes on two cores, on a text of its own, and leaves in runs/gpt its last
/// checkpoints (model.safetensors, config.json, tokenizer.json, and what --resume needs), metrics.jsonl and loss.svg.
#[derive(Clone, Debug, Parser)]
#[command(name = "gpt", after_long_help = PRESETS)]
pub struct Options {
    /// Text to train on, UTF-8; the last tenth is for validation [default: tales of a village, 400 KB, built in]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,

    /// Sizes and training recipe: tiny, cpu, baby, gpt2 or FILE.toml [default: the model of cpu, trained for longer]
    ///
    /// A TOML file holds any of the hyperparameters below, named with underscores (`n_layer = 4`), and perhaps
    /// `base = "baby"`, from which the rest is taken (default: cpu). Flags override it.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub config: Option<String>,

    /// Seed of the initial weights, the batches, dropout and samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Threads to compute with, this one included; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = count)]
    pub threads: Option<usize>,

    /// Device to compute on: cpu, vulkan, vulkan:N, best, or reference (slow, for comparison)
    #[arg(long, value_name = "NAME", default_value = "cpu", value_parser = Device::from_str)]
    pub device: Device,

    /// At the end, print which kernels took how long (TAPEFLOW_PROFILE=trace.json writes all events)
    #[arg(long)]
    pub profile: bool,

    /// Folder for what a run leaves; if it exists, the next free of DIR-2, DIR-3, …
    #[arg(long, value_name = "DIR", default_value = "runs/gpt")]
    pub out: PathBuf,

    /// Validation: N random batches (the same ones each time), or full: 20 batches during training, and at the end the
    /// whole validation split in consecutive blocks
    #[arg(long, value_name = "full|N", default_value = "20")]
    pub eval: Eval,

    /// Steps between evaluations [default: 250, at most a tenth of the steps]
    #[arg(long, value_name = "STEPS", value_parser = count)]
    pub eval_interval: Option<usize>,

    /// Steps between checkpoints [default: as between evaluations]
    #[arg(long, value_name = "STEPS", value_parser = count)]
    pub save_every: Option<usize>,

    /// Checkpoints that are kept, the newest ones
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = count)]
    pub keep: usize,

    /// Continue the run in this folder from its newest checkpoint, as if it had never stopped; a checkpoint's own
    /// folder is continued in a new run's folder (--out)
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,

    /// Compute each block a second time in backward instead of keeping what it made: less memory, more time, the same
    /// results
    #[arg(long)]
    pub recompute: bool,

    /// Begin with the model in this folder: a run's, a checkpoint's, or a GPT-2's in the Hugging Face layout. Without
    /// --data it is sampled from; with --data it is trained further, with its own tokenizer
    #[arg(long, value_name = "DIR")]
    pub load: Option<PathBuf>,

    /// Hold the weights in eight bits, with --load: a quarter of the memory, and of the time that reading them takes
    #[arg(long, requires = "load", conflicts_with = "precision", help_heading = SAMPLING)]
    pub int8: bool,

    /// Text to continue, with --load; given several times, all are continued at once [default: where a text begins]
    #[arg(long, visible_alias = "prompt", value_name = "PROMPT", requires = "load", help_heading = SAMPLING)]
    pub generate: Vec<String>,

    /// 1 draws as the model predicts, less prefers the likely, 0 always takes the likeliest
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = temperature, help_heading = SAMPLING)]
    pub temperature: f64,

    /// Draw among the K likeliest tokens only [default: all]
    #[arg(long, value_name = "K", value_parser = count, help_heading = SAMPLING)]
    pub top_k: Option<usize>,

    /// Draw among the likeliest tokens that have this probability together, 0 < P ≤ 1 [default: all]
    #[arg(long, value_name = "P", value_parser = share, help_heading = SAMPLING)]
    pub top_p: Option<f64>,

    /// How much less likely tokens become that were there before; 1: not at all
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = penalty, help_heading = SAMPLING)]
    pub repetition_penalty: f64,

    /// End before this text, with --load; given several times, before the first of them
    #[arg(long, value_name = "TEXT", requires = "load", value_parser = some_text, help_heading = SAMPLING)]
    pub stop: Vec<String>,

    /// Tokens to generate (fewer before training)
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = count, help_heading = SAMPLING)]
    pub tokens: usize,

    #[command(flatten)]
    pub changes: Changes,
}

const SAMPLING: &str = "Sampling";

impl Options {
    /// The flags the program was started with; where they are wrong or only help is wanted, the program ends here.
    pub fn from_command_line() -> Options {
        Self::read(std::env::args_os()).unwrap_or_else(|e| e.exit())
    }

    fn read(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Options, clap::Error> {
        // So that `--steps -1` is told what steps are, and not that there is no flag `-1`; and a prompt may begin with
        // a dash.
        let mut command = Options::command().mut_args(|arg| {
            let name = NAMES.contains(&arg.get_id().as_str());
            let takes_value = arg.get_action().takes_values();
            if takes_value { arg.allow_hyphen_values(!name) } else { arg }
        });
        let matches = command.try_get_matches_from_mut(words)?;
        let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let trains = given("data");
        for (mode, others, is_allowed, what) in [
            ("load", &WITH_LOAD[..], true, "samples from a model, unless there is --data"),
            ("load", &NOT_IN_FINE_TUNING, false, "with --data trains a model further"),
            ("resume", &WITH_RESUME, true, "continues a run with the settings it began with"),
        ] {
            if mode == "load" && trains == is_allowed {
                continue;
            }
            let idle = |id: &&str| *id != mode && given(id) && given(mode) && others.contains(id) != is_allowed;
            let flag =
                command.get_arguments().map(|arg| arg.get_id().as_str()).find(idle).map(|id| id.replace('_', "-"));
            if let Some(flag) = flag {
                let message = format!("--{flag} has no meaning with --{mode}, which {what}");
                return Err(command.error(ErrorKind::ArgumentConflict, message));
            }
        }
        Options::from_arg_matches(&matches)
    }
}

/// The flags whose value is a name: where one begins with a dash, it is rather the next flag.
const NAMES: [&str; 6] = ["data", "config", "device", "out", "load", "resume"];
/// The flags that do not change what is computed.
const WITH_RESUME: [&str; 10] =
    ["resume", "data", "threads", "device", "profile", "out", "save_every", "keep", "recompute", "tokens"];
/// The flags that make no sense when a loaded model is trained: it has its sizes.
const NOT_IN_FINE_TUNING: [&str; 9] =
    ["config", "resume", "int8", "generate", "stop", "n_layer", "n_head", "n_embd", "bias"];
/// The flags that say how to sample.
const WITH_LOAD: [&str; 14] = [
    "precision",
    "load",
    "int8",
    "generate",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "stop",
    "tokens",
    "seed",
    "threads",
    "device",
    "profile",
];

/// Hyperparameters that differ from the preset's: as flags, and as the contents of a configuration file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[command(next_help_heading = "Hyperparameters [default: by --config, see the table of --help]")]
pub struct Changes {
    /// Preset from which a configuration file takes what it does not say.
    #[arg(skip)]
    pub base: Option<String>,
    /// Training steps, one batch each
    #[arg(long, value_name = "N", value_parser = count)]
    pub steps: Option<usize>,
    /// Blocks in a batch
    #[arg(long, value_name = "N", value_parser = count)]
    pub batch_size: Option<usize>,
    /// Longest context, in tokens; with --load: how much of it a block of training has
    #[arg(long, value_name = "TOKENS", value_parser = count)]
    pub block_size: Option<usize>,
    /// Transformer blocks
    #[arg(long, value_name = "N", value_parser = count)]
    pub n_layer: Option<usize>,
    /// Attention heads of a block; they share the width evenly
    #[arg(long, value_name = "N", value_parser = count)]
    pub n_head: Option<usize>,
    /// Width: values per token between blocks
    #[arg(long, value_name = "N", value_parser = count)]
    pub n_embd: Option<usize>,
    /// Share of activations dropped in training, 0 ≤ p < 1
    #[arg(long, value_name = "P", value_parser = number)]
    pub dropout: Option<f64>,
    /// Whether linear maps and norms have biases
    #[arg(long, value_name = "true|false")]
    pub bias: Option<bool>,
    /// Highest learning rate, reached after the warm-up
    #[arg(long, value_name = "RATE", value_parser = number)]
    pub learning_rate: Option<f64>,
    /// Learning rate at the end of the cosine [default: a tenth of the highest]
    #[arg(long, value_name = "RATE", value_parser = number)]
    pub min_lr: Option<f64>,
    /// Steps over which the learning rate rises [default: by --config, at most a tenth of the steps]
    #[arg(long, value_name = "STEPS", value_parser = whole)]
    pub warmup_steps: Option<usize>,
    /// Weight decay of AdamW, on matrices only
    #[arg(long, value_name = "RATE", value_parser = number)]
    pub weight_decay: Option<f64>,
    /// Decay rate of AdamW's average of gradients, 0 ≤ β < 1
    #[arg(long, value_name = "BETA", value_parser = number)]
    pub beta1: Option<f64>,
    /// Decay rate of AdamW's average of squared gradients, 0 ≤ β < 1
    #[arg(long, value_name = "BETA", value_parser = number)]
    pub beta2: Option<f64>,
    /// Largest global norm of the gradients; 0: no bound
    #[arg(long, value_name = "NORM", value_parser = number)]
    pub grad_clip: Option<f64>,
    /// What products are computed in: f32, bf16, or f16 with a scaled loss; with --load what the model is held in
    #[arg(long, value_name = "f32|bf16|f16", value_parser = Precision::from_str)]
    #[serde(default, deserialize_with = "some_precision")]
    pub precision: Option<Precision>,
}

/// A precision by its name.
fn some_precision<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Precision>, D::Error> {
    let name = String::deserialize(from)?;
    name.parse().map(Some).map_err(serde::de::Error::custom)
}

const PRESETS: &str = "\
Presets:                 (none)   tiny    cpu     baby    gpt2       --load DIR
  steps                  3000     500     2000    5000    600000     200
  batch-size             8        12      12      64      12         4
  block-size             128      32      64      256     1024       256 at most
  n-layer n-head n-embd  4 4 128  2 2 32  4 4 128 6 6 384 12 12 768  the model's
  dropout                0        0       0       0.2     0          the model's
  bias                   false    false   false   false   true       the model's
  learning-rate          2e-3     3e-3    1e-3    1e-3    6e-4       5e-5
  warmup-steps           100      20      100     100     2000       20
  beta2                  0.99     0.99    0.99    0.99    0.95       0.99
  all: weight-decay 0.1, beta1 0.9, grad-clip 1, precision f32

Losses are mean cross entropies in nats per token, which is a character unless a loaded model has other tokens.";

/// How much of the validation split is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Eval {
    /// Some random batches.
    Batches(usize),
    /// The same with 20 during training; at the end all of it.
    Full,
}

impl Eval {
    /// How many random batches an evaluation during training takes.
    pub fn batches(self) -> usize {
        match self {
            Eval::Batches(n) => n,
            Eval::Full => 20,
        }
    }
}

impl FromStr for Eval {
    type Err = String;

    fn from_str(text: &str) -> Result<Eval, String> {
        match (text, count(text)) {
            ("full", _) => Ok(Eval::Full),
            (_, Ok(n)) => Ok(Eval::Batches(n)),
            _ => Err("`full` or a whole number of at least 1 is needed".into()),
        }
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number of at least 1 is needed".into()),
    }
}

fn whole(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "a whole number of at least 0 is needed".into())
}

/// Bounds differ; `recipe` checks them, for flags and files alike.
fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "a number is needed, such as 0.001 or 1e-3".into())
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(t) if t >= 0.0 && f64::is_finite(t) => Ok(t),
        _ => Err("a number of at least 0 is needed".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        _ => Err("a number above 0 and at most 1 is needed".into()),
    }
}

fn penalty(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(r) if r > 0.0 && f64::is_finite(r) => Ok(r),
        _ => Err("a number above 0 is needed".into()),
    }
}

fn some_text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("at least one character is needed".into()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for bad in [
            &["--steps", "0"][..],
            &["--steps", "-3"],
            &["--threads", "many"],
            &["--eval", "half"],
            &["--temperature", "NaN"],
            &["--device", "abacus"],
            &["--generate", "Once"],
            &["--resume", "runs/gpt", "--steps", "9"],
            &["--resume", "runs/gpt", "--seed", "9"],
            &["--resume", "runs/gpt", "--load", "runs/gpt", "--generate", "Once"],
            &["--keep", "0"],
            &["--top-p", "0"],
            &["--repetition-penalty", "-1"],
            &["--load", "runs/gpt", "--generate", "Once", "--stop", ""],
            &["--load", "runs/gpt", "--steps", "3"],
            &["--load", "runs/gpt", "--data", "text", "--n-layer", "3"],
            &["--load", "runs/gpt", "--data", "text", "--config", "tiny"],
            &["--load", "runs/gpt", "--generate", "Once", "--n-layer", "3"],
            &["--load", "runs/gpt", "--generate", "Once", "--data", "text"],
            &["--load", "runs/gpt", "--int8", "--precision", "bf16"],
            &["--load", "runs/gpt", "--int8", "--data", "text"],
            &["--int8"],
        ] {
            assert!(Options::read([&["gpt"], bad].concat()).is_err(), "{bad:?} is accepted");
        }
        let fine = ["gpt", "--load", "runs/gpt", "--generate", "Once", "--temperature", "0"];
        assert!(Options::read(fine).is_ok());
        let tuned = ["gpt", "--load", "runs/gpt", "--data", "text", "--steps", "9", "--dropout", "0", "--seed", "3"];
        assert!(Options::read(tuned).is_ok());
        assert_eq!(Options::read(["gpt", "--load", "x", "--prompt", "b"]).unwrap().generate, ["b"]);
        let several = ["gpt", "--load", "x", "--generate", "-a", "--generate", "b", "--stop", ".", "--top-p", "0.5"];
        assert_eq!(Options::read(several).unwrap().generate, ["-a", "b"]);
    }
}
