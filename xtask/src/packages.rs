//! Programs and libraries of the system that checks use, and how the missing are installed where that is possible.
//! Knows not what they are for.

use std::process::{Command, Stdio};

/// A part that checks use, the Debian package that has it, and whether it is there.
pub type Part = (&'static str, &'static str, fn() -> bool);

/// Installs what is missing, where that is possible without asking anybody; what goes wrong is told and does no harm.
pub fn install_missing(parts: impl IntoIterator<Item = Part>) {
    let missing: Vec<Part> = parts.into_iter().filter(|(_, _, is_there)| !is_there()).collect();
    if missing.is_empty() {
        return;
    }
    let what = missing.iter().map(|(what, ..)| *what).collect::<Vec<_>>().join(", ");
    let packages: Vec<&str> = missing.iter().map(|&(_, package, _)| package).collect();
    let Some(mut apt) = apt_get() else {
        println!("note: {what} missing, and nothing may be installed here (Debian: {})", packages.join(" "));
        return;
    };
    println!("installing {} ({what} missing)", packages.join(" "));
    let mut step = |arguments: &[&str]| -> Result<(), String> {
        let output = apt(arguments).output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said.trim().to_owned()) }
    };
    // An update that fails in part may still leave what is needed.
    let updated = step(&["update", "-qq"]);
    let options = ["install", "-y", "-qq", "--no-install-recommends"];
    if let Err(why) = step(&[&options[..], &packages].concat()) {
        let updated = updated.err().map(|e| format!("\n{e}")).unwrap_or_default();
        println!("note: they cannot be installed, so the checks go without: {why}{updated}");
    }
}

/// `apt-get` with arguments, quiet and patient for seconds only; `None` where this process may not use it.
fn apt_get() -> Option<impl FnMut(&[&str]) -> Command> {
    let forbidden = std::env::var_os("TAPEFLOW_NO_INSTALL").is_some_and(|v| !v.is_empty() && v != "0");
    if forbidden || !cfg!(target_os = "linux") || !in_path("apt-get") {
        return None;
    }
    let is_root = said("id", &["-u"]).is_some_and(|id| id.trim() == "0");
    if !is_root && said("sudo", &["-n", "true"]).is_none() {
        return None;
    }
    Some(move |arguments: &[&str]| {
        let mut command = Command::new(if is_root { "env" } else { "sudo" });
        command.args(if is_root { &[][..] } else { &["-n", "env"] });
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command.args(["-oAcquire::Retries=1", "-oAcquire::http::Timeout=20", "-oDPkg::Lock::Timeout=60"]);
        command.args(arguments).stdin(Stdio::null());
        command
    })
}

/// What a command prints, if it succeeds.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program of this name is found.
pub fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
