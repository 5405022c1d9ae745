//! Host memory: aligned blocks that are kept and lent again, so that a steady training step asks the system for
//! nothing. Owns allocation and its accounting; knows no tensors.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;

use crate::error::Problem;
use crate::locks;

/// Every block starts at a multiple of this: a cache line, and the widest vector register.
pub(crate) const ALIGN: usize = 64;

/// Blocks of at least this many bytes begin at multiples of it and ask for pages of this size: a walk over many small
/// pages waits for their translation, several times as long on a virtual machine.
const HUGE_PAGE: usize = 2 << 20;

/// Host memory of one tensor or one arena.
#[derive(Debug)]
pub(crate) struct Block {
    address: NonNull<u8>,
    /// Bytes asked for.
    len: usize,
    /// Bytes of the block: a size class.
    class: usize,
}

// SAFETY: a block is plain memory; who may write it when is decided by the programs that bind it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

#[derive(Default)]
struct Shelf {
    /// Blocks nobody uses, by size class.
    idle: HashMap<usize, Vec<NonNull<u8>>>,
    idle_bytes: usize,
    live_bytes: usize,
    peak_bytes: usize,
    limit: Option<usize>,
    from_system: u64,
}

// SAFETY: the pointers on the shelf are owned by it alone.
unsafe impl Send for Shelf {}

static SHELF: Mutex<Option<Shelf>> = Mutex::new(None);

/// What the host memory of tensors amounts to, in bytes.
pub(crate) struct Totals {
    pub live: usize,
    pub peak: usize,
    pub idle: usize,
    pub system_allocations: u64,
}

pub(crate) fn totals() -> Totals {
    with_shelf(|s| Totals {
        live: s.live_bytes,
        peak: s.peak_bytes,
        idle: s.idle_bytes,
        system_allocations: s.from_system,
    })
}

/// Starts a new measurement of the peak.
pub fn reset_memory_peak() {
    with_shelf(|s| s.peak_bytes = s.live_bytes);
}

/// Refuses to hold more than `bytes` in tensors at once; `None` lifts the limit.
pub fn set_memory_limit(bytes: Option<usize>) {
    with_shelf(|s| s.limit = bytes);
}

fn with_shelf<T>(f: impl FnOnce(&mut Shelf) -> T) -> T {
    let mut guard = locks::lock(&SHELF);
    f(guard.get_or_insert_default())
}

/// Sizes are rounded up so that few classes serve many shapes: to a cache line when small, to an eighth of the power of
/// two below when not.
fn size_class(bytes: usize) -> Option<usize> {
    if bytes <= 4096 {
        return Some(bytes.max(1).next_multiple_of(ALIGN));
    }
    let step = (1usize << (usize::BITS - 1 - bytes.leading_zeros())) / 8;
    bytes.checked_next_multiple_of(step)
}

impl Block {
    /// A block of `len` bytes with unspecified contents.
    pub fn new(len: usize, purpose: &'static str) -> Result<Block, Problem> {
        let refused = |reason: &str| Problem::Memory { needed: len, purpose, reason: reason.into() };
        let class = size_class(len).filter(|&c| c < isize::MAX as usize - ALIGN);
        let class = class.ok_or_else(|| refused("no machine has as many"))?;
        let kept = with_shelf(|s| {
            if let Some(limit) = s.limit
                && s.live_bytes + class > limit
            {
                return Err(refused(&format!("{} are in use and the limit is {limit}", s.live_bytes)));
            }
            s.live_bytes += class;
            s.peak_bytes = s.peak_bytes.max(s.live_bytes);
            let kept = s.idle.get_mut(&class).and_then(Vec::pop);
            match kept {
                Some(_) => s.idle_bytes -= class,
                None => s.from_system += 1,
            }
            Ok(kept)
        })?;
        let address = kept.or_else(|| system_alloc(class)).or_else(|| {
            // What is kept for later may be what is missing now.
            give_back_idle();
            system_alloc(class)
        });
        let Some(address) = address else {
            with_shelf(|s| s.live_bytes -= class);
            return Err(refused("the system has no more memory"));
        };
        Ok(Block { address, len, class })
    }

    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    /// Bytes asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A block holding a copy of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Block, Problem> {
        let block = Block::new(bytes.len(), "a tensor")?;
        // SAFETY: the block has at least `bytes.len()` bytes and is ours alone.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), block.as_ptr(), bytes.len()) };
        Ok(block)
    }

    /// The contents.
    ///
    /// # Safety
    /// All bytes were written, and nobody writes them while the slice lives.
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the block has `len` bytes; the caller answers for their contents.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }
}

/// Returns every idle block to the system.
fn give_back_idle() {
    let blocks: Vec<_> = with_shelf(|s| {
        s.idle_bytes = 0;
        s.idle.drain().collect()
    });
    for (class, addresses) in blocks {
        addresses.into_iter().for_each(|address| system_free(address, class));
    }
}

fn block_layout(class: usize) -> Option<Layout> {
    Layout::from_size_align(class, if class >= HUGE_PAGE { HUGE_PAGE } else { ALIGN }).ok()
}

fn system_alloc(class: usize) -> Option<NonNull<u8>> {
    // SAFETY: classes are at least `ALIGN` bytes.
    let address = block_layout(class).and_then(|layout| NonNull::new(unsafe { alloc(layout) }))?;
    want_huge_pages(address, class);
    Some(address)
}

/// Asks for huge pages where whole ones fit. A system that has none to give gives small ones.
fn want_huge_pages(address: NonNull<u8>, class: usize) {
    #[cfg(target_os = "linux")]
    if class >= HUGE_PAGE {
        let whole = class & !(HUGE_PAGE - 1);
        // SAFETY: the range lies in the block and begins at a page; the advice changes no contents.
        unsafe { libc::madvise(address.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (address, class);
}

fn system_free(address: NonNull<u8>, class: usize) {
    if let Some(layout) = block_layout(class) {
        // SAFETY: the block came from `system_alloc` with the same class.
        unsafe { dealloc(address.as_ptr(), layout) };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let surplus = with_shelf(|s| {
            s.live_bytes -= self.class;
            s.idle.entry(self.class).or_default().push(self.address);
            s.idle_bytes += self.class;
            // What is kept never exceeds what has been in use at once: a run's peak can come again.
            let mut surplus = Vec::new();
            if s.idle_bytes + s.live_bytes > s.peak_bytes.max(1 << 26) + (s.peak_bytes >> 3) {
                for (&class, blocks) in &mut s.idle {
                    if class != self.class {
                        s.idle_bytes -= class * blocks.len();
                        surplus.extend(blocks.drain(..).map(|b| (b, class)));
                    }
                }
            }
            surplus
        });
        for (address, class) in surplus {
            system_free(address, class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in [0, 1, 64, 65, 4096, 4097, 10_000, 1 << 20, (1 << 20) + 1, 123_456_789] {
            let class = size_class(bytes).unwrap();
            assert!(class >= bytes && class.is_multiple_of(ALIGN));
            assert!(bytes < 4096 || class - bytes <= bytes / 8, "{bytes} -> {class}");
        }
        assert_eq!(size_class(usize::MAX), None);
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert!(matches!(Block::new(usize::MAX, "a test"), Err(Problem::Memory { .. })));
        assert!(matches!(Block::new(1 << 60, "a test"), Err(Problem::Memory { .. })));
    }
}
