//! What a run leaves: metrics line by line and for TensorBoard, checkpoints, a chart.

use std::path::{Path, PathBuf};

use tapeflow::chart::{self, Curve};
use tapeflow::checkpoint::{Checkpoints, Training};
use tapeflow::files::fresh_run_dir;
use tapeflow::metrics::{MetricsWriter, Record};
use tapeflow::{Error, Result};

use crate::checkpoint;

const METRICS: &str = "metrics.jsonl";

/// The folder of one run.
pub struct RunFolder {
    path: PathBuf,
    metrics: MetricsWriter,
    checkpoints: Checkpoints,
    /// The step of the newest checkpoint in it.
    saved: Option<u64>,
    train: Vec<(u64, f64)>,
    validation: Vec<(u64, f64)>,
}

impl RunFolder {
    /// Creates the folder, or the next free one of that name with a number.
    pub fn create(wanted: &Path, keep: usize) -> Result<RunFolder> {
        let path = fresh_run_dir(wanted)?;
        let metrics = MetricsWriter::create(path.join(METRICS))?;
        Ok(RunFolder::at(path, metrics, keep))
    }

    /// The folder of a run that goes on from its checkpoint of `step`.
    pub fn reopen(path: &Path, step: u64, keep: usize) -> Result<RunFolder> {
        let (metrics, records) = MetricsWriter::resume(path.join(METRICS), step)?;
        let mut folder = RunFolder { saved: Some(step), ..RunFolder::at(path.to_path_buf(), metrics, keep) };
        folder.checkpoints.clean()?;
        let losses = |name| {
            let loss = move |r: &serde_json::Value| Some((r["step"].as_u64()?, r[name].as_f64()?));
            records.iter().filter_map(loss).collect()
        };
        (folder.train, folder.validation) = (losses("train_loss"), losses("val_loss"));
        Ok(folder)
    }

    fn at(path: PathBuf, metrics: MetricsWriter, keep: usize) -> RunFolder {
        let checkpoints = checkpoint::all(&path, keep);
        RunFolder { path, metrics, checkpoints, saved: None, train: Vec::new(), validation: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says beside the metrics what is trained and how.
    pub fn describe(&mut self, settings: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(settings).map_err(|e| Error::malformed(self.metrics.path(), e))?;
        self.metrics.write_text("settings", &format!("```json\n{text}\n```"))
    }

    /// Adds a line to the metrics, and its losses to the chart.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        self.train.extend(record.train_loss.map(|loss| (record.step, loss)));
        self.validation.extend(record.val_loss.map(|loss| (record.step, loss)));
        self.metrics.write(record)
    }

    /// Writes the checkpoint of a step, if it is not there.
    pub fn save(&mut self, training: &Training<'_>, files: &[(&str, &[u8])]) -> Result<()> {
        if self.saved != Some(training.step) {
            self.checkpoints.save(training.step, |folder| training.write(folder, files))?;
            self.saved = Some(training.step);
        }
        Ok(())
    }

    /// Draws the losses.
    pub fn draw(&self, title: &str) -> Result<()> {
        // Losses of single batches scatter so much that they would hide the curve.
        let share = self.train.len().div_ceil(POINTS).max(1);
        let mean = |steps: &[(u64, f64)]| {
            (steps[steps.len() / 2].0, steps.iter().map(|(_, loss)| loss).sum::<f64>() / steps.len() as f64)
        };
        let train = match share {
            1 => "training, one batch".to_owned(),
            n => format!("training, mean of {n} batches"),
        };
        let curves = [
            Curve { name: train, points: self.train.chunks(share).map(mean).collect() },
            Curve { name: "validation".into(), points: self.validation.clone() },
        ];
        chart::write(&self.path.join("loss.svg"), title, "loss (nats per token)", &curves)
    }

    /// Takes the folder away again, if nothing was recorded: a run that never began leaves nothing.
    pub fn discard_if_empty(self) {
        if self.train.is_empty() && self.saved.is_none() {
            // The error that ended the run is the one to report.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// How many points the chart's training curve has at most.
const POINTS: usize = 200;
