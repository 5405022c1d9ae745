//! Tensors by name in safetensors files, and checkpoints as folders.
//!
//! Owns the mapping between a module's paths and a file's names, and says everything that does not fit at once. A file
//! or folder appears under its name only when it is complete, and damage is found by checksums. What a run needs to go
//! on stands in `resume`, how many of its checkpoints are kept in `kept`.

mod checksum;
mod kept;
mod mapped;
mod resume;
mod shards;

pub use checksum::checksum;
pub use kept::Checkpoints;
pub use mapped::Mapped;
pub use resume::{Generators, OPTIMIZER_FILE, TRAINING_FILE, Training, resume, verify};
pub use shards::{INDEX_FILE, Shards};

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::{Dtype, View};
use tapeflow_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::files::{write_atomically, write_folder_atomically};
use crate::module::{Leaf, Module, ModuleExt};

/// The tensors' file in a checkpoint folder.
pub const MODEL_FILE: &str = "model.safetensors";
/// The tokenizer's file in a checkpoint folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The configuration's file in a checkpoint folder.
pub const CONFIG_FILE: &str = "config.json";

/// Writes the parameters and buffers of `module` to a safetensors file, named by their paths.
///
/// # Errors
/// [`Error::File`] if it cannot be written, or the error of a pending computation.
pub fn save<M: Module + ?Sized>(module: &M, path: impl AsRef<Path>) -> Result<()> {
    save_tensors(&module.state(), path)
}

/// Sets the parameters and buffers of `module` from a safetensors file; all of them, or none.
///
/// # Errors
/// [`Error::File`] or [`Error::Malformed`] if it cannot be read; [`Error::CheckpointMismatch`] listing every name that
/// is missing, unexpected, or of another shape or dtype.
pub fn load<M: Module + ?Sized>(module: &M, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    assign(module.leaves(), load_tensors(path)?, &path.display().to_string())
}

/// Writes a checkpoint folder: the tensors of `module`, and further files by name.
///
/// A folder of that name is replaced once the new one is complete.
///
/// # Errors
/// [`Error::File`] if something cannot be written; the old folder is then as it was.
pub fn save_dir<M: Module + ?Sized>(module: &M, path: impl AsRef<Path>, files: &[(&str, &[u8])]) -> Result<()> {
    write_folder_atomically(path.as_ref(), |folder| fill(module, folder, files))
}

fn fill<M: Module + ?Sized>(module: &M, folder: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    save(module, folder.join(MODEL_FILE))?;
    files.iter().try_for_each(|(name, bytes)| write_atomically(&folder.join(name), bytes))
}

/// Writes tensors to a safetensors file.
///
/// # Errors
/// [`Error::SamePath`] if two have one name, [`Error::File`] if the file cannot be written, or the error of a pending
/// computation.
pub fn save_tensors(tensors: &[(String, Tensor)], path: impl AsRef<Path>) -> Result<()> {
    write_tensors(tensors, path.as_ref(), checksum::of_tensors)
}

/// As [`save_tensors`], for other programs: with metadata of one's own, such as the `format` that transformers asks
/// for, in place of checksums.
///
/// # Errors
/// As [`save_tensors`].
pub fn export_tensors(
    tensors: &[(String, Tensor)],
    path: impl AsRef<Path>,
    metadata: &HashMap<String, String>,
) -> Result<()> {
    write_tensors(tensors, path.as_ref(), |_| metadata.clone())
}

fn write_tensors(
    tensors: &[(String, Tensor)],
    path: &Path,
    metadata: impl FnOnce(&mut dyn Iterator<Item = (&str, &[u8])>) -> HashMap<String, String>,
) -> Result<()> {
    let mut stored = BTreeMap::new();
    for (name, tensor) in tensors {
        if stored.insert(name.as_str(), Stored::read(tensor)?).is_some() {
            return Err(Error::SamePath { path: name.clone() });
        }
    }
    let metadata = metadata(&mut stored.iter().map(|(name, tensor)| (*name, &tensor.bytes[..])));
    let bytes = safetensors::serialize(stored, Some(metadata)).map_err(|e| Error::malformed(path, e))?;
    write_atomically(path, &bytes)
}

