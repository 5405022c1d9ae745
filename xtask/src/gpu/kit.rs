//! What a run on a GPU needs: test executables, the bench binary, `tapeflow` and the peers' scripts, either built here
//! or in a folder that was filled on another machine. Owns how that folder is laid out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts;
use crate::bench::{self, Peers, record::Origin};

pub struct Kit {
    pub tapeflow: PathBuf,
    pub bench: PathBuf,
    /// By name.
    pub tests: Vec<(String, PathBuf)>,
    /// Of `torch_bench.py`.
    pub scripts: PathBuf,
    /// Runs it on CUDA.
    pub on_cuda: PathBuf,
    pub origin: Origin,
    /// Where the tests write, decided when they were compiled.
    scratch: PathBuf,
}

/// Which tests run on a Vulkan device: arguments of `cargo test`.
const TESTS: [&[&str]; 2] = [&["--package", "tapeflow", "--test", "vulkan"], &["--package", "tapeflow-vulkan"]];

const NOTE: &str = "kit.txt";

impl Kit {
    pub fn build() -> Result<Kit, String> {
        let mut tests = Vec::new();
        for which in TESTS {
            let found = artifacts::build(&[&["test", "--release", "--no-run"], which].concat())?;
            tests.extend(found.into_iter().filter(|a| a.is_test).map(|a| (a.name, a.path)));
        }
        let tapeflow = ["build", "--release", "--package", "tapeflow", "--bin", "tapeflow"];
        let tapeflow = artifacts::program("tapeflow", &tapeflow)?;
        // …/target/release/tapeflow
        let target = tapeflow.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default();
        Ok(Kit {
            bench: bench::build()?,
            tapeflow,
            tests,
            scripts: Peers::scripts(),
            on_cuda: Peers::on_cuda(),
            origin: Origin::here(),
            scratch: target.join("tmp"),
        })
    }

    /// Copies everything, and this program, into a folder that can be carried to a machine without cargo.
    pub fn save(&self, folder: &Path) -> Result<(), String> {
        let copy = |from: &Path, to: PathBuf| {
            let _ = fs::remove_file(&to); // an earlier one may be read-only
            fs::copy(from, &to).map(|_| to).map_err(|e| format!("{} into {}: {e}", from.display(), folder.display()))
        };
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        for folder in [folder.join("tests"), folder.join("peers")] {
            fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let programs = [(&own, "xtask"), (&self.tapeflow, "tapeflow"), (&self.bench, "tapeflow-bench")];
        let mut copied = Vec::new();
        for (from, name) in programs {
            copied.push(copy(from, folder.join(name))?);
        }
        for (name, path) in &self.tests {
            copied.push(copy(path, folder.join("tests").join(name))?);
        }
        for program in &copied {
            // Only for the size: where there is no `strip`, they stay as they are.
            let _ = Command::new("strip").arg(program).output();
        }
        copy(&self.on_cuda, folder.join("peers/torch_cuda.py"))?;
        for script in files(&self.scripts).into_iter().filter(|path| path.extension().is_some_and(|e| e == "py")) {
            copy(&script, folder.join("peers").join(script.file_name().unwrap_or_default()))?;
        }
        let Origin { commit, rustc } = &self.origin;
        let note = format!("commit {commit}\nrustc {rustc}\nscratch {}\n", self.scratch.display());
        fs::write(folder.join(NOTE), note).map_err(|e| format!("{}: {e}", folder.display()))?;
        let shown = folder.display();
        println!("{} programs in {shown}; on the other machine: {shown}/xtask gpu --prebuilt {shown}", copied.len());
        Ok(())
    }

    /// What `save` left.
    pub fn load(folder: &Path) -> Result<Kit, String> {
        let folder = &folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
        let note = fs::read_to_string(folder.join(NOTE))
            .map_err(|e| format!("{} was not filled by --build-only: {NOTE}: {e}", folder.display()))?;
        let noted = |key: &str| {
            let value = note.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            value.unwrap_or_default().to_owned()
        };
        let tests = files(&folder.join("tests"));
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Kit {
            tapeflow: folder.join("tapeflow"),
            bench: folder.join("tapeflow-bench"),
            tests: tests.into_iter().map(|path| (name(&path), path)).collect(),
            scripts: folder.join("peers"),
            on_cuda: folder.join("peers/torch_cuda.py"),
            origin: Origin { commit: noted("commit"), rustc: noted("rustc") },
            scratch: noted("scratch").into(),
        })
    }

    /// What `tapeflow devices` prints.
    pub fn list_devices(&self) -> Result<String, String> {
        let program = self.tapeflow.display();
        let output = Command::new(&self.tapeflow).arg("devices").output().map_err(|e| format!("{program}: {e}"))?;
        if !output.status.success() {
            return Err(format!("{program} devices: {}", output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes the folder that the tests write into, which cargo made where they were built.
    pub fn make_scratch(&self) {
        if let Err(e) = fs::create_dir_all(&self.scratch) {
            println!("note: tests write into {}, which cannot be made: {e}", self.scratch.display());
        }
    }
}

/// In the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_kit_is_found_again() {
        let root = std::env::temp_dir().join(format!("tapeflow-kit-{}", std::process::id()));
        let scripts = root.join("scripts");
        fs::create_dir_all(&scripts).unwrap();
        let file = |name: &str| {
            fs::write(root.join(name), name).unwrap();
            root.join(name)
        };
        fs::write(scripts.join("torch_bench.py"), "").unwrap();
        let kit = Kit {
            tapeflow: file("t"),
            bench: file("b"),
            tests: vec![("vulkan".into(), file("v-123")), ("memory".into(), file("m-123"))],
            scripts,
            on_cuda: file("torch_cuda.py"),
            origin: Origin { commit: "abc and uncommitted changes".into(), rustc: "rustc 1".into() },
            scratch: root.join("tmp"),
        };
        kit.save(&root.join("kit")).unwrap();
        let found = Kit::load(&root.join("kit")).unwrap();
        assert_eq!(found.tests.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["memory", "vulkan"]);
        assert_eq!(found.origin.commit, kit.origin.commit);
        assert_eq!(found.scratch, kit.scratch);
        assert!(found.scripts.join("torch_bench.py").exists() && found.on_cuda.exists() && found.bench.exists());
        assert!(Kit::load(&root).is_err());
        fs::remove_dir_all(&root).unwrap();
    }
}
