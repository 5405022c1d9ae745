//! A recording as a trace: Chrome's JSON format, which ui.perfetto.dev and chrome://tracing read. Owns the nesting of
//! events and the JSON.
//!
//! One track per thread: a run holds steps, a step holds its chunks. A step's event on a thread spans the chunks of it
//! that this thread ran one after the other; on a worker's track, so does a run's. Devices are tracks of a second
//! process.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use super::environment::write_whole;
use super::recorded::{Profile, TrackEvents, modules, places};
use super::store::{Event, RunId, What};
use crate::device::Device;

/// The processes of the trace.
const THREADS: u32 = 1;
const DEVICES: u32 = 2;

impl Profile {
    /// Writes the trace to a file, which appears whole or not at all. Open it at ui.perfetto.dev or chrome://tracing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write_trace(&self, path: impl AsRef<Path>) -> io::Result<()> {
        write_whole(path.as_ref(), |out| self.write_json(out))
    }

    /// Writes the trace: one JSON object in Chrome's trace event format.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(
            out,
            "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"dropped_events\":{}}},\n\"traceEvents\":[",
            self.dropped
        )?;
        let mut separator = "\n";
        let name = |what: &str, pid: u32, tid: usize, name: &str| {
            let name = quoted(name);
            format!("{{\"ph\":\"M\",\"name\":\"{what}\",\"pid\":{pid},\"tid\":{tid},\"args\":{{\"name\":{name}}}}}")
        };
        for (pid, process) in [(THREADS, "threads"), (DEVICES, "devices")] {
            if self.tracks.iter().any(|track| pid_of(track) == pid) {
                write!(out, "{separator}{}", name("process_name", pid, 0, process))?;
                separator = ",\n";
            }
        }
        for (tid, track) in self.tracks.iter().enumerate() {
            write!(out, "{separator}{}", name("thread_name", pid_of(track), tid + 1, &track.name))?;
            separator = ",\n";
        }
        for (tid, track) in self.tracks.iter().enumerate() {
            for entry in nested(&track.events) {
                self.write_entry(out, pid_of(track), tid + 1, &entry)?;
            }
        }
        writeln!(out, "\n]}}")
    }

    fn write_entry(&self, out: &mut dyn Write, pid: u32, tid: usize, entry: &Entry) -> io::Result<()> {
        let duration = entry.end - entry.start;
        let (category, name, arguments) = match entry.what {
            Shown::Event(What::Phase(phase)) => ("phase", phase.name().to_owned(), String::new()),
            Shown::Event(What::Run(run)) => {
                let kernels = self.programs[run.bound as usize].kernels.len();
                let arguments = format!("\"run\":{},\"program\":{},\"kernels\":{kernels}", run.number, run.bound);
                ("run", format!("program {}", run.bound), arguments)
            }
            // A chunk that is alone says nothing that its step does not.
            Shown::Event(What::Chunk(run, step, _)) if self.kernel_chunks(run, step) == 1 => return Ok(()),
            Shown::Event(What::Chunk(_, _, chunk)) => ("chunk", format!("chunk {chunk}"), String::new()),
            Shown::Event(What::Finish(..)) => ("chunk", "finish".to_owned(), String::new()),
            Shown::Event(What::Step(run, step)) => {
                ("step", self.name(run, step), self.arguments(run, step, None, duration))
            }
            Shown::Steps(run, step, chunks) => {
                let name = self.name(run, step);
                ("step", name, self.arguments(run, step, Some(chunks), duration))
            }
        };
        write!(out, ",\n{{\"ph\":\"X\",\"pid\":{pid},\"tid\":{tid},\"ts\":{}", microseconds(entry.start))?;
        write!(out, ",\"dur\":{},\"cat\":\"{category}\",\"name\":{}", microseconds(duration), quoted(&name))?;
        if !arguments.is_empty() {
            write!(out, ",\"args\":{{{arguments}}}")?;
        }
        write!(out, "}}")
    }

    fn name(&self, run: RunId, step: u32) -> String {
        self.programs[run.bound as usize].kernels[step as usize].name.clone()
    }

    fn kernel_chunks(&self, run: RunId, step: u32) -> usize {
        self.programs[run.bound as usize].kernels[step as usize].chunks
    }

    /// What is known of a step of which `chunks` chunks, or all, took so long.
    fn arguments(&self, run: RunId, step: u32, chunks: Option<u32>, duration: u64) -> String {
        let program = &self.programs[run.bound as usize];
        let (kernel, sites) = (&program.kernels[step as usize], &program.sites[step as usize]);
        let work = kernel.work;
        let share = match chunks {
            Some(chunks) if kernel.chunks > 0 => f64::from(chunks) / kernel.chunks as f64,
            _ => 1.0,
        };
        let rate = |amount: u64| share * amount as f64 / duration.max(1) as f64;
        let mut text = format!(
            "\"module\":{},\"at\":{},\"device\":{},\"dtype\":\"{}\"",
            quoted(&modules(sites)),
            quoted(&places(sites)),
            quoted(&Device(program.on).to_string()),
            kernel.dtype.name()
        );
        // Writing into a String cannot fail.
        let _ = write!(text, ",\"step\":{step},\"bytes_read\":{},\"bytes_written\":{}", work.read, work.written);
        let (bytes, flops) = (rate(work.read + work.written), rate(work.flops));
        let _ = write!(text, ",\"flops\":{},\"GB/s\":{bytes:.3},\"GFLOP/s\":{flops:.3}", work.flops);
        if let Some(chunks) = chunks {
            let _ = write!(text, ",\"chunks\":\"{chunks} of {}\"", kernel.chunks);
        }
        text
    }
}

