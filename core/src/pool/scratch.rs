//! Scratch memory: one aligned buffer per thread, grown as needed and kept.
//! Owns the buffers; knows not what they are used for.

use std::cell::Cell;

const ALIGNMENT: usize = 64;

/// The unit of allocation: a cache line, and the widest vector register.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "seen through a view as bytes")] [u8; ALIGNMENT]);

thread_local! {
    static BUFFER: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's scratch, `bytes` long and 64-byte aligned; what it contains is unspecified.
///
/// Inside `work`, a second call gets a buffer of its own.
pub(super) fn with<R>(bytes: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut lines = BUFFER.take();
    let needed = bytes.div_ceil(ALIGNMENT);
    if lines.len() < needed {
        lines.clear(); // nothing in it is worth copying
        lines.resize(needed, Line([0; ALIGNMENT]));
    }
    // SAFETY: `lines` owns at least `needed · 64 ≥ bytes` initialised bytes and is borrowed by nobody else; u8 has no
    // alignment and no invalid values, so neither view can break the other.
    let scratch = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<u8>(), bytes) };
    let result = work(scratch);
    BUFFER.set(lines);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_aligned_bytes_and_keeps_the_buffer() {
        with(100, |scratch| {
            assert_eq!(scratch.len(), 100);
            assert_eq!(scratch.as_ptr() as usize % ALIGNMENT, 0);
            scratch.fill(7);
            with(10, |inner| assert_ne!(inner.as_ptr(), scratch.as_ptr()));
        });
        let large = with(1000, |scratch| scratch.as_ptr() as usize);
        let small = with(0, |scratch| (scratch.len(), scratch.as_ptr() as usize));
        assert_eq!(small, (0, large));
    }
}
