//! What was measured, gathered by system, device and thread count, with the ratio to PyTorch's best and to one thread.

use std::fmt;

use super::line::Line;
use super::peak::Peak;

/// The rounds of one workload on one system with one number of threads.
pub struct Row {
    /// Never empty.
    pub lines: Vec<Line>,
}

impl Row {
    pub fn is_of(&self, line: &Line) -> bool {
        let own = self.first();
        (&own.system, &own.device, &own.workload, &own.metric, own.threads)
            == (&line.system, &line.device, &line.workload, &line.metric, line.threads)
    }

    pub fn first(&self) -> &Line {
        &self.lines[0]
    }

    pub fn is_ours(&self) -> bool {
        self.first().system == "tapeflow"
    }

    /// The median of the rounds' medians.
    pub fn median(&self) -> f64 {
        let mut medians: Vec<f64> = self.lines.iter().map(|line| line.median).collect();
        medians.sort_by(f64::total_cmp);
        let n = medians.len();
        (medians[(n - 1) / 2] + medians[n / 2]) / 2.0
    }

    /// The best single iteration of all rounds.
    pub fn best(&self) -> f64 {
        let own = self.first();
        let values = self.lines.iter().map(|line| if own.is_time() { line.min } else { line.max });
        values.reduce(if own.is_time() { f64::min } else { f64::max }).unwrap_or(f64::NAN)
    }

    /// The most disturbed round.
    pub fn other_cpus(&self) -> f64 {
        self.lines.iter().map(|line| line.other_cpus).fold(0.0, f64::max)
    }

    /// Whether its numbers, and all ratios of them, say more about what else ran than about the system.
    pub fn is_disturbed(&self) -> bool {
        self.other_cpus() > 0.1
    }

    /// How many times faster than `other` this is.
    fn speed_over(&self, other: &Row) -> f64 {
        if self.first().is_time() { other.median() / self.median() } else { self.median() / other.median() }
    }

    fn same_job(&self, other: &Row) -> bool {
        (&self.first().workload, &self.first().metric) == (&other.first().workload, &other.first().metric)
    }

    /// Against PyTorch's best with as many threads and on the same kind of device, the processor or another: the ratio
    /// of the values (ours / best), and in words.
    pub fn against_peers(&self, rows: &[Row]) -> Option<String> {
        let place = |row: &Row| (row.first().threads, row.first().is_on_cpu());
        let peers = rows.iter().filter(|r| !r.is_ours() && r.same_job(self) && place(r) == place(self));
        let best = peers.reduce(|a, b| if b.speed_over(a) > 1.0 { b } else { a }).filter(|_| self.is_ours())?;
        let speed = self.speed_over(best);
        let words = if speed >= 1.0 { format!("{speed:.2}× faster") } else { format!("{:.2}× slower", 1.0 / speed) };
        let disturbed = if self.is_disturbed() || best.is_disturbed() { ", disturbed" } else { "" };
        Some(format!("{:.3} ({words}{disturbed})", self.median() / best.median()))
    }

    /// How many times faster than the same system's one thread.
    pub fn scaling(&self, rows: &[Row]) -> Option<f64> {
        let own = |r: &Row| (r.first().system.clone(), r.first().device.clone());
        let same = |r: &&Row| r.same_job(self) && own(r) == own(self) && r.first().threads == 1;
        let one = rows.iter().find(same).filter(|_| self.first().threads > 1)?;
        Some(self.speed_over(one))
    }

    /// The largest peak of resident memory of all rounds, in MiB.
    fn memory(&self) -> Option<f64> {
        self.lines.iter().filter_map(|line| line.rss_mb).reduce(f64::max)
    }

    /// Which share of the processor's floor the median reaches: 1 could not be faster.
    fn share(&self, peak: Option<&Peak>) -> Option<f64> {
        let own = self.first();
        let seconds = peak.filter(|_| own.is_on_cpu())?.seconds(own.floor)?;
        let per_unit = if own.is_time() { self.median() / 1e3 } else { 1.0 / self.median() };
        Some(seconds / per_unit)
    }

    /// What a table shows of it; `COLUMNS` names the cells.
    fn cells(&self, rows: &[Row], peak: Option<&Peak>) -> [String; COLUMNS.len()] {
        let own = self.first();
        [
            own.workload.clone(),
            own.system.clone(),
            own.device.clone(),
            own.threads.to_string(),
            format!("{} {}", own.shown(self.median()), own.unit),
            own.shown(self.best()),
            self.against_peers(rows).unwrap_or_default(),
            self.share(peak).map(|share| format!("{:.0} %", share * 100.0)).unwrap_or_default(),
            self.memory().map(|mebibytes| format!("{mebibytes:.0}")).unwrap_or_default(),
            self.scaling(rows).map(|s| format!("{s:.2}×")).unwrap_or_default(),
            format!("{:.2}", self.other_cpus()),
        ]
    }
}

const COLUMNS: [&str; 11] = [
    "workload",
    "system",
    "device",
    "threads",
    "median",
    "best",
    "ours / best PyTorch",
    "of floor",
    "peak MiB",
    "over 1 thread",
    "other CPUs",
];