/// Reads all tensors of a safetensors file, by rising name.
///
/// Files written here hold a checksum of each tensor, which is looked at; files of others need none. The file is
/// [`Mapped`], so that what is read is in memory once.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Malformed`] if it is no such file, holds a dtype that is not
/// supported, or a tensor is damaged, which is named.
pub fn load_tensors(path: impl AsRef<Path>) -> Result<Vec<(String, Tensor)>> {
    let path = path.as_ref();
    let file = Mapped::open(path)?;
    let bytes = file.names().map(|name| (name, file.bytes(name).unwrap_or_default()));
    checksum::check_tensors(file.metadata(), bytes).map_err(|why| Error::malformed(path, why))?;
    file.names().map(|name| Ok((name.to_owned(), file.tensor(name)?))).collect()
}

/// Sets `leaves` from `tensors` by name, after all of them were found to fit.
pub(crate) fn assign(leaves: Vec<(String, Leaf)>, tensors: Vec<(String, Tensor)>, source_name: &str) -> Result<()> {
    matched(leaves, tensors, source_name)?.iter().try_for_each(|(leaf, tensor)| Ok(leaf.slot().set(tensor)?))
}

/// Each leaf with the tensor of its name, all of them found to fit.
fn matched(
    leaves: Vec<(String, Leaf)>,
    tensors: Vec<(String, Tensor)>,
    source_name: &str,
) -> Result<Vec<(Leaf, Tensor)>> {
    let mut given: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let (mut missing, mut unlike, mut fitting) = (Vec::new(), Vec::new(), Vec::new());
    for (path, leaf) in leaves {
        let Some(new) = given.remove(&path) else {
            missing.push(path);
            continue;
        };
        let old = leaf.tensor();
        if old.shape() == new.shape() && old.dtype() == new.dtype() {
            fitting.push((leaf, new));
        } else {
            let (wanted, found) = (describe(&old), describe(&new));
            unlike.push(format!("`{path}` is {found} and should be {wanted}"));
        }
    }
    let unexpected: Vec<String> = given.into_keys().collect();
    if !(missing.is_empty() && unexpected.is_empty() && unlike.is_empty()) {
        return Err(Error::CheckpointMismatch { source_name: source_name.to_owned(), missing, unexpected, unlike });
    }
    // Whatever computing them reports comes out before the first is set.
    Tensor::realize_all(&fitting.iter().map(|(_, tensor)| tensor).collect::<Vec<_>>())?;
    Ok(fitting)
}

pub(crate) fn describe(tensor: &Tensor) -> String {
    format!("{} {}", tensor.dtype(), tensor.shape())
}

/// A tensor's elements as safetensors stores them: little-endian, row by row.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// tapeflow's dtypes and safetensors' names for them; the one place where they meet.
const DTYPES: [(DType, Dtype); 9] = [
    (DType::Bool, Dtype::BOOL),
    (DType::U8, Dtype::U8),
    (DType::I32, Dtype::I32),
    (DType::U32, Dtype::U32),
    (DType::I64, Dtype::I64),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
];

// Elements go to the file and come from it as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "safetensors files are little-endian");

impl Stored {
    fn read(tensor: &Tensor) -> Result<Stored> {
        let ours = tensor.dtype();
        let (_, dtype) = *DTYPES
            .iter()
            .find(|(dtype, _)| *dtype == ours)
            .ok_or_else(|| Error::Configuration(format!("safetensors files hold no {ours}")))?;
        Ok(Stored { dtype, shape: tensor.shape().to_vec(), bytes: tensor.with_bytes(<[u8]>::to_vec)? })
    }
}

