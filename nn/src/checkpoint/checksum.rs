//! Checksums: what makes damage in a file known, and in which tensor it is.

use std::collections::HashMap;

/// The entry in a safetensors file's metadata under which the checksums stand. It is the only one: several would be
/// written in no fixed order, and equal checkpoints are equal files.
const ENTRY: &str = "checksums";

/// A 64-bit checksum of some bytes: FxHash's step (Firefox) over little-endian words and the length. Each step is
/// one-to-one, so a damage within one word is always found. It is no protection against intent.
///
/// ```
/// use tapeflow_nn::checkpoint::checksum;
/// assert_ne!(checksum(b"tape"), checksum(b"tapf"));
/// assert_ne!(checksum(b"tape"), checksum(b"tape\0"));
/// ```
pub fn checksum(bytes: &[u8]) -> u64 {
    let step = |h: u64, word: u64| (h.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0, |h, word| step(h, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    step(step(hash, u64::from_le_bytes(last)), bytes.len() as u64)
}

/// A checksum as it is written.
pub(super) fn written(bytes: &[u8]) -> String {
    format!("{:016x}", checksum(bytes))
}

/// The metadata of a file with these tensors, which are given by rising name.
pub(super) fn of_tensors(tensors: &mut dyn Iterator<Item = (&str, &[u8])>) -> HashMap<String, String> {
    let lines: Vec<String> = tensors.map(|(name, bytes)| format!("{} {name}", written(bytes))).collect();
    HashMap::from([(ENTRY.to_owned(), lines.join("\n"))])
}

/// Says which tensor is not as it was written, if the file has checksums.
pub(super) fn check_tensors<'t>(
    metadata: Option<&HashMap<String, String>>,
    tensors: impl Iterator<Item = (&'t str, &'t [u8])>,
) -> Result<(), String> {
    let Some(text) = metadata.and_then(|m| m.get(ENTRY)) else { return Ok(()) };
    let mut wanted: HashMap<&str, &str> = HashMap::new();
    for line in text.lines() {
        let (sum, name) = line.split_once(' ').ok_or("its checksums are damaged")?;
        wanted.insert(name, sum);
    }
    for (name, bytes) in tensors {
        if wanted.remove(name) != Some(&written(bytes)) {
            return Err(format!("tensor `{name}` is damaged: its checksum is another"));
        }
    }
    match wanted.into_keys().min() {
        Some(name) => Err(format!("tensor `{name}` is missing: the file has a checksum of it")),
        None => Ok(()),
    }
}
