//! Pretrained models: GPT-2 folders in the Hugging Face layout (`config.json`, `model.safetensors`), read and written.
//!
//! Owns the mapping between a [`Gpt`]'s parameters and the tensors of such a folder: names with or without the prefix
//! `transformer.`, and matrices that stand there `(in, out)`, which are turned. Which models are refused stands in
//! `config`.

mod config;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use tapeflow_nn::checkpoint::{CONFIG_FILE, MODEL_FILE, Mapped, Shards, TOKENIZER_FILE, export_tensors};
use tapeflow_nn::files::write_atomically;
use tapeflow_nn::tokenizer::Tokenizer;
use tapeflow_nn::{Error, ModuleExt, Parameter, Result, Tensor};

use crate::gpt::{Gpt, GptConfig};

pub use config::is_pretrained;

/// Before the names of a model with a head; a bare `GPT2Model` has them without.
const PREFIX: &str = "transformer.";
/// The head, which is the token embedding.
const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "wte.weight";

impl GptConfig {
    /// Reads the `config.json` of a GPT-2 in the Hugging Face layout.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read; [`Error::Malformed`] naming every field that makes it another model than
    /// [`Gpt`]: its type, activation, inner width, ε, dropout rates, scaling of attention, untied embeddings.
    pub fn from_pretrained(folder: impl AsRef<Path>) -> Result<Self> {
        config::read(folder.as_ref())
    }
}

impl Gpt {
    /// Reads a GPT-2 in the Hugging Face layout from a folder: `config.json` and `model.safetensors`, or several
    /// files with a `model.safetensors.index.json`. Its tokenizer is read by
    /// [`tokenizer::load`](tapeflow_nn::tokenizer::load).
    ///
    /// # Numerics
    /// Parameters are f32, whatever float dtype the file has. The files are mapped and tensors made one by one, which
    /// takes the memory of the model and of one block's matrices.
    /// # Errors
    /// [`Error::File`] and [`Error::Malformed`] for files that cannot be read, and for a model that is another one;
    /// [`Error::CheckpointMismatch`] listing every tensor that is missing, unexpected or of another shape.
    /// # Example
    /// ```
    /// use tapeflow_models::{Gpt, GptConfig};
    /// use tapeflow_nn::{Forward, Generator, Tensor};
    /// # let folder = std::env::temp_dir().join(format!("tapeflow-doc-pretrained-{}", std::process::id()));
    /// let model = Gpt::new(&GptConfig::preset("tiny", 11).unwrap(), &Generator::new(1))?;
    /// model.save_pretrained(&folder, None)?; // or a folder from elsewhere
    /// let same = Gpt::from_pretrained(&folder)?;
    /// let tokens = Tensor::from_vec(vec![1i64, 2, 3], [1, 3]);
    /// assert_eq!(same.forward(&tokens).to_vec::<f32>()?, model.forward(&tokens).to_vec::<f32>()?);
    /// # std::fs::remove_dir_all(folder).unwrap();
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    pub fn from_pretrained(folder: impl AsRef<Path>) -> Result<Self> {
        let config = config::read(folder.as_ref())?;
        let source = Source::open(folder.as_ref(), &config)?;
        let model = Gpt::hollow(&config)?;
        source.set(&model)?;
        Ok(model)
    }

    /// Sets the parameters from such a folder, once all of them were found to be there. What differs between one
    /// training and another, such as dropout, stays the model's.
    ///
    /// # Errors
    /// As [`from_pretrained`](Gpt::from_pretrained); [`Error::Malformed`] if the folder's model has other sizes.
    pub fn load_pretrained(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let config = config::read(folder)?;
        let ours = GptConfig { dropout: config.dropout, ..self.config().clone() };
        if ours != config {
            let why = format!("its model is {config:?}, and this one {ours:?}");
            return Err(Error::malformed(&folder.join(CONFIG_FILE), why));
        }
        Source::open(folder, &config)?.set(self)
    }

    /// Writes the model in the same layout, which transformers reads: `config.json`, `model.safetensors`, and
    /// `tokenizer.json`, if a tokenizer is given, whose end-of-text token becomes the model's. Other files of the
    /// folder stay as they are.
    ///
    /// A model without biases gets such that are zero.
    ///
    /// # Errors
    /// [`Error::File`] if something cannot be written, or the error of a pending computation.
    pub fn save_pretrained(&self, folder: impl AsRef<Path>, tokenizer: Option<&dyn Tokenizer>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        let mut tensors = Vec::new();
        for (path, parameter) in self.named_parameters() {
            let tensor = parameter.tensor().detach();
            if !self.config().bias && tensor.shape().len() == if is_turned(&path) { 2 } else { 1 } {
                let outputs = tensor.shape()[0];
                let zeros = tensor.device().scope(|| Tensor::zeros([outputs], tensor.dtype()));
                tensors.push((format!("{PREFIX}{}", path.replace(".weight", ".bias")), zeros));
            }
            let stored = if is_turned(&path) { tensor.t() } else { tensor };
            tensors.push((format!("{PREFIX}{path}"), stored));
        }
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        export_tensors(&tensors, folder.join(MODEL_FILE), &format)?;
        let end_of_text = tokenizer.and_then(Tokenizer::end_of_text);
        let config = config::written(self.config(), end_of_text);
        write_atomically(&folder.join(CONFIG_FILE), config.as_bytes())?;
        tokenizer.map_or(Ok(()), |tokenizer| tokenizer.save(&folder.join(TOKENIZER_FILE)))
    }
}