/// `None` for a dtype tapeflow does not have.
fn restored(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Option<Tensor> {
    let &(ours, _) = DTYPES.iter().find(|(_, theirs)| *theirs == dtype)?;
    Some(match ours {
        // Only 0 and 1 are bools, whatever the file says.
        DType::Bool => Tensor::from_vec(bytes.iter().map(|&b| b != 0).collect(), shape),
        _ => Tensor::from_bytes(bytes, ours, shape),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Linear, bf16, f16};

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("tapeflow-checkpoint-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn every_dtype_and_shape_survives_bit_by_bit() {
        let folder = folder("dtypes");
        let file = folder.join("all.safetensors");
        let tensors: Vec<(String, Tensor)> = [
            ("f32", Tensor::from_vec(vec![f32::MIN_POSITIVE, -0.0, f32::INFINITY], [3])),
            ("f64", Tensor::from_vec(vec![0.1f64, f64::MAX], [2, 1])),
            ("f16", Tensor::from_vec(vec![f16::MAX, f16::NEG_ZERO, f16::MIN_POSITIVE_SUBNORMAL], [3])),
            ("bf16", Tensor::from_vec(vec![bf16::MAX, bf16::NEG_INFINITY], [2])),
            ("u8", Tensor::from_vec(vec![0u8, 255], [1, 2])),
            ("i32", Tensor::from_vec(vec![i32::MIN], ())),
            ("u32", Tensor::from_vec(vec![u32::MAX; 4], [2, 2])),
            ("i64", Tensor::from_vec(Vec::<i64>::new(), [0, 5])),
            ("bool", Tensor::from_vec(vec![true, false, true], [3])),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .to_vec();
        save_tensors(&tensors, &file).unwrap();
        let read: BTreeMap<String, Tensor> = load_tensors(&file).unwrap().into_iter().collect();
        assert_eq!(read.len(), tensors.len());
        for (name, tensor) in &tensors {
            assert_eq!(describe(&read[name]), describe(tensor));
            assert_eq!(Stored::read(&read[name]).unwrap().bytes, Stored::read(tensor).unwrap().bytes, "{name}");
        }
        // A bit that turned over is found, and whose it is.
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 4;
        std::fs::write(&file, &bytes).unwrap();
        let error = load_tensors(&file).unwrap_err().to_string();
        assert!(error.contains("all.safetensors: tensor `") && error.contains("is damaged"), "{error}");
        let twice = [tensors[0].clone(), tensors[0].clone()];
        assert!(matches!(save_tensors(&twice, &file), Err(Error::SamePath { path }) if path == "f32"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_module_is_saved_into_a_folder_and_loaded() {
        let folder = folder("module");
        let path = folder.join("checkpoint");
        let layer = Linear::new(3, 2).unwrap();
        save_dir(&layer, &path, &[(CONFIG_FILE, b"{}")]).unwrap();
        save_dir(&layer, &path, &[(CONFIG_FILE, b"{\"n\":1}")]).unwrap();
        assert_eq!(std::fs::read(path.join(CONFIG_FILE)).unwrap(), b"{\"n\":1}");
        let other = Linear::new(3, 2).unwrap();
        load(&other, path.join(MODEL_FILE)).unwrap();
        assert_eq!(other.weight.tensor().to_vec::<f32>().unwrap(), layer.weight.tensor().to_vec::<f32>().unwrap());

        let error = load(&Linear::new(3, 2).unwrap().bias(false), path.join(MODEL_FILE)).unwrap_err().to_string();
        assert!(error.contains("unexpected (1): bias"), "{error}");
        let error = load(&Linear::new(4, 2).unwrap(), path.join(MODEL_FILE)).unwrap_err().to_string();
        assert!(error.contains("`weight` is f32 (2, 3) and should be f32 (2, 4)"), "{error}");
        assert!(matches!(load(&layer, path.join(CONFIG_FILE)), Err(Error::Malformed { .. })));
        assert!(matches!(load(&layer, path.join("none")), Err(Error::File { .. })));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
