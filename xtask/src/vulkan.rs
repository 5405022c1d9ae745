//! What this machine has of Vulkan besides GPUs: drivers, the validation layer, `spirv-val`. Owns where those are
//! looked for; knows no device.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::packages::{Part, in_path};

/// Where the loader looks for manifests (`icd.d/*.json`, `explicit_layer.d/*.json`) on Linux.
const FOLDERS: &[&str] = &["/etc/vulkan", "/usr/share/vulkan", "/usr/local/etc/vulkan", "/usr/local/share/vulkan"];

/// Variables that name driver manifests directly.
const DRIVER_VARIABLES: &[&str] = &["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"];

const LAYER: &str = "VkLayer_khronos_validation.json";

/// What the tests of that device need.
pub const PARTS: [Part; 3] = [
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
