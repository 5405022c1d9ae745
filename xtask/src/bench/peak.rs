//! What the processor can do at best, by the peers' `peak.c`: the ceilings of the roofline (Williams, Waterman &
//! Patterson 2009) that shares of the floor are taken of.

use std::path::Path;
use std::process::Command;

use super::line::Line;

/// The two ceilings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// f32 operations per second, as 10⁹.
    pub gflops: f64,
    /// Bytes from and to memory per second, as 10⁹: the best of reading, copying and both.
    pub gigabytes_per_second: f64,
}

impl Peak {
    /// Measures with the program in the peers' folder; `None`, and a word, if it is not there or there is no compiler.
    pub fn measure(scripts: &Path, threads: usize) -> Option<Peak> {
        let program = std::env::temp_dir().join(format!("tapeflow-peak-{}", std::process::id()));
        let built = Command::new("cc")
            .args(["-O3", "-march=native", "-pthread", "-o"])
            .arg(&program)
            .arg(scripts.join("peak.c"))
            .status();
        let output = built.ok().filter(|status| status.success()).and_then(|_| {
            let output = Command::new(&program).arg(threads.to_string()).output();
            output.ok().filter(|output| output.status.success())
        });
        let _ = std::fs::remove_file(&program); // there is none if it was not built
        let peak = output.and_then(|output| Peak::parse(&String::from_utf8_lossy(&output.stdout)));
        if peak.is_none() {
            eprintln!("{} cannot be run: the table shows no shares of the floor", scripts.join("peak.c").display());
        }
        peak
    }

    fn parse(text: &str) -> Option<Peak> {
        let lines: Vec<Line> = text.lines().filter_map(Line::parse).collect();
        let gflops = lines.iter().find(|line| line.workload == "peak_fma_f32")?.median;
        let memory = lines.iter().filter(|line| line.workload.starts_with("mem_")).map(|line| line.median);
        Some(Peak { gflops, gigabytes_per_second: memory.reduce(f64::max)? })
    }

    /// The higher of both ceilings, of two measurements.
    pub fn or_better(self, other: Peak) -> Peak {
        Peak {
            gflops: self.gflops.max(other.gflops),
            gigabytes_per_second: self.gigabytes_per_second.max(other.gigabytes_per_second),
        }
    }

    /// The least seconds that so many operations and bytes, as 10⁹, take; `None` of none.
    pub fn seconds(&self, (gflop, gb): (f64, f64)) -> Option<f64> {
        let seconds = (gflop / self.gflops).max(gb / self.gigabytes_per_second);
        (seconds > 0.0).then_some(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_the_memory_rates_counts() {
        let line = |workload: &str, median: f64| {
            format!(
                r#"{{"system": "c", "workload": "{workload}", "metric": "throughput", "unit": "GB/s", "median": {median},
                "min": 1.0, "max": 2.0, "n": 3, "threads": 2, "version": "1"}}"#
            )
            .replace('\n', " ")
        };
        let text = [line("peak_fma_f32", 480.0), line("mem_read", 31.0), line("mem_copy_nt", 44.0)].join("\n");
        assert_eq!(Peak::parse(&text), Some(Peak { gflops: 480.0, gigabytes_per_second: 44.0 }));
        assert_eq!(Peak::parse(""), None);
    }
}
