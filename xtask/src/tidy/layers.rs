//! Who may know whom: the crates' dependencies, and names that must not appear in a layer.

use std::path::Path;

use super::Finding;
use super::source::{Source, words};

/// Which crates of the workspace each may depend on (tests excepted).
const MAY_USE: &[(&str, &[&str])] = &[
    ("ir", &[]),
    ("macros", &[]),
    ("core", &["tapeflow-ir", "tapeflow-macros"]),
    ("vulkan", &["tapeflow-ir", "tapeflow-core"]),
    ("nn", &["tapeflow-core", "tapeflow-macros"]),
    ("models", &["tapeflow-core", "tapeflow-macros", "tapeflow-nn"]),
];

/// Identifiers, or their beginnings, that a layer's code must not contain, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("core", &["vulkan", "Vulkan", "vulkano"], "`core` knows no Vulkan"),
    ("nn", &["NodeId", "World", "Column", "LiveRange"], "`nn` sees no node and no column"),
    ("models", &["NodeId", "World", "Column", "LiveRange"], "`models` sees no node and no column"),
    ("ir", &["Tensor"], "`ir` knows no tensors"),
];

/// What a folder's code must not contain, and why; `mod.rs` excepted, which drives the passes.
const UNREACHABLE: &[(&str, &[&str], &str)] =
    &[("core/src/compile/", &["crate::pool", ".run("], "a pass never runs a kernel")];

/// Modules of `core` that the layers above must not reach into.
const PRIVATE_TO_CORE: &[&str] = &["compile", "world", "tape", "program", "pool", "cpu", "passes"];

pub fn names(source: &Source) -> Vec<Finding> {
    source.find(|_, line| {
        let package = source.package();
        let code = line.code.as_str();
        if package != "vulkan" && package != "xtask" && words(code).any(|word| word.starts_with("vulkano")) {
            return Some("only `vulkan` names vulkano".to_owned());
        }
        let rows = FORBIDDEN.iter().filter(|(layer, ..)| *layer == package);
        for (_, names, why) in rows {
            if let Some(word) = words(code).find(|word| names.iter().any(|name| word.starts_with(name))) {
                return Some(format!("`{word}`: {why}"));
            }
        }
        let rows = UNREACHABLE.iter().filter(|(folder, ..)| in_folder(source, folder) && !line.test);
        for (_, paths, why) in rows {
            if let Some(path) = paths.iter().find(|path| code.contains(**path)) {
                return Some(format!("`{path}`: {why}"));
            }
        }
        let above = ["nn", "models", "examples", "benches"].contains(&package);
        let module = PRIVATE_TO_CORE.iter().find(|module| code.contains(&format!("tapeflow_core::{module}")));
        module.filter(|_| above).map(|module| format!("`{package}` reaches into core's `{module}`"))
    })
}

fn in_folder(source: &Source, folder: &str) -> bool {
    source.path.strip_prefix(folder).is_some_and(|rest| rest != "mod.rs")
}

/// Checks every crate's `Cargo.toml`.
pub fn manifests(root: &Path) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for (package, _) in MAY_USE {
        let path = format!("{package}/Cargo.toml");
        if let Ok(text) = std::fs::read_to_string(root.join(&path)) {
            findings.extend(manifest(package, &path, &text));
        } else if *package != "vulkan" {
            return Err(format!("{path} cannot be read"));
        }
    }
    Ok(findings)
}

fn manifest(package: &str, path: &str, text: &str) -> Vec<Finding> {
    let allowed = MAY_USE.iter().find(|(name, _)| *name == package).map_or(&[][..], |(_, allowed)| allowed);
    let mut findings = Vec::new();
    let mut section = "";
    for (i, line) in text.lines().enumerate().map(|(i, line)| (i, line.trim())) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let ships = section.contains("dependencies") && !section.contains("dev-dependencies");
        // `name = …`, `name.workspace = true` and `[dependencies.name]` all name a dependency.
        let name = match section.rsplit_once("dependencies.") {
            Some((_, name)) if line.starts_with('[') => name,
            _ if line.starts_with(['[', '#']) || line.is_empty() => continue,
            Some(_) => continue,
            None => line.split(['=', '.']).next().unwrap_or_default().trim(),
        };
        if !ships {
            continue;
        }
        let what = if package == "ir" {
            format!("`ir` has no dependencies, but `{name}`")
        } else if name.starts_with("tapeflow") && !allowed.contains(&name) {
            format!("`{package}` must not depend on `{name}`")
        } else if name.starts_with("vulkano") && package != "vulkan" {
            "only `vulkan` names vulkano".to_owned()
        } else {
            continue;
        };
        findings.push(Finding { path: path.to_owned(), line: i + 1, what });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn names_stay_in_their_layer() {
        assert_eq!(check(names, "core/src/a.rs", "use vulkano::device;"), ["1: only `vulkan` names vulkano"]);
        assert_eq!(check(names, "core/src/a.rs", "enum D { Vulkan }"), ["1: `Vulkan`: `core` knows no Vulkan"]);
        assert_eq!(check(names, "nn/src/a.rs", "fn a(n: NodeId) {}").len(), 1);
        assert_eq!(check(names, "nn/src/a.rs", "use tapeflow_core::compile::fuse;").len(), 1);
        assert_eq!(check(names, "core/src/compile/fuse.rs", "use crate::pool::Pool;").len(), 1);
        assert!(check(names, "vulkan/src/a.rs", "use vulkano::device;").is_empty());
        assert!(check(names, "core/src/a.rs", "// Vulkan is another crate's\nuse tapeflow_core::compile;").is_empty());
    }

    #[test]
    fn dependencies_follow_the_layers() {
        let found = |package: &str, text: &str| manifest(package, "Cargo.toml", text).len();
        assert_eq!(found("ir", "[dependencies]\nsmallvec = \"1\""), 1);
        assert_eq!(found("ir", "[package]\nname = \"x\"\n[dependencies]\n"), 0);
        assert_eq!(found("ir", "[dev-dependencies]\nproptest = \"1\""), 0);
        assert_eq!(found("core", "[dependencies]\ntapeflow-nn.workspace = true"), 1);
        assert_eq!(found("core", "[dependencies.tapeflow-nn]\nworkspace = true"), 1);
        assert_eq!(found("nn", "[dependencies]\ntapeflow-core.workspace = true\nserde.workspace = true"), 0);
        assert_eq!(found("nn", "[target.'cfg(unix)'.dependencies]\nvulkano = \"1\""), 1);
    }
}
