//! Safetensors files read where they lie: mapped into memory, so that a tensor's bytes are copied once, when it is
//! made.
//!
//! Owns the map and what the header may say. Knows no module.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use tapeflow_core::{DType, Tensor};

use super::restored;
use crate::error::{Error, Result};

/// A safetensors file whose header was read; its tensors are read one by one when they are asked for.
///
/// Nobody may shorten the file meanwhile: what is no longer there cannot be read, and the system ends the program.
///
/// ```
/// use tapeflow_nn::checkpoint::{Mapped, save_tensors};
/// use tapeflow_nn::Tensor;
/// # let path = std::env::temp_dir().join(format!("tapeflow-doc-mapped-{}", std::process::id()));
/// save_tensors(&[("a".to_owned(), Tensor::from_vec(vec![1.0f32, 2.0], [2]))], &path)?;
/// let file = Mapped::open(&path)?;
/// assert_eq!(file.names().collect::<Vec<_>>(), ["a"]);
/// assert_eq!(file.tensor("a")?.to_vec::<f32>()?, [1.0, 2.0]);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Mmap,
    header: Metadata,
    /// Where the header ends and the tensors begin.
    start: usize,
    /// The names by rising name.
    names: Vec<String>,
}

impl Mapped {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read; [`Error::Malformed`] if it is no safetensors file, or not as long as its
    /// header says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::file("read", path))?;
        let about = file.metadata().map_err(Error::file("read", path))?;
        if !about.is_file() {
            return Err(Error::malformed(path, "it is no file"));
        }
        // Checkpoints are written under another name and renamed, which leaves a mapped file as it is, and how long the
        // map is, the header is checked against below.
        // SAFETY: the map is read-only, and nothing here writes to the file; that no other program changes or shortens
        // it is what the documentation of this type asks for.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::file("map", path))?;
        let broken = |e| Error::malformed(path, format!("not a whole safetensors file: {e}"));
        let (length, header) = SafeTensors::read_metadata(&map).map_err(broken)?;
        let mut names: Vec<String> = header.tensors().into_keys().collect();
        names.sort();
        // The header's length stands before it, in 8 bytes.
        Ok(Mapped { path: path.to_path_buf(), map, header, start: 8 + length, names })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors, rising.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// What is said of the file as a whole.
    pub fn metadata(&self) -> Option<&HashMap<String, String>> {
        self.header.metadata().as_ref()
    }

    /// The shape of a tensor; `None` if there is none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| &info.shape[..])
    }

    /// The dtype of a tensor as safetensors calls it, such as `BF16`.
    pub fn dtype(&self, name: &str) -> Option<String> {
        self.header.info(name).map(|info| format!("{:?}", info.dtype))
    }

    /// The bytes of a tensor, row by row and little-endian.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let (begin, end) = self.header.info(name)?.data_offsets;
        self.map.get(self.start + begin..self.start + end)
    }

    /// A tensor, on the present device.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is none of that name, or it has a dtype that is not supported.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let (info, bytes) = self.found(name)?;
        restored(info, self.shape(name).unwrap_or_default(), bytes).ok_or_else(|| self.unsupported(name, info))
    }

    /// A tensor of any float dtype, f16 and bf16 among them, as `dtype`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is none of that name, or it is no float tensor.
    pub fn floats(&self, name: &str, dtype: DType) -> Result<Tensor> {
        let (stored, _) = self.found(name)?;
        let tensor = match stored {
            Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64 => self.tensor(name)?,
            _ => return Err(self.unsupported(name, stored)),
        };
        Ok(if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) })
    }

    fn found(&self, name: &str) -> Result<(Dtype, &[u8])> {
        let found = self.header.info(name).map(|info| info.dtype).zip(self.bytes(name));
        found.ok_or_else(|| Error::malformed(&self.path, format!("it holds no tensor `{name}`")))
    }

    fn unsupported(&self, name: &str, dtype: Dtype) -> Error {
        Error::malformed(&self.path, format!("`{name}` has dtype {dtype:?}, unsupported"))
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn halves_become_the_numbers_they_stand_for() {
        let path = std::env::temp_dir().join(format!("tapeflow-mapped-{}", std::process::id()));
        let numbers = [1.0f32, -2.5, 65504.0, 6e-8];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        bytes.extend(numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
        let header = r#"{"h":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]}}"#;
        let whole = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat();
        std::fs::write(&path, &whole).unwrap();
        let file = Mapped::open(&path).unwrap();
        assert_eq!(file.floats("h", DType::F32).unwrap().to_vec::<f32>().unwrap(), [1.0, -2.5, 65504.0, 5.9604645e-8]);
        let b = file.floats("b", DType::F64).unwrap();
        assert_eq!(
            (b.shape().to_vec(), b.to_vec::<f64>().unwrap()[..3].to_vec()),
            (vec![2, 2], vec![1.0, -2.5, 65536.0])
        );
        assert_eq!(file.dtype("b").as_deref(), Some("BF16"));
        assert_eq!(file.tensor("h").unwrap().dtype(), DType::F16);
        assert!(file.tensor("c").unwrap_err().to_string().contains("holds no tensor `c`"));
        drop(file);
        for cut in [0, 7, 30, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(Mapped::open(&path).unwrap_err().to_string().contains("not a whole safetensors file"), "{cut}");
        }
        assert!(matches!(Mapped::open(std::env::temp_dir()), Err(Error::Malformed { .. } | Error::File { .. })));
        std::fs::remove_file(path).unwrap();
    }
}
