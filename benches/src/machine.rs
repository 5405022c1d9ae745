//! What the kernel says of the machine and this process: CPU seconds spent and the peak of resident memory. Zeros where
//! there is no `/proc`.

/// Linux counts CPU time for user space in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of the whole machine (stolen time included) and of this process with its children.
pub fn busy_seconds() -> (f64, f64) {
    let machine = || -> Option<f64> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let fields = numbers(text.lines().next()?.strip_prefix("cpu")?);
        // user nice system idle iowait irq softirq steal: all but idle and iowait.
        Some(fields.iter().take(8).sum::<f64>() - fields.get(3)? - fields.get(4)?)
    };
    let own = || -> Option<f64> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Fields 14 to 17; the second one, a name in parentheses, may hold spaces.
        let fields = numbers(text.rsplit_once(") ")?.1.split_once(' ')?.1);
        Some(fields.get(10..14)?.iter().sum())
    };
    (machine().unwrap_or(0.0) / TICKS_PER_SECOND, own().unwrap_or(0.0) / TICKS_PER_SECOND)
}

/// Peak resident set of this process so far, in MiB.
pub fn peak_rss_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    (kib.unwrap_or(0) + 512) / 1024
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
