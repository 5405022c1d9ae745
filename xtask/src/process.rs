//! Running a command, its output shown as it comes, and counting what test binaries report.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// What a test says, past libtest's capture, where there is nothing to run it on. It then counts as passed, too.
const SKIPPED: &str = "skipped: no Vulkan device";

/// What the lines `test result: …` of a run add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// Of the passed ones, how many said that they had no device.
    pub skipped: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped += other.skipped;
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`, and what a skipped test says.
    fn of_line(line: &str) -> Option<Counts> {
        // With one thread libtest writes a test's name before it runs, on the same line.
        let said = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")).map_or(line, |(_, said)| said);
        if said.starts_with(SKIPPED) {
            return Some(Counts { skipped: 1, ..Counts::default() });
        }
        let rest = line.strip_prefix("test result: ")?;
        let mut counts = Counts::default();
        for part in rest.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(n)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else { continue };
            match what {
                "passed" => counts.passed = n,
                "failed" => counts.failed = n,
                "ignored" => counts.ignored = n,
                _ => {}
            }
        }
        Some(counts)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped for want of a Vulkan device", self.skipped)?;
        }
        Ok(())
    }
}

/// `cargo` with these arguments, in the workspace's folder.
pub fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::root());
    command
}

/// Runs to the end, passing standard output through.
pub fn run(mut command: Command) -> Result<Counts, (String, Counts)> {
    let mut counts = Counts::default();
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(e) => return Err((format!("{:?}: {e}", command.get_program()), counts)),
    };
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            counts.add(Counts::of_line(&line).unwrap_or_default());
        }
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(counts),
        Ok(status) => Err((status.to_string(), counts)),
        Err(e) => Err((e.to_string(), counts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.31s";
        assert_eq!(Counts::of_line(line), Some(Counts { passed: 12, failed: 3, ignored: 1, skipped: 0 }));
        assert_eq!(Counts::of_line("test pool::wakes ... ok"), None);
    }

    #[test]
    fn a_skipped_test_is_counted() {
        let skipped = Some(Counts { skipped: 1, ..Counts::default() });
        assert_eq!(Counts::of_line("skipped: no Vulkan device (there is no Vulkan loader)"), skipped);
        assert_eq!(Counts::of_line("test training::xor ... skipped: no Vulkan device (no driver)"), skipped);
        assert_eq!(Counts::of_line("skipped: this machine has no avx512"), None);
        assert_eq!(Counts::of_line("note: skipped: no Vulkan device"), None);
        let counts = Counts { passed: 2, skipped: 1, ..Counts::default() };
        assert_eq!(counts.to_string(), "2 passed, 0 failed, 0 ignored, 1 skipped for want of a Vulkan device");
    }
}
