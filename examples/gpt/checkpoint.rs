//! A model as a folder: tensors, sizes, tokenizer, and how its run goes on; and back, with everything checked that can
//! be damaged. Models of others come in the Hugging Face layout.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tapeflow::checkpoint::{CONFIG_FILE, Checkpoints, MODEL_FILE, TOKENIZER_FILE, TRAINING_FILE, verify};
use tapeflow::models::pretrained::is_pretrained;
use tapeflow::models::{Gpt, GptConfig};
use tapeflow::tokenizer::{self, Tokenizer};
use tapeflow::{Error, Generator, ModuleExt, Result as NnResult};

use crate::failure::Failure;
use crate::options::Eval;
use crate::recipe::Recipe;

/// The newest checkpoint's name in a run's folder, and the folder of all that are kept.
const NEWEST: &str = "checkpoint";
const ALL: &str = "checkpoints";
/// The file that says how the run goes on.
const RUN_FILE: &str = "run.json";

/// The checkpoints of a run.
pub fn all(run: &Path, keep: usize) -> Checkpoints {
    Checkpoints::new(run.join(ALL), keep).link(NEWEST)
}

/// How a run goes on, beside what its model and optimizer say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    pub recipe: Recipe,
    pub seed: u64,
    /// The text, and what tells it from others.
    pub data: Option<PathBuf>,
    pub text: u64,
    pub eval: Eval,
    pub eval_interval: Option<usize>,
    /// A running mean of the training loss.
    pub train_loss: Option<f64>,
    /// The validation loss that the next step's record will show.
    pub val_loss: Option<f64>,
    /// Whether the model came in the Hugging Face layout, and is to be left in it.
    #[serde(default)]
    pub pretrained: bool,
}

/// The files beside the tensors.
pub fn files(model: &Gpt, tokenizer: &dyn Tokenizer, state: &RunState) -> NnResult<[(&'static str, Vec<u8>); 3]> {
    let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|e| Error::malformed(Path::new(NEWEST), e));
    Ok([
        (CONFIG_FILE, json(serde_json::to_vec_pretty(model.config()))?),
        (TOKENIZER_FILE, tokenizer.to_json().into_bytes()),
        (RUN_FILE, json(serde_json::to_vec_pretty(state))?),
    ])
}

/// Where a run is continued from.
pub struct Stopped {
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// The run's folder, if that was given; a checkpoint alone begins a new one.
    pub run: Option<PathBuf>,
    pub state: RunState,
}

impl Stopped {
    /// What the run's text is read with.
    pub fn tokenizer(&self) -> NnResult<Box<dyn Tokenizer>> {
        tokenizer::load(&self.checkpoint.join(TOKENIZER_FILE))
    }
}

/// Finds what to continue in a run's folder, or a checkpoint's.
pub fn stopped(folder: &Path) -> Result<Stopped, Failure> {
    let own = folder.join(TRAINING_FILE).is_file();
    let checkpoint = if own { Some(folder.to_path_buf()) } else { all(folder, 1).newest()?.map(|(_, path)| path) };
    let Some(checkpoint) = checkpoint else {
        return Err(Failure::Run(format!(
            "nothing to continue in {0}: there is neither {0}/{TRAINING_FILE} nor a checkpoint in {0}/{ALL}",
            folder.display()
        )));
    };
    verify(&checkpoint).map_err(|e| match whole_before(folder, &checkpoint) {
        Some(older) => Failure::Run(format!(
            "{e}\nan older checkpoint is whole: --resume {} continues from it, in a new run's folder",
            older.display()
        )),
        None => e.into(),
    })?;
    let path = checkpoint.join(RUN_FILE);
    let json = std::fs::read(&path).map_err(Error::file("read", &path))?;
    let state: RunState = serde_json::from_slice(&json).map_err(|e| Error::malformed(&path, e))?;
    Ok(Stopped { checkpoint, run: (!own).then(|| folder.to_path_buf()), state })
}

