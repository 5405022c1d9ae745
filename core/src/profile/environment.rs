//! `TAPEFLOW_PROFILE=trace.json`: the whole process is recorded, and the trace is written when it ends. Owns the
//! variable and the hook at the end; knows not what a trace looks like.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{CURRENT, Profiler};
use crate::locks;

const VARIABLE: &str = "TAPEFLOW_PROFILE";
const EVENTS: &str = "TAPEFLOW_PROFILE_EVENTS";

/// Where the trace goes, and what records it.
static AT_EXIT: OnceLock<(PathBuf, Profiler)> = OnceLock::new();

/// The file that the environment names, if it can be written.
pub(super) fn wanted() -> Result<Option<PathBuf>, String> {
    let Some(path) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else { return Ok(None) };
    let said = PathBuf::from(&path);
    let refused = |e: io::Error| format!("{VARIABLE}={}: a trace cannot be written there: {e}", said.display());
    // The process may go to another folder meanwhile.
    let path = std::path::absolute(path).map_err(refused)?;
    check(&path).map_err(refused)?;
    Ok(Some(path))
}

/// Events to keep, at most.
pub(super) fn most_events() -> usize {
    let Ok(text) = std::env::var(EVENTS) else { return super::store::MOST_EVENTS };
    text.trim().parse().unwrap_or_else(|_| {
        tracing::warn!("{EVENTS} is {text:?}, not a number of events; keeping {}", super::store::MOST_EVENTS);
        super::store::MOST_EVENTS
    })
}

/// Writes the trace when the process ends: by returning from `main`, by a panic there or by `exit`; not if it is killed
/// or aborts.
pub(super) fn write_at_exit(path: PathBuf, profiler: Profiler) -> Result<(), String> {
    if AT_EXIT.set((path, profiler)).is_err() {
        return Ok(());
    }
    // SAFETY: the function stays loaded as long as the process, and catches its panics.
    match unsafe { libc::atexit(at_exit) } {
        0 => Ok(()),
        _ => Err(format!("{VARIABLE}: the system takes no more functions to be called at the end")),
    }
}

extern "C" fn at_exit() {
    let written = catch_unwind(|| {
        let Some((path, profiler)) = AT_EXIT.get() else { return };
        let profile = profiler.so_far();
        match profile.write_trace(path) {
            Ok(()) => {
                eprintln!("tapeflow: {} events written to {}{}", profile.events(), path.display(), profile.lost())
            }
            Err(e) => eprintln!("tapeflow: the trace could not be written to {}: {e}", path.display()),
        }
    });
    // Unwinding out of a function of C would abort.
    drop(written);
}

fn check(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    let probe = beside(path)?;
    File::create(&probe)?;
    fs::remove_file(&probe)
}

/// A name in the same folder that nobody else uses.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    let mut hidden = OsStr::new(".").to_owned();
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(hidden))
}

/// Writes a file under another name and renames it: whoever looks finds a whole one or none.
pub(super) fn write_whole(path: &Path, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    let temporary = beside(path)?;
    let result = (|| {
        let mut file = io::BufWriter::new(File::create(&temporary)?);
        write(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if result.is_err() {
        // The error that is reported came first.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Reads the environment, once.
pub(super) fn begin() -> Result<(), String> {
    static BEGUN: OnceLock<Result<(), String>> = OnceLock::new();
    let begin = || match wanted()? {
        Some(path) => write_at_exit(path, Profiler::start()),
        None => Ok(()),
    };
    let outcome = BEGUN.get_or_init(begin).clone();
    if outcome.is_ok() {
        let mut current = locks::lock(&CURRENT);
        current.know_environment();
    }
    outcome
}
