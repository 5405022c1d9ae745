//! What a run needs to go on as if it had never stopped: model, optimizer, generators, step.
//!
//! Owns the files of a training checkpoint and that they are read all or not at all. Schedules and batches are
//! functions of the step, so the step is all there is to them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tapeflow_core::Generator;

use super::checksum::written;
use super::{MODEL_FILE, fill, load_tensors, matched, save_tensors};
use crate::error::{Error, Result};
use crate::files::{write_atomically, write_folder_atomically};
use crate::module::{Module, ModuleExt};
use crate::optim::Optimizer;

/// The optimizer's file in a training checkpoint.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// The file with the step, the generators and the checksums of all other files.
pub const TRAINING_FILE: &str = "training.json";

/// The generators of a run by name: what dropout and initialisation draw from.
pub type Generators<'g> = &'g [(&'g str, &'g Generator)];

/// What a training checkpoint is made of.
pub struct Training<'a> {
    /// The model.
    pub model: &'a dyn Module,
    /// Its optimizer.
    pub optimizer: &'a dyn Optimizer,
    /// What random numbers come from.
    pub generators: Generators<'a>,
    /// How many steps were taken.
    pub step: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    step: u64,
    generators: BTreeMap<String, Drawn>,
    /// Checksums by file name.
    files: BTreeMap<String, String>,
    /// Of all this, written with none here.
    checksum: String,
}

impl Description {
    /// What is written, with its checksum.
    fn json(mut self) -> serde_json::Result<Vec<u8>> {
        self.checksum = String::new();
        self.checksum = written(&serde_json::to_vec(&self)?);
        serde_json::to_vec_pretty(&self)
    }
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drawn {
    seed: u64,
    counter: u64,
}

impl Training<'_> {
    /// Writes a checkpoint folder, with further files by name. A folder of that name is replaced once the new one is
    /// complete.
    ///
    /// Equal states are equal files.
    ///
    /// # Errors
    /// [`Error::File`] if something cannot be written, or the error of a pending computation.
    /// # Example
    /// ```
    /// use tapeflow_nn::checkpoint::{Training, resume};
    /// use tapeflow_nn::{AdamW, DType, Forward, Generator, Linear, Optimizer, Tensor};
    /// # let path = std::env::temp_dir().join(format!("tapeflow-doc-training-{}", std::process::id()));
    /// let (model, generator) = (Linear::new(3, 1)?, Generator::new(1));
    /// let mut optimizer = AdamW::new(&model);
    /// let loss = model.forward(&generator.rand([4, 3])).square().mean();
    /// optimizer.step(loss.backward()?)?;
    /// let generators = [("data", &generator)];
    /// Training { model: &model, optimizer: &optimizer, generators: &generators, step: 1 }.save(&path, &[])?;
    ///
    /// let (model, generator) = (Linear::new(3, 1)?, Generator::new(1));
    /// let mut optimizer = AdamW::new(&model);
    /// let step = resume(&path, &model, &mut optimizer, &[("data", &generator)])?;
    /// assert_eq!((step, optimizer.steps(), generator.counter()), (1, 1, 1));
    /// # std::fs::remove_dir_all(path).unwrap();
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>, files: &[(&str, &[u8])]) -> Result<()> {
        write_folder_atomically(path.as_ref(), |folder| self.write(folder, files))
    }

    /// Writes the files into a folder that is there, as [`Checkpoints::save`](super::Checkpoints::save) gives it.
    ///
    /// # Errors
    /// As [`save`](Training::save); the folder is then not complete.
    pub fn write(&self, folder: &Path, files: &[(&str, &[u8])]) -> Result<()> {
        fill(self.model, folder, files)?;
        save_tensors(&self.optimizer.state_dict(), folder.join(OPTIMIZER_FILE))?;
        let mut checksums = BTreeMap::new();
        for name in files.iter().map(|(name, _)| *name).chain([MODEL_FILE, OPTIMIZER_FILE]) {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).map_err(Error::file("read", &path))?;
            checksums.insert(name.to_owned(), written(&bytes));
        }
        let drawn = |g: &Generator| Drawn { seed: g.seed(), counter: g.counter() };
        let generators = self.generators.iter().map(|(name, g)| ((*name).to_owned(), drawn(g))).collect();
        let path = folder.join(TRAINING_FILE);
        let description = Description { step: self.step, generators, files: checksums, checksum: String::new() };
        write_atomically(&path, &description.json().map_err(|e| Error::malformed(&path, e))?)
    }
}

