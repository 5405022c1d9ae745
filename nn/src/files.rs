//! Files that are either complete or not there, and folders for runs.
//!
//! Whoever reads a name that these functions wrote sees the old contents or the new ones, never a part: contents go
//! under another name in the same folder, are synced, and are renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Writes `bytes` to `path` such that a crash leaves either the old file or the new one.
///
/// # Errors
/// [`Error::File`] naming the step that failed; the file is then as it was before.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = beside(path);
    let written = (|| {
        let mut file = File::create_new(&temporary).map_err(Error::file("create", &temporary))?;
        file.write_all(bytes).map_err(Error::file("write", &temporary))?;
        file.sync_all().map_err(Error::file("sync", &temporary))?;
        fs::rename(&temporary, path).map_err(Error::file("rename a finished file to", path))
    })();
    if written.is_err() {
        // The error that matters is the one above; a leftover is harmless.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder(path)
}

/// Fills a folder by `fill`, which gets an empty folder under another name, and renames it to `path` when all is
/// written.
///
/// A folder that stood at `path` is replaced; until the rename it is untouched.
///
/// # Errors
/// Whatever `fill` returns, or [`Error::File`]; the folder at `path` is then as it was before.
pub fn write_folder_atomically(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = beside(path);
    let written = (|| {
        fs::create_dir_all(&temporary).map_err(Error::file("create", &temporary))?;
        fill(&temporary)?;
        sync(&temporary)?;
        replace_folder(&temporary, path)
    })();
    if written.is_err() {
        // As above.
        let _ = fs::remove_dir_all(&temporary);
        return written;
    }
    sync_folder(path)
}

/// Removes a folder such that nobody finds a part of it under its name.
///
/// # Errors
/// [`Error::File`] if it cannot be renamed or removed.
pub fn remove_folder(path: &Path) -> Result<()> {
    let aside = beside(path);
    fs::rename(path, &aside).map_err(Error::file("move aside", path))?;
    fs::remove_dir_all(&aside).map_err(Error::file("remove", &aside))
}

/// Whether the name is one under which something was being written or removed.
pub fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Lets the link `link` lead to `target`, in one step; on systems other than Unix nothing is done.
///
/// # Errors
/// [`Error::File`] if it cannot be made, such as where something that is no link stands under its name.
pub fn point_to(link: &Path, target: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let temporary = beside(link);
        std::os::unix::fs::symlink(target, &temporary).map_err(Error::file("create", &temporary))?;
        if let Err(e) = fs::rename(&temporary, link) {
            // As above.
            let _ = fs::remove_file(&temporary);
            return Err(Error::file("replace the link", link)(e));
        }
        sync_folder(link)?;
    }
    #[cfg(not(unix))]
    let _ = (link, target);
    Ok(())
}

/// Creates the first of `base`, `base-2`, `base-3`, … that is not there yet, and returns it.
///
/// # Errors
/// [`Error::File`] if it cannot be created.
pub fn fresh_run_dir(base: impl AsRef<Path>) -> Result<PathBuf> {
    let base = base.as_ref();
    if let Some(parent) = base.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    let mut number = 1u64;
    loop {
        let mut name = OsString::from(base);
        if number > 1 {
            name.push(format!("-{number}"));
        }
        let candidate = PathBuf::from(name);
        match fs::create_dir(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(Error::file("create", &candidate)(e)),
        }
    }
}

/// A folder cannot be renamed onto one that holds something, so the old one steps aside first.
fn replace_folder(new: &Path, path: &Path) -> Result<()> {
    if !path.exists() {
        return fs::rename(new, path).map_err(Error::file("rename a finished folder to", path));
    }
    let old = beside(path);
    fs::rename(path, &old).map_err(Error::file("move aside", path))?;
    if let Err(e) = fs::rename(new, path) {
        // Put back what was there; if that fails too, it still lies beside under its other name.
        let _ = fs::rename(&old, path);
        return Err(Error::file("rename a finished folder to", path)(e));
    }
    fs::remove_dir_all(&old).map_err(Error::file("remove", &old))
}

/// How names end that are not for readers.
const TEMPORARY: &str = ".tmp";

/// A name in the same folder that nobody else uses: the process and a count are in it.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{count}{TEMPORARY}", std::process::id()));
    path.with_file_name(name)
}

/// Syncs the folder that holds `path`, so that the rename itself survives a crash.
fn sync_folder(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

/// Folders can be synced on Unix only; elsewhere the system orders renames itself.
fn sync(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(Error::file("sync", folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tapeflow-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_behind() {
        let folder = folder("file");
        let path = folder.join("a.txt");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(write_atomically(&folder.join("no/such/folder"), b"").is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_filled_leaves_the_old_one() {
        let folder = folder("folder");
        let path = folder.join("checkpoint");
        write_folder_atomically(&path, |p| write_atomically(&p.join("a"), b"1")).unwrap();
        let failed = write_folder_atomically(&path, |p| {
            write_atomically(&p.join("a"), b"2")?;
            Err(Error::Configuration("no".into()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
        write_folder_atomically(&path, |p| write_atomically(&p.join("b"), b"3")).unwrap();
        assert!(!path.join("a").exists());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn runs_are_numbered() {
        let folder = folder("runs");
        let base = folder.join("deep/gpt");
        let names: Vec<_> = (0..3).map(|_| fresh_run_dir(&base).unwrap()).collect();
        assert_eq!(names, [folder.join("deep/gpt"), folder.join("deep/gpt-2"), folder.join("deep/gpt-3")]);
        fs::remove_dir_all(folder).unwrap();
    }
}
