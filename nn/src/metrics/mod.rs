//! What a run measures: one JSON object a line, and the same as TensorBoard's events beside it.
//!
//! Owns the file format of `metrics.jsonl` and nothing of training. Each line is flushed as it is written, so that a
//! run that is stopped or watched shows everything up to its last step.

mod event_file;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::{Error, Result};
use crate::files::write_atomically;
use event_file::EventFile;

/// What was measured at one step; what was not measured is not written.
///
/// Losses are in nats per token. A value that is not finite is written as `null`, since JSON has no other word for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// How many steps were taken before this one.
    pub step: u64,
    /// The loss of the step's own batch.
    pub train_loss: Option<f64>,
    /// The loss on validation data, where it was evaluated.
    pub val_loss: Option<f64>,
    /// The learning rate of the step.
    pub learning_rate: Option<f64>,
    /// Training tokens per second of wall time.
    pub tokens_per_second: Option<f64>,
    /// Further values by name, in this order.
    pub extra: Vec<(String, f64)>,
}

impl Record {
    /// The record of step `step`, with nothing in it yet.
    pub fn new(step: u64) -> Self {
        Record { step, ..Record::default() }
    }

    /// What was measured, by name.
    fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        let named = [
            ("train_loss", self.train_loss),
            ("val_loss", self.val_loss),
            ("learning_rate", self.learning_rate),
            ("tokens_per_second", self.tokens_per_second),
        ];
        let measured = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
        measured.chain(self.extra.iter().map(|(name, value)| (name.as_str(), *value)))
    }

    /// Adds a value under a name of its own, such as `val_loss_full`.
    pub fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.extra.push((name.into(), value));
        self
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("step", &self.step)?;
        for (name, value) in self.values() {
            // A value that came from f32 is written in f32's digits: 1.9, not 1.899999976158142.
            if f64::from(value as f32) == value {
                map.serialize_entry(name, &(value as f32))?;
            } else {
                map.serialize_entry(name, &value)?;
            }
        }
        map.end()
    }
}

/// Writes records to a file, one JSON object a line, and as events to another in the same folder, which
/// `tensorboard --logdir` shows; each start of a run has an event file of its own.
#[derive(Debug)]
pub struct MetricsWriter {
    file: File,
    path: PathBuf,
    events: EventFile,
}

