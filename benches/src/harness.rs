//! The timing loop and the JSON line: the same law as the peers' `common.py` (warm-up, at least so many iterations and
//! so many seconds, one sample per timed call). Knows no workload.

use std::time::Instant;

use tapeflow::{Device, Result};

use crate::machine::{busy_seconds, peak_rss_mb};

#[derive(clap::Args, Clone)]
pub struct Options {
    /// Worker threads.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Measure at least this many iterations.
    #[arg(long, default_value_t = 10)]
    iters: usize,
    /// And for at least this long, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// But stop after this long, once there are 3 iterations, in seconds.
    #[arg(long, default_value_t = 60.0)]
    max_seconds: f64,
    /// Iterations at the start that are not counted.
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Where to compute: cpu, vulkan, vulkan:1, …
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

/// The least that one unit of a measurement takes on any machine: operations (multiplications and additions) and bytes
/// from and to memory, both as 10⁹. The unit is a call where time is measured, and one of the unit of a rate.
#[derive(Clone, Copy, Default)]
pub struct Floor {
    /// Operations.
    pub gflop: f64,
    /// Bytes, each operand read once and each result written once; 0 where operations take longer.
    pub gb: f64,
}

impl Floor {
    /// Operations alone.
    pub fn operations(count: f64) -> Floor {
        Floor { gflop: count / 1e9, gb: 0.0 }
    }

    /// Bytes alone.
    pub fn bytes(count: f64) -> Floor {
        Floor { gflop: 0.0, gb: count / 1e9 }
    }

    /// As members of a line.
    fn members(self) -> impl Iterator<Item = (&'static str, f64)> {
        [("floor_gflop", self.gflop), ("floor_gb", self.gb)].into_iter().filter(|(_, amount)| *amount > 0.0)
    }
}

pub struct Bench {
    options: Options,
    device: Device,
    /// The device as members of a JSON object: its name here, and what its maker calls it.
    device_members: String,
    /// CPUs something else kept busy during the last measurement.
    other_cpus: f64,
}

impl Bench {
    pub fn new(options: Options, device: Device) -> Bench {
        let mut device_members = format!("\"device\": \"{device}\"");
        if let Some(name) = makers_name(device) {
            device_members += &format!(", \"device_name\": \"{}\"", name.replace(['"', '\\'], "'"));
        }
        Bench { options, device, device_members, other_cpus: 0.0 }
    }

    /// Where workloads compute.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Times `f` and prints ms per call. `per_call`: amounts of work per call, printed as amounts per second.
    pub fn ms<E>(
        &mut self,
        workload: &str,
        floor: Floor,
        f: impl FnMut() -> std::result::Result<(), E>,
        per_call: &[(&str, f64)],
    ) -> Result<()>
    where
        tapeflow::Error: From<E>,
    {
        let seconds = self.times(f, 1)?;
        let middle = median(&seconds);
        let mut extras: Vec<(&str, f64)> = per_call.iter().map(|&(name, work)| (name, work / middle)).collect();
        floor.members().for_each(|member| extras.push(member));
        self.emit(workload, "time", "ms", &seconds.iter().map(|s| s * 1e3).collect::<Vec<_>>(), &extras);
        Ok(())
    }

    /// Times `f`, `inner` calls a sample, and prints `work` per second, as the metric and unit that peers call it by.
    pub fn rate<E>(
        &mut self,
        workload: &str,
        (metric, unit, floor): (&str, &str, Floor),
        work: f64,
        inner: usize,
        f: impl FnMut() -> std::result::Result<(), E>,
    ) -> Result<()>
    where
        tapeflow::Error: From<E>,
    {
        let seconds = self.times(f, inner)?;
        let rates: Vec<f64> = seconds.iter().map(|s| work / s).collect();
        self.emit(workload, metric, unit, &rates, &floor.members().collect::<Vec<_>>());
        Ok(())
    }

    /// Seconds per call, one sample per `inner` calls.
    pub fn times<E>(&mut self, mut f: impl FnMut() -> std::result::Result<(), E>, inner: usize) -> Result<Vec<f64>>
    where
        tapeflow::Error: From<E>,
    {
        for _ in 0..self.options.warmup {
            f()?;
        }
        let (machine, own) = busy_seconds();
        let started = Instant::now();
        let mut samples = Vec::new();
        loop {
            let call = Instant::now();
            for _ in 0..inner {
                f()?;
            }
            samples.push(call.elapsed().as_secs_f64() / inner as f64);
            let spent = started.elapsed().as_secs_f64();
            let enough = samples.len() >= self.options.iters && spent >= self.options.seconds;
            if enough || (spent >= self.options.max_seconds && samples.len() >= 3) {
                let (machine_after, own_after) = busy_seconds();
                self.other_cpus = ((machine_after - machine) - (own_after - own)).max(0.0) / spent;
                return Ok(samples);
            }
        }
    }

    /// Prints the line of one measurement.
    pub fn emit(&self, workload: &str, metric: &str, unit: &str, values: &[f64], extras: &[(&str, f64)]) {
        let (min, max) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
        let (median, min, max) = (rounded(median(values)), rounded(min), rounded(max));
        let (n, threads, version) = (values.len(), self.options.threads, env!("CARGO_PKG_VERSION"));
        let extra = |(name, value): &(&str, f64)| format!(", \"{name}\": {:?}", rounded(*value));
        let extras: String = extras.iter().map(extra).collect();
        let device = &self.device_members;
        let (other, rss) = ((self.other_cpus * 100.0).round() / 100.0, peak_rss_mb());
        println!(
            "{{\"system\": \"tapeflow\", \"workload\": \"{workload}\", \"metric\": \"{metric}\", \"unit\": \"{unit}\", \
             \"median\": {median:?}, \"min\": {min:?}, \"max\": {max:?}, \"n\": {n}, \"threads\": {threads}, \
             {device}, \"version\": \"{version}\"{extras}, \"other_cpus\": {other:?}, \"rss_mb\": {rss}}}"
        );
    }
}

/// As the list of devices has it; the processor is not listed.
fn makers_name(device: Device) -> Option<String> {
    let device = device.to_string();
    let (family, index) = device.split_once(':')?;
    let (_, found) = Device::list().into_iter().find(|(name, _)| *name == family)?;
    found.ok()?.into_iter().find(|info| info.index.to_string() == index).map(|info| info.name)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

/// To five significant digits.
fn rounded(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_five_digits() {
        assert_eq!([45.678912, 123456.7, 0.0001234567].map(rounded), [45.679, 123460.0, 0.00012346]);
        assert_eq!(median(&[3.0, 1.0, 2.0, 10.0]), 2.5);
    }
}
