//! The programs that measure: ours on its devices, and PyTorch's variants with the heap settings that suit it best.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Timing;

/// Keeps the heap and uses huge pages: without it large temporaries cost PyTorch page faults on every call.
const TUNED_HEAP: &str = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:\
                          glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456";

pub struct System {
    pub name: String,
    program: PathBuf,
    /// What comes before the workload's name.
    before: Vec<String>,
    /// What comes after the common options.
    after: Vec<String>,
    environment: Option<(&'static str, &'static str)>,
}

impl System {
    /// The bench binary on one of its devices.
    pub fn ours(binary: &Path, device: &str) -> System {
        System {
            name: format!("tapeflow on {device}"),
            program: binary.into(),
            before: Vec::new(),
            after: vec!["--device".to_owned(), device.to_owned()],
            environment: None,
        }
    }

    pub fn is_ours(&self) -> bool {
        self.before.is_empty()
    }

    /// What its lines don't say of it: a layout of images is a variant of its own.
    pub fn variant(&self) -> Option<&'static str> {
        self.after.iter().any(|word| word == "--channels-last").then_some("-channels-last")
    }

    /// What it prints. A peer that fails is left out; ours must not fail.
    pub fn measure(&self, workload: &str, threads: usize, timing: &Timing) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.before).arg(workload);
        command.args(["--threads", &threads.to_string(), "--iters", &timing.iters.to_string()]);
        command.args(["--seconds", &timing.seconds.to_string(), "--max-seconds", &timing.max_seconds.to_string()]);
        command.args(["--warmup", &timing.warmup.to_string()]).args(&self.after).envs(self.environment);
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

/// PyTorch and the scripts that measure it.
pub struct Peers {
    python: String,
    /// Of `torch_bench.py`.
    scripts: PathBuf,
    /// Runs it on a CUDA device.
    on_cuda: PathBuf,
    /// What the CUDA device is called, if PyTorch has one.
    pub cuda: Option<String>,
}

impl Peers {
    /// Where the script lies that runs those of the peers on CUDA.
    pub fn on_cuda() -> PathBuf {
        crate::root().join("benches/peers/torch_cuda.py")
    }

    /// Where the peers' scripts lie.
    pub fn scripts() -> PathBuf {
        crate::shared().join("bench/peers")
    }

    /// Asks the interpreter what it has.
    pub fn find(python: &str, scripts: PathBuf, on_cuda: PathBuf) -> Result<Peers, String> {
        let question = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')";
        let output = Command::new(python).args(["-c", question]).output().map_err(|e| format!("{python}: {e}"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{python} has no PyTorch: {}", why.lines().next_back().unwrap_or_default()));
        }
        if !scripts.join("torch_bench.py").exists() {
            return Err(format!("{} has no torch_bench.py", scripts.display()));
        }
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Peers { python: python.to_owned(), scripts, on_cuda, cuda: Some(name).filter(|name| !name.is_empty()) })
    }

    /// Its variants that run where ours does: on the CPU, on CUDA beside any other device. Without CUDA, on the CPU.
    pub fn systems(&self, workload: &str, devices: &[String]) -> Vec<System> {
        let convolves = workload.starts_with("cnn") || workload.starts_with("resnet");
        let variants: &[&[&str]] = match convolves {
            true => &[&[], &["--channels-last"], &["--compile"], &["--compile", "--channels-last"]],
            false => &[&[], &["--compile"]],
        };
        let script = self.scripts.join("torch_bench.py").to_string_lossy().into_owned();
        let on_cuda = self.on_cuda.to_string_lossy().into_owned();
        let system = |name: &str, before: Vec<String>, after: &[&str]| System {
            name: format!("torch {name} {}", after.join(" ")).trim_end().to_owned(),
            program: self.python.as_str().into(),
            before: [vec!["-B".to_owned()], before].concat(),
            after: after.iter().map(|&word| word.to_owned()).collect(),
            environment: Some(("GLIBC_TUNABLES", TUNED_HEAP)),
        };
        let mut all = Vec::new();
        if self.cuda.is_none() || devices.iter().any(|device| device == "cpu") {
            all.extend(variants.iter().map(|after| system("on the CPU", vec![script.clone()], after)));
        }
        if self.cuda.is_some() && devices.iter().any(|device| device != "cpu") {
            let before = || vec![on_cuda.clone(), script.clone()];
            all.extend(variants.iter().map(|after| system("on CUDA", before(), after)));
        }
        all
    }
}

/// Builds the bench binary; gives its path.
pub fn build() -> Result<PathBuf, String> {
    crate::artifacts::program("tapeflow-bench", &["build", "--release", "--package", "tapeflow-bench"])
}

/// The names the bench binary knows.
pub fn workloads(binary: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(binary).output().map_err(|e| format!("{}: {e}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().skip(1).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_run_where_ours_does() {
        let peers = |cuda: Option<&str>| Peers {
            python: "python3".into(),
            scripts: "s".into(),
            on_cuda: "c".into(),
            cuda: cuda.map(str::to_owned),
        };
        let names = |cuda, devices: &[&str]| -> Vec<String> {
            let devices: Vec<String> = devices.iter().map(|d| d.to_string()).collect();
            peers(cuda).systems("gpt_cpu_train", &devices).into_iter().map(|system| system.name).collect()
        };
        let (cpu, cuda) =
            (["torch on the CPU", "torch on the CPU --compile"], ["torch on CUDA", "torch on CUDA --compile"]);
        assert_eq!(names(Some("a GPU"), &["cpu"]), cpu);
        assert_eq!(names(Some("a GPU"), &["vulkan:0"]), cuda);
        assert_eq!(names(Some("a GPU"), &["cpu", "vulkan:0"]), [cpu, cuda].concat());
        assert_eq!(names(None, &["vulkan:0"]), cpu);
    }
}
