//! Programs with the sites of what they compute. A program is shared by all graphs of one structure; where those were
//! recorded differs, so a recording keeps each pair of a program and its sites once, with what its kernels took.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::device::Kind;
use crate::locks;
use crate::program::work::Described;
use crate::tape::site::Site;

/// Pairs that a recording keeps, at most: one that compiles without end must not take memory without end.
const MOST: usize = 1 << 16;

/// What a kernel took so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub calls: AtomicU64,
    /// Nanoseconds from the begin of each call's first chunk to its end.
    pub elapsed: AtomicU64,
    /// Nanoseconds of all chunks together.
    pub busy: AtomicU64,
}

/// The same, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub calls: u64,
    pub elapsed: u64,
    pub busy: u64,
}

impl Taken {
    pub fn add(&self, elapsed: u64) {
        self.calls.fetch_add(1, Relaxed); // numbers by themselves, here and below
        self.elapsed.fetch_add(elapsed, Relaxed);
    }

    pub fn totals(&self) -> Totals {
        let [calls, elapsed, busy] = [&self.calls, &self.elapsed, &self.busy].map(|n| n.load(Relaxed));
        Totals { calls, elapsed, busy }
    }
}

/// A program's kernels and where each was recorded.
pub(super) struct Bound {
    pub number: u32,
    pub on: Kind,
    pub kernels: Arc<[Described]>,
    /// Per kernel.
    pub sites: Box<[Box<[Site]>]>,
    pub taken: Box<[Taken]>,
}

impl Bound {
    fn fits(&self, sites: &[Site]) -> bool {
        let same =
            |a: &Site, b: Option<&Site>| b.is_some_and(|b| std::ptr::eq(a.location, b.location) && a.path == b.path);
        let kernels = self.kernels.iter().zip(&self.sites);
        kernels
            .flat_map(|(kernel, kept)| kernel.origins.iter().zip(kept))
            .all(|(&origin, kept)| same(kept, sites.get(origin as usize)))
    }
}

/// The pairs of a recording.
#[derive(Default)]
pub(super) struct Bounds(Mutex<Table>);

#[derive(Default)]
struct Table {
    all: Vec<Arc<Bound>>,
    /// By the program's kernels, which a pair keeps alive.
    by_program: HashMap<usize, Vec<u32>>,
}

impl Bounds {
    fn table(&self) -> MutexGuard<'_, Table> {
        locks::lock(&self.0)
    }

    /// The pair of a program and the sites of a run, by canonical number; `None` if there are too many.
    pub fn find(&self, on: Kind, kernels: &Arc<[Described]>, sites: &[Site]) -> Option<Arc<Bound>> {
        let mut table = self.table();
        let Table { all, by_program } = &mut *table;
        let known = by_program.entry(Arc::as_ptr(kernels).addr()).or_default();
        if let Some(&found) = known.iter().find(|&&number| all[number as usize].fits(sites)) {
            return Some(all[found as usize].clone());
        }
        if all.len() == MOST {
            return None;
        }
        let site = |origin: &u32| sites.get(*origin as usize).copied();
        let number = all.len() as u32;
        let bound = Arc::new(Bound {
            number,
            on,
            kernels: kernels.clone(),
            sites: kernels.iter().map(|kernel| kernel.origins.iter().filter_map(site).collect()).collect(),
            taken: kernels.iter().map(|_| Taken::default()).collect(),
        });
        known.push(number);
        all.push(bound.clone());
        Some(bound)
    }

    /// All, by number.
    pub fn all(&self) -> Vec<Arc<Bound>> {
        self.table().all.clone()
    }
}
