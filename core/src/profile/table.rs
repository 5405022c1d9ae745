//! A recording as a table of kernels. Owns its columns.

use std::fmt::Write;
use std::time::Duration;

use super::recorded::Profile;
use super::roofline::Roofline;
use crate::error::Result;

/// Rows that are shown; the rest is summed up.
const ROWS: usize = 40;
/// Columns of the name.
const NAME: usize = 44;

impl Profile {
    /// The kernels, the one that took longest first: calls, their time together and its share, the mean of a call,
    /// bytes and operations per second, and which share of the time the device would have needed at best
    /// ([`Roofline`]).
    ///
    /// Times are from a call's begin to its end. Where calls overlap, their sum is more than the time that passed. The
    /// floor is that of memory: a kernel whose operands lie in a cache may be above 100 % of it.
    ///
    /// # Errors
    /// As of [`Roofline::of`].
    pub fn table(&self) -> Result<String> {
        let kernels = self.kernels();
        let all: Duration = kernels.iter().map(|k| k.total).sum();
        let mut text = String::new();
        let head = ["kernel", "calls", "total ms", "share", "mean µs", "GB/s", "GFLOP/s", "floor", "module"];
        let [name, calls, total, share, mean, bytes, flops, floor, module] = head;
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{name:NAME$} {calls:>7} {total:>9} {share:>6} {mean:>9} {bytes:>7} {flops:>8} {floor:>6}  {module}"
        );
        for kernel in kernels.iter().take(ROWS) {
            let floor = Roofline::of(kernel.device)?.floor(kernel);
            let nanoseconds = kernel.total.as_nanos() as f64;
            let mean = nanoseconds / kernel.calls as f64;
            let _ = writeln!(
                text,
                "{:NAME$} {:>7} {:>9.2} {:>5.1}% {:>9.1} {:>7.1} {:>8.1} {:>5.0}%  {}",
                shortened(&kernel.name),
                kernel.calls,
                nanoseconds / 1e6,
                percent(kernel.total, all),
                mean / 1e3,
                kernel.gigabytes_per_second(),
                kernel.gflops(),
                100.0 * floor / mean.max(1.0),
                kernel.module
            );
        }
        if kernels.len() > ROWS {
            let rest: Duration = kernels[ROWS..].iter().map(|k| k.total).sum();
            let calls: u64 = kernels[ROWS..].iter().map(|k| k.calls).sum();
            let name = format!("{} more", kernels.len() - ROWS);
            let (total, share) = (rest.as_secs_f64() * 1e3, percent(rest, all));
            let _ = writeln!(text, "{name:NAME$} {calls:>7} {total:>9.2} {share:>5.1}%");
        }
        let (kernels, passed) = (all.as_secs_f64() * 1e3, self.duration().as_secs_f64() * 1e3);
        let _ = writeln!(text, "{kernels:.1} ms in kernels, {passed:.1} ms passed{}", self.lost());
        let mut devices: Vec<_> = self.programs.iter().map(|p| p.on).collect();
        devices.sort_unstable();
        devices.dedup();
        for device in devices.into_iter().map(crate::device::Device) {
            let Roofline { gflops, gigabytes_per_second } = Roofline::of(device)?;
            let _ = writeln!(text, "floor of {device}: {gflops:.0} GFLOP/s (f32), {gigabytes_per_second:.1} GB/s");
        }
        Ok(text)
    }
}

fn percent(part: Duration, all: Duration) -> f64 {
    100.0 * part.as_secs_f64() / all.as_secs_f64().max(1e-9)
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME - 1) {
        Some((at, _)) if name.chars().count() > NAME => format!("{}…", &name[..at]),
        _ => name.to_owned(),
    }
}