/// Shown as a Markdown table, padded so that it reads in a terminal too; with what the processor can do, if that was
/// measured.
pub struct Table<'a>(pub &'a [Row], pub Option<&'a Peak>);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = COLUMNS.map(str::to_owned);
        let body: Vec<_> = self.0.iter().map(|row| row.cells(self.0, self.1)).collect();
        let all = || std::iter::once(&header).chain(&body);
        let widths: Vec<_> =
            (0..COLUMNS.len()).map(|c| all().map(|cells| cells[c].chars().count()).max().unwrap_or(0)).collect();
        for (i, cells) in all().enumerate() {
            for (cell, &width) in cells.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if i == 0 {
                widths.iter().try_for_each(|&width| write!(f, "|{:-<1$}", "", width + 2))?;
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

impl Line {
    /// A value of its metric; what was counted has all its digits.
    fn shown(&self, x: f64) -> String {
        if self.metric == "count" { x.to_string() } else { significant(x) }
    }
}

/// Four significant digits, without an exponent.
fn significant(x: f64) -> String {
    let whole = x.abs().log10().floor().max(-3.0) as i32;
    format!("{x:.*}", (3 - whole).max(0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(system: &str, threads: usize, metric: &str, medians: &[f64]) -> Row {
        let line = |&median: &f64| Line {
            system: system.into(),
            workload: "w".into(),
            metric: metric.into(),
            unit: "ms".into(),
            version: "1".into(),
            median,
            min: median - 1.0,
            max: median + 1.0,
            threads,
            device: "cpu".into(),
            device_name: None,
            other_cpus: 0.0,
            rss_mb: None,
            floor: (2.0, 0.1),
        };
        Row { lines: medians.iter().map(line).collect() }
    }

    #[test]
    fn ratios_are_to_the_best_peer_whichever_way_is_better() {
        let times = [
            row("tapeflow", 2, "time", &[9.0, 50.0, 10.0]),
            row("a", 2, "time", &[40.0]),
            row("b", 2, "time", &[20.0]),
        ];
        assert_eq!(times[0].against_peers(&times).as_deref(), Some("0.500 (2.00× faster)"));
        assert_eq!(times[1].against_peers(&times), None);
        let rates = [row("tapeflow", 2, "rate", &[10.0]), row("a", 2, "rate", &[40.0]), row("b", 2, "rate", &[20.0])];
        assert_eq!(rates[0].against_peers(&rates).as_deref(), Some("0.250 (4.00× slower)"));
    }

    #[test]
    fn a_disturbed_ratio_says_so() {
        let mut times = [row("tapeflow", 2, "time", &[10.0]), row("a", 2, "time", &[20.0])];
        times[1].lines[0].other_cpus = 0.5;
        assert_eq!(times[0].against_peers(&times).as_deref(), Some("0.500 (2.00× faster, disturbed)"));
    }

    #[test]
    fn a_gpu_is_compared_with_a_gpu() {
        let on = |device: &str, mut row: Row| {
            row.lines[0].device = device.into();
            row
        };
        let mut rows = vec![on("vulkan:0", row("tapeflow", 2, "time", &[10.0])), row("a", 2, "time", &[40.0])];
        assert_eq!(rows[0].against_peers(&rows), None);
        rows.push(on("cuda", row("a", 2, "time", &[5.0])));
        rows.push(row("tapeflow", 2, "time", &[20.0]));
        assert_eq!(rows[0].against_peers(&rows).as_deref(), Some("2.000 (2.00× slower)"));
        assert_eq!(rows[3].against_peers(&rows).as_deref(), Some("0.500 (2.00× faster)"));
        assert!(!rows[0].is_of(rows[3].first()));
    }

    #[test]
    fn scaling_is_over_one_thread_of_the_same_system() {
        let rows =
            [row("tapeflow", 1, "time", &[30.0]), row("a", 1, "time", &[90.0]), row("tapeflow", 2, "time", &[20.0])];
        assert_eq!(rows[2].scaling(&rows), Some(1.5));
        assert_eq!(rows[0].scaling(&rows), None);
    }

    #[test]
    fn shares_are_of_the_higher_ceiling() {
        let peak = Peak { gflops: 400.0, gigabytes_per_second: 40.0 };
        let share = |row: &Row| row.share(Some(&peak)).map(|share| (share * 1000.0).round());
        let mut time = row("tapeflow", 2, "time", &[10.0]); // 2 Gflop take 5 ms, 0.1 GB 2.5 ms
        assert_eq!(share(&time), Some(500.0));
        assert_eq!(share(&row("tapeflow", 2, "rate", &[100.0])), Some(500.0));
        time.lines[0].floor = (0.0, 0.0);
        assert_eq!((share(&time), time.share(None)), (None, None));
    }

    #[test]
    fn numbers_keep_four_digits() {
        assert_eq!([123456.0, 45.678, 0.012345].map(significant), ["123456", "45.68", "0.01235"]);
    }
}
