//! What a run measures, one JSON object a line.
//!
//! Owns the file format of `metrics.jsonl` and nothing of training. Each line is flushed as it is written, so that a
//! run that is stopped or watched shows everything up to its last step.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::{Error, Result};
use crate::files::write_atomically;

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
        let named = [
            ("train_loss", self.train_loss),
            ("val_loss", self.val_loss),
            ("learning_rate", self.learning_rate),
            ("tokens_per_second", self.tokens_per_second),
        ];
        let measured = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in measured.chain(self.extra.iter().map(|(name, value)| (name.as_str(), *value))) {
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

/// Writes records to a file, one JSON object a line.
#[derive(Debug)]
pub struct MetricsWriter {
    file: File,
    path: PathBuf,
}

impl MetricsWriter {
    /// Starts an empty file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be created.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = File::create(&path).map_err(Error::file("create", &path))?;
        Ok(MetricsWriter { file, path })
    }

    /// Goes on with a file behind the records of the steps before `step`; what was written of later ones is dropped,
    /// and so is a line that a crash cut short. Returns what is left in it, as JSON.
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
        Ok((MetricsWriter { file, path }, values))
    }

    /// Writes one record as one line.
    ///
    /// # Errors
    /// [`Error::File`] if the line cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_string(record).map_err(|e| Error::malformed(&self.path, e))?;
        line.push('\n');
        // One write call for a whole line on an unbuffered file: the line is out when this returns.
        self.file.write_all(line.as_bytes()).map_err(Error::file("write", &self.path))
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_and_what_is_not_finite_is_null() {
        let path = std::env::temp_dir().join(format!("tapeflow-metrics-{}.jsonl", std::process::id()));
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
        std::fs::remove_file(path).unwrap();
    }
}
