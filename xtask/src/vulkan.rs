//! What this machine has of Vulkan besides GPUs: drivers, the validation layer, `spirv-val`. Owns where those are
//! looked for and how the missing are installed; knows no device.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the loader looks for manifests (`icd.d/*.json`, `explicit_layer.d/*.json`) on Linux.
const FOLDERS: &[&str] = &["/etc/vulkan", "/usr/share/vulkan", "/usr/local/etc/vulkan", "/usr/local/share/vulkan"];

/// Variables that name driver manifests directly.
const DRIVER_VARIABLES: &[&str] = &["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"];

const LAYER: &str = "VkLayer_khronos_validation.json";

/// A part that tests need, the Debian package that has it, and whether it is there.
type Part = (&'static str, &'static str, fn() -> bool);

const PARTS: [Part; 3] = [
    ("a Vulkan driver", "mesa-vulkan-drivers", has_driver),
    ("the validation layer", "vulkan-validationlayers", has_layer),
    ("spirv-val", "spirv-tools", || in_path("spirv-val")),
];

fn has_driver() -> bool {
    let named = DRIVER_VARIABLES.iter().filter_map(std::env::var_os);
    named.flat_map(|list| std::env::split_paths(&list).collect::<Vec<_>>()).any(|path| path.exists())
        || FOLDERS.iter().any(|folder| !manifests(&Path::new(folder).join("icd.d")).is_empty())
}

/// Whether the validation layer is installed.
pub fn has_layer() -> bool {
    let own = std::env::var_os("VK_LAYER_PATH").map(|list| std::env::split_paths(&list).collect::<Vec<_>>());
    let folders = FOLDERS.iter().map(|folder| Path::new(folder).join("explicit_layer.d"));
    own.unwrap_or_default().into_iter().chain(folders).any(|folder| folder.join(LAYER).exists())
}

/// A command that runs tests, with the validation layer if there is one.
pub fn validated(mut command: Command) -> Command {
    if has_layer() {
        command.env("TAPEFLOW_VALIDATE", "1");
    }
    command
}

/// Installs what is missing, where that is possible without asking anybody; what goes wrong is told and does no harm.
pub fn install_missing() {
    let missing: Vec<Part> = PARTS.into_iter().filter(|(_, _, is_there)| !is_there()).collect();
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
        println!("note: they cannot be installed, so tests go without: {why}{updated}");
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

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The manifests in a folder, none if there is no such folder.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json")).collect()
}

#[cfg(test)]
mod tests {
    use super::manifests;

    #[test]
    fn only_json_files_are_manifests() {
        let folder = std::env::temp_dir().join(format!("tapeflow-manifests-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(manifests(&folder).is_empty());
        std::fs::write(folder.join("lvp_icd.json"), "{}").unwrap();
        std::fs::write(folder.join("README"), "").unwrap();
        assert_eq!(manifests(&folder), [folder.join("lvp_icd.json")]);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(manifests(&folder).is_empty());
    }
}