/// The newest checkpoint of a run, besides one that is damaged, of which every file is as it was written.
fn whole_before(run: &Path, damaged: &Path) -> Option<PathBuf> {
    let others = all(run, 1).list().ok()?.into_iter().map(|(_, path)| path).filter(|path| path != damaged);
    others.rev().find(|path| verify(path).is_ok())
}

/// A model that was read.
pub struct Loaded {
    pub model: Gpt,
    pub tokenizer: Box<dyn Tokenizer>,
    /// Whether it came in the Hugging Face layout.
    pub pretrained: bool,
}

/// Reads a checkpoint folder, the one in a run's folder, or a pretrained model's.
pub fn load(folder: &Path) -> Result<Loaded, Failure> {
    let folder = find(folder)?;
    if is_pretrained(&folder) {
        // The tokenizer first: it is small, and may not be readable in this build.
        let tokenizer = tokenizer::load(&folder.join(TOKENIZER_FILE))?;
        let (known, wanted) = (tokenizer.vocab_size(), GptConfig::from_pretrained(&folder)?.vocab_size);
        if known > wanted {
            let reason = format!("it has tokens up to {known}, and the model of {CONFIG_FILE} knows {wanted}");
            return Err(Error::malformed(&folder.join(TOKENIZER_FILE), reason).into());
        }
        return Ok(Loaded { model: Gpt::from_pretrained(&folder)?, tokenizer, pretrained: true });
    }
    let (config_file, model_file) = (folder.join(CONFIG_FILE), folder.join(MODEL_FILE));
    let json = std::fs::read(&config_file).map_err(Error::file("read", &config_file))?;
    let config: GptConfig = serde_json::from_slice(&json).map_err(|e| Error::malformed(&config_file, e))?;
    config.check().map_err(|e| Error::malformed(&config_file, e))?;
    let tokenizer = tokenizer::load(&folder.join(TOKENIZER_FILE))?;
    if tokenizer.vocab_size() != config.vocab_size {
        let (known, wanted) = (tokenizer.vocab_size(), config.vocab_size);
        let reason = format!("it knows {known} tokens, and {CONFIG_FILE} says {wanted}");
        return Err(Error::malformed(&folder.join(TOKENIZER_FILE), reason).into());
    }
    // Before memory is taken for sizes that nobody ever trained.
    let bytes = std::fs::metadata(&model_file).map_err(Error::file("read", &model_file))?.len();
    let wanted = least_bytes(&config);
    if u128::from(bytes) < wanted {
        let reason = format!("it has {bytes} bytes, and a model as {CONFIG_FILE} describes it at least {wanted}");
        return Err(Error::malformed(&model_file, reason).into());
    }
    let model = Gpt::new(&config, &Generator::new(0))?;
    model.load(&model_file)?;
    Ok(Loaded { model, tokenizer, pretrained: false })
}

fn find(folder: &Path) -> Result<PathBuf, Failure> {
    let newest = all(folder, 1).newest()?.map(|(_, path)| path);
    let places = [Some(folder.to_path_buf()), Some(folder.join(NEWEST)), newest];
    places.into_iter().flatten().find(|f| f.join(CONFIG_FILE).is_file()).ok_or_else(|| {
        Failure::Run(format!(
            "no checkpoint in {0}: there is neither {0}/{CONFIG_FILE} nor {0}/{NEWEST}/{CONFIG_FILE}",
            folder.display()
        ))
    })
}

/// The embeddings and the matrices of the blocks, in f32.
fn least_bytes(config: &GptConfig) -> u128 {
    let wide = |size: usize| size as u128;
    let rows = wide(config.vocab_size) + wide(config.block_size);
    let per_block = wide(config.n_embd).saturating_mul(12).saturating_mul(wide(config.n_layer));
    (rows + per_block).saturating_mul(wide(config.n_embd)).saturating_mul(4)
}
