//! `cargo xtask gpu`: all that a machine with a GPU is for, in one go: the devices, the Vulkan tests, the bench on the
//! GPU, PyTorch's GPT step on the same GPU, the record. Owns the order and the report; works without cargo, too.

mod devices;
mod kit;

use std::path::PathBuf;
use std::process::Command;

use crate::bench::{self, Peers, Row, Table, Timing};
use crate::process::{self, Counts};
use crate::vulkan;
use kit::Kit;

/// Measured where no workloads are named.
const WORKLOADS: &[&str] =
    &["sgemm_*", "op_*", "mlp_train", "xor_train", "gpt_cpu_train", "step_overhead", "gpt_baby_*"];

/// Those of them that PyTorch is to measure, too; of workloads that are named, all.
const PEERED: &str = "gpt_baby_";

#[derive(clap::Args)]
pub struct Args {
    /// Workloads instead of the usual ones; a name ending in `*` matches a prefix.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The Vulkan device to measure; without it the best that is no processor.
    #[arg(long)]
    device: Option<String>,
    /// An interpreter that has torch: PyTorch measures the GPT steps (or the workloads named) in the same rounds.
    #[arg(long, value_name = "PYTHON")]
    peers: Option<String>,
    /// Append what was measured to this file, `benches/RECORD.md` if none is named.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    record: Option<Option<PathBuf>>,
    /// A line for the record: what this measurement is about.
    #[arg(long, value_name = "TEXT", requires = "record")]
    note: Option<String>,
    /// Only fill a folder with all that is needed, for a machine that has no cargo.
    #[arg(long, value_name = "DIR")]
    build_only: Option<PathBuf>,
    /// Use a folder that was filled by `--build-only`; builds nothing.
    #[arg(long, value_name = "DIR", conflicts_with = "build_only")]
    prebuilt: Option<PathBuf>,
    /// Measure without testing.
    #[arg(long)]
    skip_tests: bool,
    /// Test without measuring.
    #[arg(long, conflicts_with_all = ["peers", "record", "names"])]
    skip_bench: bool,
    #[command(flatten)]
    timing: Timing,
}

pub fn run(args: &Args) -> Result<(), String> {
    if let Some(folder) = &args.build_only {
        return Kit::build()?.save(folder);
    }
    let kit = match &args.prebuilt {
        Some(folder) => Kit::load(folder)?,
        None => Kit::build()?,
    };
    let listing = kit.list_devices()?;
    print!("== devices\n{listing}");
    let device = devices::choose(&devices::read(&listing), args.device.as_deref())?;
    println!("chosen: {}, {}", device.name, device.description);
    let peers = match &args.peers {
        Some(python) => Some(Peers::find(python, kit.scripts.clone(), kit.on_cuda.clone())?),
        None => None,
    };
    if let Some(peers) = &peers {
        match &peers.cuda {
            Some(name) => println!("PyTorch runs on CUDA: {name}"),
            None => println!("this PyTorch has no CUDA: it runs on the CPU, which is compared with nothing here"),
        }
    }
    let mut failures = Vec::new();
    if !args.skip_tests {
        failures.extend(test(&kit, &device.name));
    }
    if !args.skip_bench {
        let (rows, failed) = measure(args, &kit, device.name, peers.as_ref())?;
        failures.extend(failed);
        print!("\n== bench\n{}", Table(&rows, None));
        if let Some(path) = args.record.as_ref().filter(|_| !rows.is_empty()) {
            let path = path.clone().unwrap_or_else(|| crate::root().join("benches/RECORD.md"));
            bench::write_record(&path, args.note.as_deref().unwrap_or("GPU"), &Table(&rows, None), &kit.origin)?;
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// Runs the Vulkan tests, which all use the loader's first device; gives what failed.
fn test(kit: &Kit, device: &str) -> Vec<String> {
    if device != "vulkan:0" {
        return vec![format!(
            "the tests run on vulkan:0 only, not on {device}: name its driver's manifest alone in VK_DRIVER_FILES"
        )];
    }
    if !vulkan::has_layer() {
        println!("note: the validation layer is not installed, so the tests run without it");
    }
    kit.make_scratch();
    let (mut failures, mut total) = (Vec::new(), Counts::default());
    for (name, path) in &kit.tests {
        println!("\n== tests: {name}");
        let (counts, failure) = match process::run(vulkan::validated(Command::new(path))) {
            Ok(counts) if counts.skipped > 0 => (counts, Some("some found no Vulkan device".to_owned())),
            Ok(counts) => (counts, None),
            Err((why, counts)) => (counts, Some(why)),
        };
        total.add(counts);
        failures.extend(failure.map(|why| format!("tests {name}: {why}")));
    }
    println!("\n== tests: {total}");
    failures
}

/// Measures workload by workload; one that fails is told and leaves the others alone.
fn measure(args: &Args, kit: &Kit, device: String, peers: Option<&Peers>) -> Result<(Vec<Row>, Vec<String>), String> {
    let usual = || WORKLOADS.iter().map(|name| name.to_string()).collect();
    let patterns: Vec<String> = if args.names.is_empty() { usual() } else { args.names.clone() };
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    let devices = [device];
    for name in bench::select(&patterns, &bench::workloads(&kit.bench)?)? {
        let peers = peers.filter(|_| !args.names.is_empty() || name.starts_with(PEERED));
        let systems = bench::systems(&kit.bench, &devices, peers, &name);
        match bench::measure(&systems, &name, args.timing.rounds.max(1), &args.timing, false) {
            Ok(measured) => rows.extend(measured),
            Err(why) => failures.push(format!("bench {name}: {}", why.trim())),
        }
    }
    Ok((rows, failures))
}
