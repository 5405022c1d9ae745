//! The tensors of a pretrained model's folder: one file, or several with an index of who is where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{MODEL_FILE, Mapped};
use crate::error::{Error, Result};

/// The file that says in which file each tensor is.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// All tensors of a folder by name, whichever of its files they are in.
///
/// ```
/// use tapeflow_nn::checkpoint::{Shards, save_dir};
/// use tapeflow_nn::Linear;
/// # let path = std::env::temp_dir().join(format!("tapeflow-doc-shards-{}", std::process::id()));
/// save_dir(&Linear::new(3, 2)?, &path, &[])?;
/// let shards = Shards::open(&path)?;
/// assert_eq!(shards.names().collect::<Vec<_>>(), ["bias", "weight"]);
/// assert_eq!(shards.file("weight").and_then(|file| file.shape("weight")), Some(&[2, 3][..]));
/// # std::fs::remove_dir_all(path).unwrap();
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    files: Vec<Mapped>,
    /// The index in `files` by name.
    places: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Maps `model.safetensors`, or else the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Malformed`] if a file cannot be read, or is not what the index says.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let (single, index) = (folder.join(MODEL_FILE), folder.join(INDEX_FILE));
        if single.is_file() || !index.is_file() {
            if !single.is_file() && folder.join("pytorch_model.bin").is_file() {
                let why = format!("there is a pytorch_model.bin only; {MODEL_FILE} is what can be read");
                return Err(Error::malformed(folder, why));
            }
            let file = Mapped::open(single)?;
            let places = file.names().map(|name| (name.to_owned(), 0)).collect();
            return Ok(Shards { folder: folder.to_path_buf(), files: vec![file], places });
        }
        let json = std::fs::read(&index).map_err(Error::file("read", &index))?;
        let Index { weight_map } = serde_json::from_slice(&json).map_err(|e| Error::malformed(&index, e))?;
        let names: Vec<&String> = weight_map.values().collect::<BTreeSet<_>>().into_iter().collect();
        // A name with a folder in it could lead anywhere.
        if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
            return Err(Error::malformed(&index, format!("`{name}` is no name of a file beside it")));
        }
        let files = names.iter().map(|name| Mapped::open(folder.join(name))).collect::<Result<Vec<_>>>()?;
        let mut places = BTreeMap::new();
        for (at, file) in files.iter().enumerate() {
            for name in file.names() {
                // What the index does not know is said to be too much by whoever looks for names.
                if weight_map.get(name).is_none_or(|said| said == names[at]) {
                    places.insert(name.to_owned(), at);
                }
            }
        }
        if let Some((name, file)) = weight_map.iter().find(|(name, _)| !places.contains_key(*name)) {
            return Err(Error::malformed(
                &folder.join(file),
                format!("it holds no tensor `{name}`, as {INDEX_FILE} says"),
            ));
        }
        Ok(Shards { folder: folder.to_path_buf(), files, places })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of all tensors, rising.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The file that a tensor is in; `None` if there is none of that name.
    pub fn file(&self, name: &str) -> Option<&Mapped> {
        self.places.get(name).and_then(|&at| self.files.get(at))
    }
}

#[cfg(test)]
mod tests {
    use tapeflow_core::Tensor;

    use super::super::save_tensors;
    use super::*;

    #[test]
    fn shards_are_one_folder_of_tensors() {
        let folder = std::env::temp_dir().join(format!("tapeflow-shards-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |file: &str, name: &str, value: f32| {
            let tensors = [(name.to_owned(), Tensor::from_vec(vec![value], [1]))];
            save_tensors(&tensors, folder.join(file)).unwrap();
        };
        let said = || Shards::open(&folder).unwrap_err().to_string();
        assert!(said().contains("cannot read") && said().contains("model.safetensors"));
        std::fs::write(folder.join("pytorch_model.bin"), "").unwrap();
        assert!(said().contains("there is a pytorch_model.bin only"));
        write("one.safetensors", "a", 1.0);
        write("two.safetensors", "b", 2.0);
        let index = |json: &str| std::fs::write(folder.join(INDEX_FILE), json).unwrap();
        index(r#"{"metadata": {}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#);
        let shards = Shards::open(&folder).unwrap();
        assert_eq!(shards.names().collect::<Vec<_>>(), ["a", "b"]);
        let b = shards.file("b").unwrap();
        assert!(b.path().ends_with("two.safetensors"));
        assert_eq!(b.tensor("b").unwrap().to_vec::<f32>().unwrap(), [2.0]);
        index(r#"{"weight_map": {"a": "one.safetensors", "c": "two.safetensors"}}"#);
        assert!(said().contains("two.safetensors: it holds no tensor `c`"), "{}", said());
        index(r#"{"weight_map": {"a": "../one.safetensors"}}"#);
        assert!(said().contains("`../one.safetensors` is no name of a file"));
        index(r#"{"weight_map": {"a": "three.safetensors"}}"#);
        assert!(said().contains("three.safetensors"));
        index("{}");
        assert!(said().contains("weight_map"));
        write(MODEL_FILE, "single", 1.0);
        assert_eq!(Shards::open(&folder).unwrap().names().collect::<Vec<_>>(), ["single"]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
