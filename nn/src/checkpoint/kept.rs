//! A run's checkpoints: one folder per step, of which the last few are kept.
//!
//! Owns their names and their order; what is in one is its writer's business. At every moment, also when the process is
//! killed, each folder under a step's name is complete, and once one was saved there is one.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{is_leftover, point_to, remove_folder, write_folder_atomically};

/// The checkpoints of one run, `step-00000120` by `step-00000180`, in a folder of their own.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    link: Option<PathBuf>,
}

impl Checkpoints {
    /// In `folder`, which is made when the first is saved; the last `keep` are kept, at least one.
    pub fn new(folder: impl Into<PathBuf>, keep: usize) -> Self {
        Checkpoints { folder: folder.into(), keep: keep.max(1), link: None }
    }

    /// With a link beside the folder that leads to the newest, on systems that have such links.
    pub fn link(mut self, name: &str) -> Self {
        self.link = Some(self.folder.with_file_name(name));
        self
    }

    /// The folder that they are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Saves the checkpoint of `step`, which `fill` writes into a folder it is given, and removes what is too old.
    ///
    /// # Errors
    /// What `fill` returns, or [`Error::File`]; the older checkpoints are then there as before.
    pub fn save(&self, step: u64, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.folder).map_err(Error::file("create", &self.folder))?;
        let name = format!("{PREFIX}{step:08}");
        let path = self.folder.join(&name);
        write_folder_atomically(&path, fill)?;
        if let (Some(link), Some(folder)) = (&self.link, self.folder.file_name()) {
            point_to(link, &Path::new(folder).join(&name))?;
        }
        self.remove_old(step)?;
        Ok(path)
    }

    /// Keeps that of `step`, and of the others the newest.
    fn remove_old(&self, step: u64) -> Result<()> {
        let all = self.list()?;
        let others = all.iter().filter(|(other, _)| *other != step);
        others.rev().skip(self.keep - 1).try_for_each(|(_, path)| remove_folder(path))
    }

    /// The complete ones by step, from the oldest.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be read; one that is not there has none.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let read = |e| Error::file("read", &self.folder)(e);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|step| step.parse().ok());
            found.extend(step.map(|step| (step, entry.path())));
        }
        found.sort();
        Ok(found)
    }

    /// The newest.
    ///
    /// # Errors
    /// As [`list`](Checkpoints::list).
    pub fn newest(&self) -> Result<Option<(u64, PathBuf)>> {
        Ok(self.list()?.pop())
    }

    /// Removes what a process that was killed did not finish, or did not come to remove. Nobody else may be saving at
    /// the time.
    ///
    /// # Errors
    /// [`Error::File`] if something cannot be removed.
    pub fn clean(&self) -> Result<()> {
        let read = |e| Error::file("read", &self.folder)(e);
        if !self.folder.exists() {
            return Ok(());
        }
        for entry in std::fs::read_dir(&self.folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if is_leftover(&path) {
                std::fs::remove_dir_all(&path).map_err(Error::file("remove", &path))?;
            }
        }
        self.newest()?.map_or(Ok(()), |(step, _)| self.remove_old(step))
    }
}

const PREFIX: &str = "step-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_atomically;

    #[test]
    fn the_last_few_are_kept_and_the_link_leads_to_the_newest() {
        let root = std::env::temp_dir().join(format!("tapeflow-kept-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let kept = Checkpoints::new(root.join("all"), 2).link("last");
        assert_eq!(kept.newest().unwrap(), None);
        for step in [3, 20, 100] {
            kept.save(step, |folder| write_atomically(&folder.join("a"), &[step as u8])).unwrap();
        }
        let steps = || kept.list().unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        assert_eq!(steps(), [20, 100]);
        if cfg!(unix) {
            assert_eq!(std::fs::read(root.join("last/a")).unwrap(), [100]);
        }
        // One that fails leaves what was there, and nothing of itself; one of an older step than all others is kept.
        assert!(kept.save(120, |_| Err(Error::Configuration("no".into()))).is_err());
        assert_eq!(steps(), [20, 100]);
        kept.save(7, |folder| write_atomically(&folder.join("a"), b"7")).unwrap();
        assert_eq!(steps(), [7, 100]);
        std::fs::create_dir(root.join("all/.step-00000130.1-1.tmp")).unwrap();
        assert_eq!(steps(), [7, 100]);
        std::fs::create_dir(root.join("all/step-00000101")).unwrap();
        kept.clean().unwrap();
        assert_eq!((steps(), std::fs::read_dir(root.join("all")).unwrap().count()), (vec![100, 101], 2));
        std::fs::remove_dir_all(root).unwrap();
    }
}