fn pid_of(track: &TrackEvents) -> u32 {
    if track.is_device { DEVICES } else { THREADS }
}

/// What an entry of a track is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Event(What),
    /// So many chunks of a step, one after the other.
    Steps(RunId, u32, u32),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u64,
    end: u64,
    /// Of several that begin and end together, the outer is shown first.
    depth: u8,
    what: Shown,
}

/// A track's entries, each after those that it lies in.
fn nested(events: &[Event]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(events.len() * 2);
    let run_of = |e: &Event| if let What::Run(run) = e.what { Some(run.number) } else { None };
    let own_runs: HashSet<u32> = events.iter().filter_map(run_of).collect();
    // Where the entry of the last run and of the last step stand that this thread worked at.
    let (mut run_at, mut step_at): (Option<usize>, Option<usize>) = (None, None);
    // A thread's chunks are written in their order, among phases that are written when they end.
    for &Event { what, start, end } in events {
        let depth = match what {
            What::Phase(_) | What::Run(_) => 0,
            What::Step(..) => 1,
            What::Chunk(..) | What::Finish(..) => 3,
        };
        entries.push(Entry { start, end, depth, what: Shown::Event(what) });
        let (run, step, chunks) = match what {
            What::Chunk(run, step, _) => (run, step, 1),
            What::Finish(run, step) => (run, step, 0),
            What::Phase(_) | What::Run(_) | What::Step(..) => continue,
        };
        let same_run = run_at.filter(|&at| entries[at].what == Shown::Event(What::Run(run)));
        match same_run {
            Some(at) => entries[at].end = end,
            // Whoever asked for the run has an entry for it already.
            None if !own_runs.contains(&run.number) => {
                run_at = Some(entries.len());
                entries.push(Entry { start, end, depth: 1, what: Shown::Event(What::Run(run)) });
            }
            None => {}
        }
        match step_at.map(|at| &mut entries[at]) {
            Some(Entry { end: last, what: Shown::Steps(r, s, count), .. }) if (*r, *s) == (run, step) => {
                *last = end;
                *count += chunks;
            }
            _ => {
                step_at = Some(entries.len());
                entries.push(Entry { start, end, depth: 2, what: Shown::Steps(run, step, chunks) });
            }
        }
    }
    entries.sort_by_key(|e| (e.start, std::cmp::Reverse(e.end), e.depth));
    entries
}

/// Nanoseconds as microseconds.
fn microseconds(nanoseconds: u64) -> String {
    format!("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000)
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
