//! TensorBoard's event files: what a run measures, for `tensorboard --logdir`.
//!
//! Owns the file format, that of TensorFlow: records (`tensorflow/core/lib/io/record_writer.h`: length, masked CRC of
//! it, contents, masked CRC of them; little-endian), each a protocol buffer (`event.proto`, `summary.proto`). Only what
//! is written here is encoded; knows nothing of training.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// The beginning of the names by which TensorBoard knows event files.
const PREFIX: &str = "events.out.tfevents.";

/// An event file that is being written. Each event is out when its call returns.
#[derive(Debug)]
pub(super) struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Begins a file of its own in a folder, which may hold those of earlier starts of the same run: a reader takes
    /// them in the order of their names.
    pub fn begin(folder: &Path) -> Result<EventFile> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let entries = std::fs::read_dir(folder).map_err(Error::file("read", folder))?;
        let stamp = |name: &str| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok();
        let last = entries.filter_map(|entry| stamp(entry.ok()?.file_name().to_str()?)).max();
        let stamp = (now() as u64).max(last.map_or(0, |last| last + 1));
        let path = folder.join(format!("{PREFIX}{stamp:010}.tapeflow.{}", std::process::id()));
        let file = File::create_new(&path).map_err(Error::file("create", &path))?;
        let mut events = EventFile { file, path };
        events.write(0, |event| event.bytes(FILE_VERSION, b"brain.Event:2"))?;
        Ok(events)
    }

    /// Says that the run goes on before `step`: what earlier files hold of it and later ones counts no longer.
    pub fn restart(&mut self, step: u64) -> Result<()> {
        self.write(step, |event| event.message(SESSION_LOG, |log| log.number(1, SESSION_START)))
    }

    /// Writes numbers of one step by name.
    pub fn scalars<'v>(&mut self, step: u64, values: impl Iterator<Item = (&'v str, f64)>) -> Result<()> {
        self.write(step, |event| {
            event.message(SUMMARY, |summary| {
                for (tag, number) in values {
                    summary.message(VALUE, |value| {
                        value.bytes(TAG, tag.as_bytes());
                        value.float(SIMPLE_VALUE, number as f32);
                    });
                }
            });
        })
    }

    /// Writes a text, which is shown as Markdown.
    pub fn text(&mut self, name: &str, text: &str) -> Result<()> {
        self.write(0, |event| {
            event.message(SUMMARY, |summary| {
                summary.message(VALUE, |value| {
                    value.bytes(TAG, format!("{name}/text_summary").as_bytes());
                    value.message(TENSOR, |tensor| {
                        tensor.number(1, DT_STRING);
                        tensor.message(2, |shape| shape.message(2, |dimension| dimension.number(1, 1)));
                        tensor.bytes(STRING_VAL, text.as_bytes());
                    });
                    value.message(METADATA, |metadata| metadata.message(1, |plugin| plugin.bytes(1, b"text")));
                });
            });
        })
    }

    fn write(&mut self, step: u64, what: impl FnOnce(&mut Message)) -> Result<()> {
        let mut event = Message::default();
        event.double(WALL_TIME, now());
        event.number(STEP, step);
        what(&mut event);
        let record = framed(&event.0);
        self.file.write_all(&record).map_err(Error::file("write", &self.path))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

// The numbers of fields: of `Event`,
const WALL_TIME: u32 = 1;
const STEP: u32 = 2;
const FILE_VERSION: u32 = 3;
const SUMMARY: u32 = 5;
const SESSION_LOG: u32 = 7;
// of `Summary` and its `Value`,
const VALUE: u32 = 1;
const TAG: u32 = 1;
const SIMPLE_VALUE: u32 = 2;
const TENSOR: u32 = 8;
const METADATA: u32 = 9;
// of `TensorProto`;
const STRING_VAL: u32 = 8;
// and of enumerations.
const SESSION_START: u64 = 1;
const DT_STRING: u64 = 7;

/// A protocol buffer that is being encoded: fields, each with its number and wire type.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn number(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn double(&mut self, field: u32, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u32, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// A record.
fn framed(contents: &[u8]) -> Vec<u8> {
    let length = (contents.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), contents, &masked(contents).to_le_bytes()].concat()
}

/// TensorFlow's mask: the checksum of something that holds checksums is then no weak one.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's checksum (RFC 3720, B.4), a byte at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4; and the check value of CRC catalogues.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_message_is_its_fields() {
        let mut message = Message::default();
        message.number(1, 150);
        message.message(2, |inner| inner.bytes(2, b"testing"));
        // The examples of protocol buffers' documentation of the encoding.
        assert_eq!(message.0, [&[0x08, 0x96, 0x01, 0x12, 0x09, 0x12, 0x07][..], b"testing"].concat());
    }
}
