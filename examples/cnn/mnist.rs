//! MNIST's files (LeCun, Cortes & Burges 1998): IDX, gzipped or not.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tapeflow::Error;

use crate::failure::Failure;
use crate::images::{CLASSES, Images, SIDE};

/// Of the test files alone, how many images are for training.
const TRAINING: usize = 8000;

/// Images for training and for testing.
pub fn read(folder: &Path) -> Result<(Images, Images), Failure> {
    let test = part(folder, "t10k")?.ok_or_else(|| {
        let folder = folder.display();
        Failure::Run(format!(
            "no MNIST in {folder}: t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (or both with .gz) are needed"
        ))
    })?;
    if let Some(train) = part(folder, "train")? {
        return Ok((train, test));
    }
    if test.len() <= TRAINING {
        let found = test.len();
        return Err(Failure::Run(format!("{found} test images are too few to train on {TRAINING} of them")));
    }
    Ok(test.split(TRAINING))
}

/// `None` if there is no such file of images.
fn part(folder: &Path, name: &str) -> Result<Option<Images>, Failure> {
    let Some(images) = find(folder, &format!("{name}-images-idx3-ubyte")) else { return Ok(None) };
    let labels = find(folder, &format!("{name}-labels-idx1-ubyte"))
        .ok_or_else(|| Failure::Run(format!("{} has no labels beside it", images.display())))?;
    let (dims, pixels) = idx(&images)?;
    if dims[1..] != [SIDE, SIDE] {
        return Err(malformed(&images, format!("images of {SIDE} by {SIDE} are needed, not {:?}", &dims[1..])));
    }
    let (label_dims, digits) = idx(&labels)?;
    if label_dims[..] != dims[..1] || digits.iter().any(|&d| usize::from(d) >= CLASSES) {
        return Err(malformed(&labels, format!("one digit for each of {} images is needed", dims[0])));
    }
    Ok(Some(Images { pixels, labels: digits }))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    [name.to_owned(), format!("{name}.gz")].into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

fn malformed(path: &Path, reason: String) -> Failure {
    Error::malformed(path, reason).into()
}

/// The extents and bytes of an IDX file.
fn idx(path: &Path) -> Result<(Vec<usize>, Vec<u8>), Failure> {
    let mut bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    if path.extension().is_some_and(|e| e == "gz") {
        let mut plain = Vec::new();
        GzDecoder::new(&bytes[..]).read_to_end(&mut plain).map_err(|e| malformed(path, e.to_string()))?;
        bytes = plain;
    }
    parse(&bytes).map_err(|reason| malformed(path, reason))
}

/// Two zeros, the type (8: bytes), how many extents; the extents, big-endian; the bytes.
fn parse(bytes: &[u8]) -> Result<(Vec<usize>, Vec<u8>), String> {
    let &[0, 0, 8, rank, ref rest @ ..] = bytes else { return Err("it is no IDX file of bytes".into()) };
    let (dims, data) = rest.split_at_checked(4 * usize::from(rank)).ok_or("it ends within its header")?;
    let extent = |b: &[u8]| b.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
    let dims: Vec<usize> = dims.chunks(4).map(extent).collect();
    let wanted = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if dims.is_empty() || wanted != Some(data.len()) {
        return Err(format!("its header says {dims:?}, and {} bytes follow", data.len()));
    }
    Ok((dims, data.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_is_wrong_with_them() {
        assert_eq!(parse(&[0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 5, 6]).unwrap(), (vec![1, 2], vec![5, 6]));
        for (bytes, word) in
            [(&b"PK"[..], "no IDX"), (&[0, 0, 8, 2, 0], "within its header"), (&[0, 0, 8, 1, 0, 0, 0, 9, 1], "1 bytes")]
        {
            assert!(parse(bytes).unwrap_err().contains(word));
        }
    }
}