impl MetricsWriter {
    /// Starts empty files.
    ///
    /// # Errors
    /// [`Error::File`] if they cannot be created.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = File::create(&path).map_err(Error::file("create", &path))?;
        let events = EventFile::begin(folder_of(&path))?;
        Ok(MetricsWriter { file, path, events })
    }

    /// Goes on with a file behind the records of the steps before `step`; what was written of later ones is dropped,
    /// and so is a line that a crash cut short. A new event file says the same of those that are there. Returns what is
    /// left, as JSON.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read or written; one that is not there is begun.
    pub fn resume(path: impl Into<PathBuf>, step: u64) -> Result<(Self, Vec<serde_json::Value>)> {
        let path = path.into();
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(Error::file("read", &path))?,
        };
        let parsed = text.lines().map(|line| (line, serde_json::from_str::<serde_json::Value>(line)));
        let before = |value: &serde_json::Value| value["step"].as_u64().is_some_and(|s| s < step);
        let kept = parsed.filter_map(|(line, value)| Some((line, value.ok().filter(&before)?)));
        let (lines, values): (Vec<&str>, Vec<serde_json::Value>) = kept.unzip();
        let left: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        write_atomically(&path, left.as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(Error::file("open", &path))?;
        let mut events = EventFile::begin(folder_of(&path))?;
        events.restart(step)?;
        Ok((MetricsWriter { file, path, events }, values))
    }

    /// Writes one record as one line, and its values as events. A value that is not finite is one there too.
    ///
    /// # Errors
    /// [`Error::File`] if one of them cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_string(record).map_err(|e| Error::malformed(&self.path, e))?;
        line.push('\n');
        // One write call for a whole line on an unbuffered file: the line is out when this returns.
        self.file.write_all(line.as_bytes()).map_err(Error::file("write", &self.path))?;
        self.events.scalars(record.step, record.values())
    }

    /// Writes a text among the events, such as the settings of the run; TensorBoard shows it as Markdown under `name`.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write_text(&mut self, name: &str, text: &str) -> Result<()> {
        self.events.text(name, text)
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a protocol buffer: number, and the bytes or the number that it holds.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let end = bytes.iter().position(|b| b & 0x80 == 0).unwrap() + 1;
            let (own, rest) = bytes.split_at(end);
            *bytes = rest;
            own.iter().rev().fold(0, |value, b| value << 7 | u64::from(b & 0x7f))
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let (number, length) = match key & 7 {
                0 => (varint(&mut bytes), 0),
                1 => (0, 8),
                5 => (0, 4),
                2 => (0, varint(&mut bytes) as usize),
                other => panic!("wire type {other}"),
            };
            let (own, rest) = bytes.split_at(length);
            found.push((key >> 3, number, own));
            bytes = rest;
        }
        found
    }

    fn one<'b>(fields: &[(u64, u64, &'b [u8])], field: u64) -> Option<(u64, &'b [u8])> {
        fields.iter().find(|f| f.0 == field).map(|f| (f.1, f.2))
    }

    /// The checksum, bit by bit.
    fn checksum(bytes: &[u8]) -> u32 {
        let crc = !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
        });
        crc.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    /// What the event files of a folder hold, a list for each: steps with their numbers, `version` and `restart`.
    fn decoded(folder: &Path) -> Vec<Vec<(u64, String, f32)>> {
        let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let mut paths: Vec<_> = entries.filter(|p| p.to_str().unwrap().contains(".tfevents.")).collect();
        paths.sort();
        let decode = |path: &PathBuf| {
            let bytes = std::fs::read(path).unwrap();
            let (mut at, mut events) = (&bytes[..], Vec::new());
            while !at.is_empty() {
                let length = u64::from_le_bytes(at[..8].try_into().unwrap()) as usize;
                let word = |from: usize| u32::from_le_bytes(at[from..from + 4].try_into().unwrap());
                let contents = &at[12..12 + length];
                assert_eq!([word(8), word(12 + length)], [checksum(&at[..8]), checksum(contents)]);
                let event = fields(contents);
                assert!(f64::from_le_bytes(one(&event, 1).unwrap().1.try_into().unwrap()) > 1.7e9);
                let step = one(&event, 2).unwrap().0;
                let name = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                if let Some((_, version)) = one(&event, 3) {
                    events.push((step, name(version), 0.0));
                }
                if let Some((_, log)) = one(&event, 7) {
                    assert_eq!(fields(log), [(1, 1, &[][..])]);
                    events.push((step, "restart".into(), 0.0));
                }
                for value in one(&event, 5).map(|(_, summary)| fields(summary)).unwrap_or_default() {
                    let value = fields(value.2);
                    let number = one(&value, 2).map_or(0.0, |(_, n)| f32::from_le_bytes(n.try_into().unwrap()));
                    events.push((step, name(one(&value, 1).unwrap().1), number));
                }
                at = &at[16 + length..];
            }
            events
        };
        paths.iter().map(decode).collect()
    }

    #[test]
    fn events_are_what_the_lines_say_and_a_resumed_run_says_where_it_goes_on() {
        let folder = std::env::temp_dir().join(format!("tapeflow-events-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("metrics.jsonl");
        let mut writer = MetricsWriter::create(&path).unwrap();
        writer.write_text("config", "steps: 3").unwrap();
        for step in 0..3u32 {
            let mut record = Record::new(u64::from(step)).with("test_accuracy", 0.5 + f64::from(step) / 8.0);
            record.train_loss = Some(4.0 - f64::from(step));
            writer.write(&record).unwrap();
        }
        drop(writer);
        let (mut writer, left) = MetricsWriter::resume(&path, 2).unwrap();
        assert_eq!(left.len(), 2);
        writer.write(&Record { val_loss: Some(f64::NAN), ..Record::new(300) }.with("train_loss", 1.5)).unwrap();
        let files = decoded(&folder);
        let version = (0, "brain.Event:2".to_owned(), 0.0);
        assert_eq!(files[0][..2], [version.clone(), (0, "config/text_summary".to_owned(), 0.0)]);
        assert_eq!(files[1][..2], [version, (2, "restart".to_owned(), 0.0)]);
        assert!(files[1][2].2.is_nan() && files[1][2].1 == "val_loss" && files.len() == 2);
        // What counts are the events before the restart, and those after it: the lines that are left.
        let counted = files[0][2..].iter().filter(|e| e.0 < 2).chain(&files[1][3..]);
        let numbers: Vec<(u64, &str, f64)> = counted.map(|(s, name, v)| (*s, name.as_str(), f64::from(*v))).collect();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut said = Vec::new();
        for line in text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            for name in ["train_loss", "test_accuracy"] {
                said.extend(line[name].as_f64().map(|value| (line["step"].as_u64().unwrap(), name, value)));
            }
        }
        assert_eq!(numbers, said);
        assert_eq!(said.len(), 5);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_record_is_one_line_and_what_is_not_finite_is_null() {
        let folder = std::env::temp_dir().join(format!("tapeflow-metrics-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("metrics.jsonl");
        let mut writer = MetricsWriter::create(&path).unwrap();
        let mut record = Record::new(0);
        record.train_loss = Some(f64::from(4.2f32));
        record.learning_rate = Some(1e-3);
        writer.write(&record).unwrap();
        record = Record::new(1).with("val_loss_full", 1.5);
        record.train_loss = Some(f64::NAN);
        record.val_loss = Some(f64::INFINITY);
        writer.write(&record).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"step\":0,\"train_loss\":4.2,\"learning_rate\":0.001}\n\
             {\"step\":1,\"train_loss\":null,\"val_loss\":null,\"val_loss_full\":1.5}\n"
        );
        // Going on before step 1, with a line that was cut short.
        writer.file.write_all(b"{\"step\":0,\"tra").unwrap();
        let (mut writer, left) = MetricsWriter::resume(&path, 1).unwrap();
        assert_eq!(left.iter().map(|v| v["train_loss"].as_f64()).collect::<Vec<_>>(), [Some(4.2)]);
        writer.write(&Record::new(1)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":0,\"train_loss\":4.2,\"learning_rate\":0.001}\n{\"step\":1}\n");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
