//! The programs that measure: ours, and PyTorch's variants with the heap settings that suit it best.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Args;
use crate::process::cargo;

/// Keeps the heap and uses huge pages: without it large temporaries cost PyTorch page faults on every call.
const TUNED_HEAP: &str = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:\
                          glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456";

pub struct System {
    pub name: String,
    program: PathBuf,
    /// What comes before the workload's name.
    before: Vec<String>,
    /// What comes after the common options.
    after: &'static [&'static str],
    environment: Option<(&'static str, &'static str)>,
}

impl System {
    /// All that are to measure `workload`, ours first.
    pub fn all(binary: &Path, python: Option<&str>, workload: &str) -> Vec<System> {
        let ours = "tapeflow".to_owned();
        let mut all =
            vec![System { name: ours, program: binary.into(), before: Vec::new(), after: &[], environment: None }];
        let script = crate::shared().join("bench/peers/torch_bench.py");
        let convolves = workload.starts_with("cnn") || workload.starts_with("resnet");
        let variants: &[&[&str]] = match convolves {
            true => &[&[], &["--channels-last"], &["--compile"], &["--compile", "--channels-last"]],
            false => &[&[], &["--compile"]],
        };
        for &after in variants.iter().filter(|_| python.is_some()) {
            all.push(System {
                name: format!("torch {}", after.join(" ")).trim_end().to_owned(),
                program: python.unwrap_or_default().into(),
                before: vec!["-B".to_owned(), script.to_string_lossy().into_owned()],
                after,
                environment: Some(("GLIBC_TUNABLES", TUNED_HEAP)),
            });
        }
        all
    }

    pub fn is_ours(&self) -> bool {
        self.before.is_empty()
    }

    /// What it prints. A peer that fails is left out; ours must not fail.
    pub fn measure(&self, workload: &str, threads: usize, args: &Args) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.before).arg(workload);
        command.args(["--threads", &threads.to_string(), "--iters", &args.iters.to_string()]);
        command.args(["--seconds", &args.seconds.to_string(), "--max-seconds", &args.max_seconds.to_string()]);
        command.args(["--warmup", &args.warmup.to_string()]).args(self.after).envs(self.environment);
        if self.is_ours() {
            command.stderr(Stdio::inherit());
        }
        let output = command.output().map_err(|e| format!("{}: {e}", self.program.display()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = format!("{}: {}\n{}", self.name, output.status, String::from_utf8_lossy(&output.stderr));
        if self.is_ours() {
            return Err(message);
        }
        eprintln!("{message}");
        Ok(String::new())
    }
}

/// Builds the bench binary; gives its path.
pub fn build() -> Result<PathBuf, String> {
    let arguments = ["build", "--release", "--package", "tapeflow-bench", "--message-format=json-render-diagnostics"];
    let output = cargo(arguments).stderr(Stdio::inherit()).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err("tapeflow-bench does not build".to_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let paths = messages.lines().filter(|line| line.contains("\"name\":\"tapeflow-bench\""));
    let mut path =
        paths.filter_map(|line| line.split_once("\"executable\":\"")?.1.split_once('"')).map(|(path, _)| path);
    path.next_back()
        .map(|path| PathBuf::from(path.replace("\\\\", "\\")))
        .ok_or_else(|| "cargo names no binary".to_owned())
}

/// The names the bench binary knows.
pub fn workloads(binary: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(binary).output().map_err(|e| format!("{}: {e}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().skip(1).map(str::to_owned).collect())
}
