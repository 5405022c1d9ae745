//! What a recording holds, once it is taken out: events by track, and what each kernel took. Owns how kernels are
//! summed up; knows no file formats.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tapeflow_ir::DType;

use super::bound::{Bound, Totals};
use super::store::{Event, Store};
use crate::device::Device;
use crate::program::work::Described;
use crate::tape::site::Site;

/// What the process did while a [`Profiler`](super::Profiler) was at work.
///
/// [`write_trace`](Profile::write_trace) writes it for a viewer, [`table`](Profile::table) prints its kernels, and
/// [`kernels`](Profile::kernels) gives their numbers.
pub struct Profile {
    pub(super) tracks: Vec<TrackEvents>,
    pub(super) programs: Vec<Arc<Bound>>,
    /// Of each program's kernels.
    pub(super) totals: Vec<Vec<Totals>>,
    pub(super) dropped: u64,
    duration: Duration,
}

/// The events of a thread or a device.
pub(super) struct TrackEvents {
    pub name: String,
    pub is_device: bool,
    pub events: Vec<Event>,
}

/// What one kernel did. Kernels of the same operations, work and sites are one, whichever program they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelProfile {
    /// Its operations, the outermost first: `gelu∘add`. A derivative's name has a prime; `×24` is a batch of 24.
    pub name: String,
    /// The modules whose operations it computes, such as `h.0.mlp`.
    pub module: String,
    /// The calls that recorded them: file, line and column.
    pub site: String,
    /// Where it ran.
    pub device: Device,
    /// Of its first result.
    pub dtype: DType,
    /// How often it ran.
    pub calls: u64,
    /// From the begin of each call to its end, together. Calls of different kernels may overlap.
    pub total: Duration,
    /// What all threads spent in it.
    pub busy: Duration,
    /// Bytes that a call reads: every element once.
    pub bytes_read: u64,
    /// Bytes that a call writes.
    pub bytes_written: u64,
    /// Floating-point operations of a call: two for a `mul_add`, `2·m·n·k` for a product, one for each other result of
    /// float arithmetic, functions such as `exp` included.
    pub flops: u64,
}

impl KernelProfile {
    /// Bytes per second, as 10⁹.
    pub fn gigabytes_per_second(&self) -> f64 {
        self.per_nanosecond(self.bytes_read + self.bytes_written)
    }

    /// Floating-point operations per second, as 10⁹.
    pub fn gflops(&self) -> f64 {
        self.per_nanosecond(self.flops)
    }

    fn per_nanosecond(&self, of_a_call: u64) -> f64 {
        of_a_call as f64 * self.calls as f64 / (self.total.as_nanos() as f64).max(1.0)
    }
}

impl Profile {
    pub(super) fn of(store: &Store, start: u64, before: &[Vec<Totals>]) -> Profile {
        let tracks = store.all_tracks();
        let programs = store.bounds.all();
        let since = |now: Totals, then: Totals| Totals {
            calls: now.calls - then.calls,
            elapsed: now.elapsed - then.elapsed,
            busy: now.busy - then.busy,
        };
        let totals = programs.iter().enumerate().map(|(i, bound)| {
            let then = |k: usize| before.get(i).and_then(|b| b.get(k)).copied().unwrap_or_default();
            bound.taken.iter().enumerate().map(|(k, taken)| since(taken.totals(), then(k))).collect()
        });
        let events = tracks.iter().map(|track| TrackEvents {
            name: track.name.clone(),
            is_device: track.is_device,
            events: track.events().into_iter().filter(|e| e.start >= start).collect(),
        });
        Profile {
            totals: totals.collect(),
            tracks: events.filter(|t| !t.events.is_empty()).collect(),
            dropped: tracks.iter().map(|t| t.dropped()).sum(),
            programs,
            duration: Duration::from_nanos(store.now() - start),
        }
    }

    /// How long was recorded.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// How many events there are.
    pub fn events(&self) -> usize {
        self.tracks.iter().map(|t| t.events.len()).sum()
    }

    /// How many events did not fit.
    pub fn dropped_events(&self) -> u64 {
        self.dropped
    }

    /// The same as a remark; empty if there are none.
    pub(super) fn lost(&self) -> String {
        match self.dropped {
            0 => String::new(),
            n => format!(", {n} later ones did not fit (TAPEFLOW_PROFILE_EVENTS keeps more)"),
        }
    }

    /// The kernels that ran, the one that took longest first.
    pub fn kernels(&self) -> Vec<KernelProfile> {
        let mut merged: BTreeMap<_, KernelProfile> = BTreeMap::new();
        for (bound, totals) in self.programs.iter().zip(&self.totals) {
            for ((kernel, sites), total) in bound.kernels.iter().zip(&bound.sites).zip(totals) {
                if total.calls == 0 {
                    continue;
                }
                let one = summed(kernel, sites, Device(bound.on), total);
                let key = (one.name.clone(), one.module.clone(), one.site.clone(), bound.on, kernel.dtype.name());
                let key = (key, one.bytes_read, one.bytes_written, one.flops);
                merged
                    .entry(key)
                    .and_modify(|m| {
                        m.calls += one.calls;
                        m.total += one.total;
                        m.busy += one.busy;
                    })
                    .or_insert(one);
            }
        }
        let mut kernels: Vec<KernelProfile> = merged.into_values().collect();
        kernels.sort_by_key(|k| std::cmp::Reverse(k.total));
        kernels
    }
}

fn summed(kernel: &Described, sites: &[Site], device: Device, total: &Totals) -> KernelProfile {
    KernelProfile {
        name: kernel.name.clone(),
        module: modules(sites),
        site: places(sites),
        device,
        dtype: kernel.dtype,
        calls: total.calls,
        total: Duration::from_nanos(total.elapsed),
        busy: Duration::from_nanos(total.busy),
        bytes_read: kernel.work.read,
        bytes_written: kernel.work.written,
        flops: kernel.work.flops,
    }
}

/// Paths or places that are listed, at most.
const LISTED: usize = 3;

/// The module paths of these sites, each once.
pub(super) fn modules(sites: &[Site]) -> String {
    listed(sites.iter().map(|site| site.path.to_string()).filter(|path| !path.is_empty()))
}

/// The calls of these sites, each once.
pub(super) fn places(sites: &[Site]) -> String {
    listed(sites.iter().map(|site| site.location.to_string()))
}

fn listed(all: impl Iterator<Item = String>) -> String {
    let mut each: Vec<String> = Vec::new();
    for one in all {
        if !each.contains(&one) {
            each.push(one);
        }
    }
    let mut text = each[..each.len().min(LISTED)].join(", ");
    if each.len() > LISTED {
        // Writing into a String cannot fail.
        let _ = write!(text, " and {} more", each.len() - LISTED);
    }
    text
}