/// Sets model, optimizer and generators to what a training checkpoint holds, and returns how many steps were taken; all
/// of them, or none.
///
/// # Errors
/// [`Error::File`] for a file that is missing, [`Error::Malformed`] naming the file, and the tensor, that is damaged or
/// no part of a training checkpoint, [`Error::CheckpointMismatch`] listing what does not fit model and optimizer;
/// [`Error::Configuration`] for generators of other names or seeds.
pub fn resume(
    path: impl AsRef<Path>,
    model: &dyn Module,
    optimizer: &mut dyn Optimizer,
    generators: Generators<'_>,
) -> Result<u64> {
    let folder = path.as_ref();
    let description = verified(folder)?;
    let (model_file, optimizer_file) = (folder.join(MODEL_FILE), folder.join(OPTIMIZER_FILE));
    let (tensors, state) = (load_tensors(&model_file)?, load_tensors(&optimizer_file)?);
    let named = |generators: &mut dyn Iterator<Item = (&str, u64)>| {
        let all: Vec<String> = generators.map(|(name, seed)| format!("`{name}` of seed {seed}")).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    let mut given: Vec<(&str, u64)> = generators.iter().map(|(name, g)| (*name, g.seed())).collect();
    given.sort_unstable();
    let stored: Vec<(&str, u64)> = description.generators.iter().map(|(name, g)| (&name[..], g.seed)).collect();
    if given != stored {
        let (wanted, found) = (named(&mut given.into_iter()), named(&mut stored.into_iter()));
        let why = format!("{}: its generators are {found}, and this run's {wanted}", folder.display());
        return Err(Error::Configuration(why));
    }
    let fitting = matched(model.leaves(), tensors, &model_file.display().to_string())?;
    optimizer.load_state_dict(state, &optimizer_file.display().to_string())?;
    fitting.iter().try_for_each(|(leaf, tensor)| leaf.slot().set(tensor))?;
    for (name, generator) in generators {
        if let Some(drawn) = description.generators.get(*name) {
            generator.set_counter(drawn.counter);
        }
    }
    Ok(description.step)
}

/// How many steps a training checkpoint is from, once all its files were found to be as they were written.
///
/// # Errors
/// [`Error::File`] for a file that is missing, [`Error::Malformed`] naming the file, and the tensor, that is damaged.
pub fn verify(path: impl AsRef<Path>) -> Result<u64> {
    Ok(verified(path.as_ref())?.step)
}

fn verified(folder: &Path) -> Result<Description> {
    let description = describe(&folder.join(TRAINING_FILE))?;
    for (name, sum) in &description.files {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).map_err(Error::file("read", &path))?;
        if written(&bytes) != *sum {
            if name.ends_with(".safetensors") {
                // Says more, where the damage is in a tensor.
                load_tensors(&path)?;
            }
            return Err(Error::malformed(&path, "it is damaged, or another checkpoint's: its checksum is another"));
        }
    }
    Ok(description)
}

