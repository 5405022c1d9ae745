//! Memory that can be executed: written first, then made executable, never both at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Mmap, MmapMut};

/// Functions that may be there at once: each has pages of its own, and systems bound how many mappings a process has
/// (Linux: 65,530). What is beyond runs by primitives.
const MOST: usize = 8192;

/// How many there are.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// `(addresses, rows, cols, constants, pitch)`
type Entry = unsafe extern "sysv64" fn(*const *mut u8, usize, usize, *const u32, usize);

/// A function in memory of its own.
#[derive(Debug)]
pub struct Executable {
    /// The code, and what it reads after it.
    map: Mmap,
    /// Where that begins.
    constants: usize,
    _counted: Counted,
}

/// One of the functions there are.
#[derive(Debug)]
struct Counted(&'static AtomicUsize);

impl Counted {
    fn new(live: &'static AtomicUsize, most: usize) -> Option<Counted> {
        // Where there is no room, `counted` takes itself back.
        let counted = Counted(live);
        (live.fetch_add(1, Ordering::Relaxed) < most).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Executable {
    /// Copies machine code and its constants, which begin at a cache line; `None` where the system gives no such
    /// memory.
    pub fn new(code: &[u8], constants: &[u32]) -> Option<Executable> {
        let counted = Counted::new(&LIVE, MOST)?;
        let at = code.len().next_multiple_of(64);
        let mut map = MmapMut::map_anon(at + size_of_val(constants)).ok()?;
        map[..code.len()].copy_from_slice(code);
        for (place, constant) in map[at..].chunks_exact_mut(4).zip(constants) {
            place.copy_from_slice(&constant.to_ne_bytes());
        }
        let map = map.make_exec().inspect_err(|error| tracing::debug!(%error, "no executable memory")).ok()?;
        Some(Executable { map, constants: at, _counted: counted })
    }

    /// Calls it.
    ///
    /// # Safety
    /// The code is a whole function of this type, made for this machine, and its arguments are what it expects.
    pub unsafe fn run(&self, addresses: *const *mut u8, rows: usize, cols: usize, pitch: usize) {
        // SAFETY: `emit` wrote a function of that type at the beginning of the map, which nothing writes any more; the
        // constants are within it; the rest is as our caller promised.
        unsafe {
            let entry = std::mem::transmute::<*const u8, Entry>(self.map.as_ptr());
            entry(addresses, rows, cols, self.map.as_ptr().add(self.constants).cast(), pitch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_than_so_many_at_once() {
        static LIVE: AtomicUsize = AtomicUsize::new(0);
        let three: Vec<Counted> = std::iter::from_fn(|| Counted::new(&LIVE, 3)).collect();
        assert_eq!((three.len(), LIVE.load(Ordering::Relaxed)), (3, 3));
        drop(three);
        assert!(Counted::new(&LIVE, 3).is_some());
    }
}
