//! A trained model as a folder: tensors, sizes, tokenizer; and back, with everything checked that can be damaged.

use std::path::{Path, PathBuf};

use tapeflow::checkpoint::{self, CONFIG_FILE, MODEL_FILE, TOKENIZER_FILE};
use tapeflow::models::{Gpt, GptConfig};
use tapeflow::tokenizer::{self, Tokenizer};
use tapeflow::{Error, Generator, ModuleExt, Result as NnResult};

use crate::failure::Failure;

/// The checkpoint's name in a run's folder.
pub const FOLDER: &str = "checkpoint";

/// Writes the folder; one that was there is replaced once the new one is complete.
pub fn save(model: &Gpt, tokenizer: &dyn Tokenizer, folder: &Path) -> NnResult<()> {
    let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|e| Error::malformed(folder, e));
    let config = json(serde_json::to_vec_pretty(model.config()))?;
    let tokenizer = json(serde_json::to_vec_pretty(&tokenizer.description()))?;
    checkpoint::save_dir(model, folder, &[(CONFIG_FILE, &config), (TOKENIZER_FILE, &tokenizer)])
}

/// Reads a checkpoint folder, or the one in a run's folder.
pub fn load(folder: &Path) -> Result<(Gpt, Box<dyn Tokenizer>), Failure> {
    let folder = find(folder)?;
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
    Ok((model, tokenizer))
}

fn find(folder: &Path) -> Result<PathBuf, Failure> {
    let inner = folder.join(FOLDER);
    match [folder, &inner].into_iter().find(|f| f.join(CONFIG_FILE).is_file()) {
        Some(found) => Ok(found.to_path_buf()),
        None => Err(Failure::Run(format!(
            "no checkpoint in {0}: there is neither {0}/{CONFIG_FILE} nor {0}/{FOLDER}/{CONFIG_FILE}",
            folder.display()
        ))),
    }
}

/// The embeddings and the matrices of the blocks, in f32.
fn least_bytes(config: &GptConfig) -> u128 {
    let wide = |size: usize| size as u128;
    let rows = wide(config.vocab_size) + wide(config.block_size);
    let per_block = wide(config.n_embd).saturating_mul(12).saturating_mul(wide(config.n_layer));
    (rows + per_block).saturating_mul(wide(config.n_embd)).saturating_mul(4)
}