fn describe(path: &Path) -> Result<Description> {
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    let malformed = |e| Error::malformed(path, e);
    let mut found: Description = serde_json::from_slice(&bytes).map_err(malformed)?;
    let sum = std::mem::take(&mut found.checksum);
    if written(&serde_json::to_vec(&found).map_err(malformed)?) != sum {
        return Err(Error::malformed(path, "it is damaged: its checksum is another"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{AdamW, Dropout, Forward, Linear};

    /// A net whose dropout draws anew at every step.
    type Net = (Linear, Dropout, Linear);

    struct Run {
        net: Net,
        optimizer: AdamW,
        generator: Generator,
        step: u64,
    }

    impl Run {
        fn new(seed: u64) -> Run {
            let generator = Generator::new(seed);
            let dropout = Dropout::new(0.5).generator(&generator);
            let (a, b) = (Linear::drawn(5, 16, &generator), Linear::drawn(16, 1, &generator));
            let net = (a.unwrap(), dropout, b.unwrap());
            Run { optimizer: AdamW::new(&net).learning_rate(0.05), net, generator, step: 0 }
        }

        fn train(&mut self, steps: u64) {
            while self.step < steps {
                // A batch is a function of the step.
                let x = Generator::new(100 + self.step).rand([8, 5]);
                let net = &self.net;
                let loss = net.2.forward(&net.1.forward(&net.0.forward(&x).tanh())).square().mean();
                self.optimizer.step(loss.backward().unwrap()).unwrap();
                self.step += 1;
            }
        }

        fn save(&self, path: &Path) -> BTreeMap<String, Vec<u8>> {
            let generators: Generators<'_> = &[("net", &self.generator)];
            let Run { net: model, optimizer, step, .. } = self;
            Training { model, optimizer, generators, step: *step }.save(path, &[("notes.txt", b"none")]).unwrap();
            let entries = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
            entries.map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(p).unwrap())).collect()
        }

        fn resume(&mut self, path: &Path) -> Result<()> {
            self.step = resume(path, &self.net, &mut self.optimizer, &[("net", &self.generator)])?;
            Ok(())
        }
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tapeflow-resume-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_run_that_stopped_at_any_step_ends_with_the_same_bytes() {
        let (whole, stopped) = (folder("whole"), folder("stopped"));
        let mut run = Run::new(1);
        run.train(7);
        let expected = run.save(&whole);
        for stop in 0..=7 {
            let mut before = Run::new(1);
            before.train(stop);
            before.save(&stopped);
            let mut after = Run::new(1);
            after.resume(&stopped).unwrap();
            assert_eq!(after.step, stop);
            after.train(7);
            assert!(after.save(&stopped) == expected, "stopped after {stop}");
        }
        [whole, stopped].iter().for_each(|path| std::fs::remove_dir_all(path).unwrap());
    }

    #[test]
    fn what_is_damaged_or_another_runs_is_named_and_changes_nothing() {
        let path = folder("damage");
        let mut run = Run::new(1);
        run.train(3);
        let files = run.save(&path);
        let mut other = Run::new(1);
        let before = other.save(&folder("before"));
        let said = |run: &mut Run| run.resume(&path).unwrap_err().to_string();
        for (name, bytes) in &files {
            let file = path.join(name);
            for at in (0..bytes.len()).step_by(bytes.len() / 23 + 1) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                std::fs::write(&file, &damaged).unwrap();
                let error = said(&mut other);
                assert!(error.contains(name.as_str()), "byte {at} of {name}: {error}");
            }
            for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                std::fs::write(&file, &bytes[..length]).unwrap();
                assert!(said(&mut other).contains(name.as_str()), "{length} bytes of {name}");
            }
            std::fs::remove_file(&file).unwrap();
            assert!(said(&mut other).contains(name.as_str()), "without {name}");
            std::fs::write(&file, bytes).unwrap();
        }
        let mut last = files[MODEL_FILE].clone();
        *last.last_mut().unwrap() ^= 1;
        std::fs::write(path.join(MODEL_FILE), last).unwrap();
        assert!(said(&mut other).contains("tensor `"));
        std::fs::write(path.join(MODEL_FILE), &files[MODEL_FILE]).unwrap();
        assert!(said(&mut Run::new(2)).contains("`net` of seed 1"));
        let wide = Linear::new(5, 3).unwrap();
        let mut optimizer = AdamW::new(&wide);
        let error = resume(&path, &wide, &mut optimizer, &[("net", &Generator::new(1))]).unwrap_err().to_string();
        assert!(error.contains("missing (2): weight, bias"), "{error}");
        // A model of one run beside the optimizer of another.
        let mut longer = Run::new(1);
        longer.train(4);
        let theirs = longer.save(&folder("longer"));
        std::fs::write(path.join(OPTIMIZER_FILE), &theirs[OPTIMIZER_FILE]).unwrap();
        assert!(said(&mut other).contains("another checkpoint's"));
        std::fs::write(path.join(OPTIMIZER_FILE), &files[OPTIMIZER_FILE]).unwrap();
        assert!(other.save(&folder("before")) == before, "something was changed");
        other.resume(&path).unwrap();
        assert!(other.save(&folder("before")) == files);
        [path, folder("before"), folder("longer")].iter().for_each(|path| drop(std::fs::remove_dir_all(path)));
    }

    #[test]
    fn checksums_see_every_bit() {
        let bytes: Vec<u8> = (0..37).collect();
        let sum = super::super::checksum(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(super::super::checksum(&other), sum);
        }
    }
}
