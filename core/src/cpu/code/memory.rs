//! Memory that can be executed: written first, then made executable, never both at once.

use memmap2::{Mmap, MmapMut};

/// `(addresses, rows, cols, constants)`
type Entry = unsafe extern "sysv64" fn(*const *mut u8, usize, usize, *const u32);

/// A function in memory of its own.
#[derive(Debug)]
pub struct Executable {
    map: Mmap,
    constants: Vec<u32>,
}

impl Executable {
    /// Copies machine code; `None` where the system gives no such memory.
    pub fn new(code: &[u8], constants: Vec<u32>) -> Option<Executable> {
        let mut map = MmapMut::map_anon(code.len()).ok()?;
        map.copy_from_slice(code);
        let map = map.make_exec().inspect_err(|error| tracing::debug!(%error, "no executable memory")).ok()?;
        Some(Executable { map, constants })
    }

    /// Calls it.
    ///
    /// # Safety
    /// The code is a whole function of this type, made for this machine, and its arguments are what it expects.
    pub unsafe fn run(&self, addresses: *const *mut u8, rows: usize, cols: usize) {
        // SAFETY: `emit` wrote a function of that type at the beginning of the map, which nothing writes any more; the
        // rest is as our caller promised.
        unsafe {
            let entry = std::mem::transmute::<*const u8, Entry>(self.map.as_ptr());
            entry(addresses, rows, cols, self.constants.as_ptr());
        }
    }
}