/// Whether a parameter stands `(in, out)` in the folder and `(out, in)` here.
fn is_turned(path: &str) -> bool {
    ["c_attn.weight", "c_proj.weight", "c_fc.weight"].iter().any(|name| path.ends_with(name))
}

/// Whether a tensor is the mask that older files carry along.
fn is_mask(path: &str) -> bool {
    path.ends_with(".attn.bias") || path.ends_with(".attn.masked_bias")
}

/// A folder's tensors under our names.
struct Source {
    shards: Shards,
    /// The names in the folder by ours.
    names: BTreeMap<String, String>,
}

impl Source {
    /// Opens a folder, and finds that a model of these sizes is in it before memory is taken for one.
    fn open(folder: &Path, config: &GptConfig) -> Result<Self> {
        let shards = Shards::open(folder)?;
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for name in shards.names().filter(|name| !is_mask(name)) {
            let ours = name.strip_prefix(PREFIX).unwrap_or(name);
            if let Some(other) = names.insert(ours.to_owned(), name.to_owned()) {
                return Err(Error::malformed(folder, format!("there are both `{other}` and `{name}`")));
            }
        }
        let source = Source { shards, names };
        source.check_head()?;
        let (layers, tensors) = (config.n_layer, source.names.len());
        if tensors / 12 < layers {
            let why = format!("{tensors} tensors are not those of {layers} layers, as {CONFIG_FILE} says (12 each)");
            return Err(Error::malformed(folder, why));
        }
        source.check(config)?;
        Ok(source)
    }

    fn file(&self, path: &str) -> Option<(&Mapped, &str)> {
        let name = self.names.get(path)?;
        Some((self.shards.file(name)?, name))
    }

    /// A head that is stored must be the token embedding again.
    fn check_head(&self) -> Result<()> {
        let (Some((head, name)), Some((file, embedding))) = (self.file(HEAD), self.file(EMBEDDING)) else {
            return Ok(());
        };
        if head.bytes(name) == file.bytes(embedding) && head.dtype(name) == file.dtype(embedding) {
            return Ok(());
        }
        let why = format!("`{name}` is another tensor than `{embedding}`, and here the head is the token embedding");
        Err(Error::malformed(head.path(), why))
    }

    /// Names and shapes against those of a model.
    fn check(&self, config: &GptConfig) -> Result<()> {
        let (mut missing, mut unlike) = (Vec::new(), Vec::new());
        let wanted = shapes(config);
        for (path, shape) in &wanted {
            let Some((file, name)) = self.file(path) else {
                missing.push(path.clone());
                continue;
            };
            let (found, dtype) = (file.shape(name).unwrap_or_default(), file.dtype(name).unwrap_or_default());
            if found != shape || !["F16", "BF16", "F32", "F64"].contains(&dtype.as_str()) {
                let within = file.path().file_name().unwrap_or_default().to_string_lossy();
                unlike.push(format!("`{name}` in {within} is {dtype} {found:?} and should be floats {shape:?}"));
            }
        }
        let known = |name: &str| name == HEAD || wanted.contains_key(name);
        let unexpected: Vec<String> = self.names.iter().filter(|(path, _)| !known(path)).map(|n| n.1.clone()).collect();
        if missing.is_empty() && unexpected.is_empty() && unlike.is_empty() {
            return Ok(());
        }
        let source_name = self.shards.folder().display().to_string();
        Err(Error::CheckpointMismatch { source_name, missing, unexpected, unlike })
    }

    /// Gives a model's parameters their values, one after another.
    fn set(&self, model: &Gpt) -> Result<()> {
        model.named_parameters().iter().try_for_each(|(path, parameter)| self.set_one(path, parameter))
    }

    fn set_one(&self, path: &str, parameter: &Parameter) -> Result<()> {
        let Some((file, name)) = self.file(path) else {
            let why = format!("it holds no tensor `{path}`");
            return Err(Error::malformed(self.shards.folder(), why));
        };
        let old = parameter.tensor();
        // The place takes any shape: until now it may have held nothing of the right one.
        let new = old.device().scope(|| {
            let stored = file.floats(name, old.dtype())?;
            Ok::<_, Error>(if is_turned(path) { stored.t() } else { stored })
        })?;
        drop(old);
        Ok(parameter.slot().replace(&new)?)
    }
}

/// What the tensors of a model are called here and which shapes they have in a folder.
fn shapes(config: &GptConfig) -> BTreeMap<String, Vec<usize>> {
    let c = config.n_embd;
    let mut all = BTreeMap::from([
        (EMBEDDING.to_owned(), vec![config.vocab_size, c]),
        ("wpe.weight".to_owned(), vec![config.block_size, c]),
        ("ln_f.weight".to_owned(), vec![c]),
        ("ln_f.bias".to_owned(), vec![c]),
    ]);
    for layer in 0..config.n_layer {
        for norm in ["ln_1", "ln_2"] {
            all.insert(format!("h.{layer}.{norm}.weight"), vec![c]);
            all.insert(format!("h.{layer}.{norm}.bias"), vec![c]);
        }
        let maps = [("attn.c_attn", c, 3 * c), ("attn.c_proj", c, c), ("mlp.c_fc", c, 4 * c), ("mlp.c_proj", 4 * c, c)];
        for (name, inputs, outputs) in maps {
            all.insert(format!("h.{layer}.{name}.weight"), vec![inputs, outputs]);
            all.insert(format!("h.{layer}.{name}.bias"), vec![outputs]);
        }
    }
    all
}
