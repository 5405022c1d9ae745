//! The line a person watches during a run: step, losses, speed, time left.
//!
//! Draws through indicatif on a terminal and prints plain lines where there is none (a log file, CI). It goes to
//! stderr, so that samples on stdout can be piped.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The progress of a run with a known number of steps.
#[derive(Debug)]
pub struct Progress {
    view: View,
    steps: u64,
    started: Instant,
    first_step: u64,
    train_loss: Option<f64>,
    val_loss: Option<f64>,
    speed: Option<(f64, &'static str)>,
}

#[derive(Debug)]
enum View {
    Bar(ProgressBar),
    /// Prints a line when the last one is this old.
    Lines {
        every: Duration,
        last: Option<Instant>,
    },
}

impl Progress {
    /// Starts at `first_step` (0, unless a run is continued) of `steps`.
    pub fn new(first_step: u64, steps: u64) -> Self {
        let view = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(5));
            // The template is ours and fixed; should it ever be wrong, the plain bar serves.
            if let Ok(style) = ProgressStyle::with_template("{pos:>6}/{len} {bar:24.cyan/blue} {msg}") {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.set_position(first_step);
            View::Bar(bar)
        } else {
            View::Lines { every: Duration::from_secs(5), last: None }
        };
        Progress { view, steps, started: Instant::now(), first_step, train_loss: None, val_loss: None, speed: None }
    }

    /// Sets the newest training loss.
    pub fn set_train_loss(&mut self, loss: f64) {
        self.train_loss = Some(loss);
    }

    /// Sets the newest validation loss.
    pub fn set_val_loss(&mut self, loss: f64) {
        self.val_loss = Some(loss);
    }

    /// Sets the newest speed in training tokens per second.
    pub fn set_tokens_per_second(&mut self, speed: f64) {
        self.set_speed(speed, "tokens/s");
    }

    /// Sets the newest speed in a unit of one's own, such as images/s.
    pub fn set_speed(&mut self, speed: f64, unit: &'static str) {
        self.speed = Some((speed, unit));
    }

    /// Says that `done` steps are done.
    pub fn advance_to(&mut self, done: u64) {
        let left = time_left(self.started.elapsed(), done - self.first_step.min(done), self.steps.saturating_sub(done));
        let message = self.message(left);
        match &mut self.view {
            View::Bar(bar) => {
                bar.set_message(message);
                bar.set_position(done);
            }
            View::Lines { every, last } => {
                if done >= self.steps || last.is_none_or(|at| at.elapsed() >= *every) {
                    eprintln!("step {done}/{} {message}", self.steps);
                    *last = Some(Instant::now());
                }
            }
        }
    }

    /// Prints something on stdout without tearing the bar.
    pub fn print(&self, text: &str) {
        match &self.view {
            View::Bar(bar) => bar.suspend(|| println!("{text}")),
            View::Lines { .. } => println!("{text}"),
        }
    }

    /// Ends the display, leaving its last state to be read.
    pub fn finish(&self) {
        if let View::Bar(bar) = &self.view {
            bar.abandon();
        }
    }

    fn message(&self, left: Option<Duration>) -> String {
        let mut parts = Vec::new();
        parts.extend(self.train_loss.map(|l| format!("train {l:.4}")));
        parts.extend(self.val_loss.map(|l| format!("val {l:.4}")));
        parts.extend(self.speed.map(|(speed, unit)| format!("{} {unit}", thousands(speed))));
        parts.extend(left.map(|l| format!("{} left", clock(l))));
        parts.join("  ")
    }
}

/// What is left if the rest goes as fast as what was done.
fn time_left(elapsed: Duration, done: u64, left: u64) -> Option<Duration> {
    (done > 0).then(|| elapsed.mul_f64(left as f64 / done as f64))
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, c) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && c.is_ascii_digit() && digits.as_bytes()[index - 1] != b'-' {
            text.push(',');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_speed_read_well() {
        assert_eq!(clock(Duration::from_secs(65)), "1:05");
        assert_eq!(clock(Duration::from_secs(3_725)), "1:02:05");
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(time_left(Duration::from_secs(10), 100, 300), Some(Duration::from_secs(30)));
        assert_eq!(time_left(Duration::from_secs(10), 0, 300), None);
    }

    #[test]
    fn the_message_holds_what_is_known() {
        let mut progress = Progress::new(0, 10);
        assert_eq!(progress.message(None), "");
        progress.set_train_loss(1.5);
        progress.set_tokens_per_second(12_345.0);
        assert_eq!(progress.message(Some(Duration::from_secs(61))), "train 1.5000  12,345 tokens/s  1:01 left");
        progress.advance_to(10);
        progress.finish();
    }
}
