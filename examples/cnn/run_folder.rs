//! What a run leaves: metrics line by line, a checkpoint, pictures.

use std::path::{Path, PathBuf};

use tapeflow::checkpoint::{self, CONFIG_FILE};
use tapeflow::files::fresh_run_dir;
use tapeflow::metrics::{MetricsWriter, Record};
use tapeflow::{Error, Module, ModuleExt, Result};

use crate::evaluate::Mistake;
use crate::images::{Images, SIDE};
use crate::options::{Network, Options};
use crate::picture::{Picture, Tile, WEDGE, digit};

/// The folder of one run.
pub struct RunFolder {
    path: PathBuf,
    metrics: MetricsWriter,
}

impl RunFolder {
    /// Creates the folder, or the next free one of that name with a number.
    pub fn create(wanted: &Path) -> Result<RunFolder> {
        let path = fresh_run_dir(wanted)?;
        let metrics = MetricsWriter::create(path.join("metrics.jsonl"))?;
        Ok(RunFolder { path, metrics })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line to the metrics.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        self.metrics.write(record)
    }

    /// Writes the checkpoint, in place of the last one.
    pub fn save(&self, model: &impl Module, options: &Options) -> Result<()> {
        let name = match options.model {
            Network::Lenet => "lenet",
            Network::Resnet20 => "resnet20",
        };
        let config = serde_json::json!({ "model": name, "channels": 1, "side": SIDE });
        let path = self.path.join("checkpoint");
        let config = serde_json::to_vec_pretty(&config).map_err(|e| Error::malformed(&path, e))?;
        checkpoint::save_dir(model, &path, &[(CONFIG_FILE, &config)])
    }

    /// Draws the worst mistakes: under each what was shown, and what it was taken for.
    pub fn draw_mistakes(&self, images: &Images, mistakes: &[Mistake]) -> Result<()> {
        let tile = |mistake: &Mistake| Tile {
            pixels: images.image(mistake.index).to_vec(),
            caption: vec![digit(mistake.digit), WEDGE, digit(mistake.read)],
        };
        let tiles: Vec<Tile> = mistakes.iter().take(MISTAKES).map(tile).collect();
        Picture::of_tiles(&tiles, [SIDE, SIDE], ACROSS, 3).write(&self.path.join("mistakes.png"))
    }

    /// Draws the filters of the first layer, each from its smallest weight in black to its largest in white.
    pub fn draw_filters(&self, model: &impl Module) -> Result<()> {
        let parameters = model.named_parameters();
        let Some((_, weight)) = parameters.first() else { return Ok(()) };
        let (shape, values) = (weight.tensor().shape().to_vec(), weight.tensor().to_vec::<f32>()?);
        let &[_, _, rows, cols] = &shape[..] else { return Ok(()) };
        let tile = |filter: &[f32]| {
            let (low, high) = filter.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            let grey = |v: &f32| (255.0 * (v - low) / (high - low).max(1e-12)) as u8;
            Tile { pixels: filter.iter().map(grey).collect(), caption: Vec::new() }
        };
        let tiles: Vec<Tile> = values.chunks(rows * cols).map(tile).collect();
        Picture::of_tiles(&tiles, [rows, cols], ACROSS, 16).write(&self.path.join("filters.png"))
    }
}

/// Mistakes in the picture, at most, and tiles in a line.
const MISTAKES: usize = 40;
const ACROSS: usize = 8;
