//! `cargo xtask bench`: starts the bench binary and, interleaved, PyTorch; prints lines, tables and ratios. Owns the
//! order of the rounds and what is compared with what; knows nothing of the workloads but their names.

mod line;
mod machine;
mod peak;
pub mod record;
mod systems;
mod table;

use std::path::Path;

use line::Line;
pub use peak::Peak;
pub use systems::{Peers, System, build, workloads};
pub use table::{Row, Table};

#[derive(clap::Args)]
pub struct Args {
    /// Workloads by the peers' names; a name ending in `*` matches a prefix. None: list them.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Where tapeflow computes (cpu, vulkan, vulkan:1, …); several give a row each.
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    device: Vec<String>,
    /// Print the raw JSON lines instead of a table.
    #[arg(long)]
    json: bool,
    /// An interpreter that has torch: also run PyTorch (eager and compiled), interleaved, and print ratios. Beside
    /// another device than the CPU it runs on CUDA, if it can.
    #[arg(long, value_name = "PYTHON")]
    peers: Option<String>,
    #[command(flatten)]
    timing: Timing,
    /// Append what was measured to `benches/RECORD.md`.
    #[arg(long)]
    record: bool,
    /// A line for the record: what this measurement is about.
    #[arg(long, value_name = "TEXT", requires = "record")]
    note: Option<String>,
}

/// How long and how often.
#[derive(clap::Args)]
pub struct Timing {
    /// Worker threads; several counts give a row each and the scaling between them.
    #[arg(long, value_delimiter = ',', default_value = "2")]
    threads: Vec<usize>,
    /// How often the whole set is measured, one system after the other each time.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Measure at least this many iterations in a round.
    #[arg(long, default_value_t = 10)]
    iters: usize,
    /// And for at least this long, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// But stop after this long, once there are 3 iterations, in seconds.
    #[arg(long, default_value_t = 60.0)]
    max_seconds: f64,
    /// Iterations at the start of a round that are not counted.
    #[arg(long, default_value_t = 3)]
    warmup: usize,
}

pub fn run(args: &Args) -> Result<(), String> {
    let binary = build()?;
    let known = workloads(&binary)?;
    if args.names.is_empty() {
        println!("workloads: {}", known.join(" "));
        return Ok(());
    }
    let names = select(&args.names, &known)?;
    let peers = match &args.peers {
        Some(python) => Some(Peers::find(python, Peers::scripts(), Peers::on_cuda())?),
        None => None,
    };
    if peers.as_ref().is_some_and(|p| p.cuda.is_none()) && args.device.iter().any(|device| device != "cpu") {
        eprintln!("this PyTorch has no CUDA: it runs on the CPU, and is compared with rows of the CPU only");
    }
    // Before and after: memory in particular is not always as fast.
    let most = args.timing.threads.iter().copied().max().unwrap_or(1);
    let probe = || peers.as_ref().and_then(|_| Peak::measure(&Peers::scripts(), most));
    let before = probe();
    let rounds = if args.peers.is_some() || args.record { args.timing.rounds.max(1) } else { 1 };
    let mut rows = Vec::new();
    for name in &names {
        let systems = systems(&binary, &args.device, peers.as_ref(), name);
        rows.extend(measure(&systems, name, rounds, &args.timing, args.json)?);
    }
    let peak = before.and_then(|before| probe().map(|after| before.or_better(after)));
    if !args.json {
        print!("{}", Table(&rows, peak.as_ref()));
    }
    if rows.iter().any(Row::is_disturbed) {
        eprintln!("something else kept the machine busy meanwhile: measure again when it is idle");
    }
    if args.record {
        let path = crate::root().join("benches/RECORD.md");
        write_record(
            &path,
            args.note.as_deref().unwrap_or_default(),
            &Table(&rows, peak.as_ref()),
            &record::Origin::here(),
        )?;
    }
    Ok(())
}

/// All that are to measure a workload, ours first.
pub fn systems(binary: &Path, devices: &[String], peers: Option<&Peers>, workload: &str) -> Vec<System> {
    let ours = devices.iter().map(|device| System::ours(binary, device));
    ours.chain(peers.into_iter().flat_map(|peers| peers.systems(workload, devices))).collect()
}

/// Appends to a record and says so.
pub fn write_record(path: &Path, note: &str, table: &Table<'_>, origin: &record::Origin) -> Result<(), String> {
    record::append(path, note, table, origin).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("recorded in {}", path.display());
    Ok(())
}

/// One workload on all systems: A B C, A B C, … so that what disturbs the machine disturbs all alike. `is_shown`: every
/// line is printed as it comes.
pub fn measure(
    systems: &[System],
    name: &str,
    rounds: usize,
    timing: &Timing,
    is_shown: bool,
) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..rounds {
        for &threads in &timing.threads {
            for system in systems {
                let Some(asked) = (if system.is_ours() { Some(name) } else { peers_name(name) }) else { continue };
                if !system.is_ours() && rows.is_empty() {
                    continue; // the binary has said why it has nothing to compare
                }
                eprintln!("{name}: round {} of {rounds}, threads {threads}, {}", round + 1, system.name);
                let output = system.measure(asked, threads, timing)?;
                for text in output.lines().filter(|text| text.starts_with('{')) {
                    if is_shown {
                        println!("{text}");
                    }
                    let mut line = Line::parse(text).ok_or_else(|| format!("not a line of a bench: {text}"))?;
                    if line.workload == asked {
                        name.clone_into(&mut line.workload);
                    }
                    if let Some(variant) = system.variant() {
                        line.system.push_str(variant);
                    }
                    match rows.iter_mut().find(|row| row.is_of(&line)) {
                        Some(row) => row.lines.push(line),
                        None => rows.push(Row { lines: vec![line] }),
                    }
                }
            }
            if rows.is_empty() {
                return Ok(rows);
            }
        }
    }
    Ok(rows)
}

/// What PyTorch is asked for to compare a workload with; `None` if it has nothing of the kind.
fn peers_name(workload: &str) -> Option<&str> {
    match workload {
        // Against PyTorch in f32: what mixed precision is worth.
        "gpt_baby_train_b16_bf16" => Some("gpt_baby_train_b16"),
        "xor_captured" => Some("xor_train"),
        "gpt2_decode_int8" | "cold_start" | "step_overhead" => None,
        name if name.starts_with("gemv_") => None,
        name => Some(name),
    }
}

/// The known names that patterns select.
pub fn select(patterns: &[String], known: &[String]) -> Result<Vec<String>, String> {
    let mut selected: Vec<String> = Vec::new();
    for pattern in patterns {
        let hit = |name: &&String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *name == pattern,
        };
        let hits: Vec<_> = known.iter().filter(hit).cloned().collect();
        if hits.is_empty() {
            return Err(format!("unknown workload {pattern}; known: {}", known.join(" ")));
        }
        selected.extend(hits.into_iter().filter(|name| !selected.contains(name)).collect::<Vec<_>>());
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn a_star_selects_a_prefix_and_nothing_twice() {
        let known = ["op_a", "op_b", "mlp"].map(String::from);
        let names = |patterns: &[&str]| select(&patterns.iter().map(|p| p.to_string()).collect::<Vec<_>>(), &known);
        assert_eq!(names(&["op_*", "op_a"]), Ok(vec!["op_a".to_owned(), "op_b".to_owned()]));
        assert!(names(&["op"]).is_err());
    }
}
