//! Packing of a product's right operand into panels that the micro-kernels read from front to back. Owns their format
//! and the transposition in registers; knows no arithmetic and allocates nothing.

use super::micro::Vector;

/// A panel of `b` to be packed: `dst[p · width + j] = src[p · row + j · col]`.
#[derive(Clone, Copy, Debug)]
pub struct Columns<T> {
    /// Where the panel goes: `k · width` elements.
    pub dst: *mut T,
    /// Columns of the panel, whole vectors.
    pub width: usize,
    /// The first element.
    pub src: *const T,
    /// From row to row of the operand, along `k`.
    pub row: isize,
    /// From column to column.
    pub col: isize,
    /// How many rows.
    pub k: usize,
    /// Columns that there are, at least 1; beyond them the panel holds anything, and nobody looks at what comes of it.
    pub cols: usize,
}

/// Packs a panel of `b`.
///
/// # Safety
/// The elements can be read and written, source and panel do not overlap, and the machine has the vector's
/// instructions.
#[inline(always)]
pub unsafe fn columns<V: Vector>(panel: &Columns<V::Element>) {
    let Columns { dst, width, src, row, col, k, cols } = *panel;
    let whole = cols / V::LANES * V::LANES;
    // SAFETY: as our caller promised; a clamped column is one that there is.
    unsafe {
        if col == 1 {
            for p in 0..k {
                let (dst, src) = (dst.add(p * width), src.offset(p as isize * row));
                (0..whole).step_by(V::LANES).for_each(|j| V::load(src.add(j)).store(dst.add(j)));
                for j in whole..cols.next_multiple_of(V::LANES) {
                    *dst.add(j) = *src.add(j.min(cols - 1));
                }
            }
            return;
        }
        let depth = if row == 1 { k / V::LANES * V::LANES } else { 0 };
        for j in (0..cols).step_by(V::LANES) {
            let last = (cols - j).min(V::LANES) - 1;
            let (dst, src) = (dst.add(j), src.offset(j as isize * col));
            for p in (0..depth).step_by(V::LANES) {
                let (dst, src) = (dst.add(p * width), src.add(p));
                if last + 1 == V::LANES {
                    V::transpose(dst, width, src, |j| j as isize * col);
                } else {
                    V::transpose(dst, width, src, |j| j.min(last) as isize * col);
                }
            }
            for p in depth..k {
                for l in 0..V::LANES {
                    *dst.add(p * width + l) = *src.offset(p as isize * row + l.min(last) as isize * col);
                }
            }
        }
    }
}

/// Asks for the cache line at any address, into the second-level cache.
#[inline(always)]
pub fn prefetch<T>(_at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is allowed, and every x86-64 has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(_at.cast())
    }
}

/// What will be packed next, asked for a few cache lines at a time while there is something else to do: packing alone
/// would wait for memory line by line.
#[derive(Clone, Copy, Debug)]
pub struct Ahead<T> {
    /// The first element of the next run.
    at: *const T,
    /// From run to run, how many are left, elements of each.
    step: isize,
    runs: usize,
    run: usize,
    /// Elements of the next run that have been asked for.
    done: usize,
    /// Cache lines asked for at a time.
    lines: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl<T> Ahead<T> {
    /// So many columns of so many terms, in so many turns; nothing if they lie side by side in neither direction.
    pub fn new(at: *const T, (col, row): (isize, isize), (cols, k): (usize, usize), turns: usize) -> Ahead<T> {
        let (step, runs, run) = match (col, row) {
            (1, row) => (row, k, cols),
            (col, 1) => (col, cols, k),
            _ => (0, 0, 0),
        };
        let lines = (run * size_of::<T>()).div_ceil(LINE) * runs;
        Ahead { at, step, runs, run, done: 0, lines: lines.div_ceil(turns.max(1)) }
    }

    /// Nothing.
    pub fn none() -> Ahead<T> {
        Ahead::new(std::ptr::null(), (0, 0), (0, 0), 1)
    }

    /// Asks for a turn's lines.
    #[inline(always)]
    pub fn ask(&mut self) {
        for _ in 0..self.lines {
            if self.runs == 0 {
                return;
            }
            prefetch(self.at.wrapping_add(self.done));
            self.done += LINE / size_of::<T>();
            if self.done >= self.run {
                (self.at, self.runs, self.done) = (self.at.wrapping_offset(self.step), self.runs - 1, 0);
            }
        }
    }
}

/// [`Vector::transpose`] of 16 by 16.
///
/// # Safety
/// As there; the machine has AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn transpose_16(dst: *mut f32, pitch: usize, src: *const f32, column: impl Fn(usize) -> isize) {
    use std::arch::x86_64::*;
    // SAFETY: as our caller promised.
    unsafe {
        for p in (0..16).step_by(4) {
            // Lane `l` (of 4) of `x[i]` is row `4 l + i`: put together while loading, which needs no shuffle.
            let mut x = [_mm512_setzero_ps(); 4];
            for (i, x) in x.iter_mut().enumerate() {
                let four = |l: usize| _mm_loadu_ps(src.offset(column(4 * l + i)).add(p));
                *x = _mm512_broadcast_f32x4(four(0));
                *x = _mm512_mask_broadcast_f32x4(*x, 0x00F0, four(1));
                *x = _mm512_mask_broadcast_f32x4(*x, 0x0F00, four(2));
                *x = _mm512_mask_broadcast_f32x4(*x, 0xF000, four(3));
            }
            let (a, b) = (_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
            let (c, d) = (_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
            _mm512_storeu_ps(dst.add(p * pitch), _mm512_shuffle_ps::<0x44>(a, c));
            _mm512_storeu_ps(dst.add((p + 1) * pitch), _mm512_shuffle_ps::<0xEE>(a, c));
            _mm512_storeu_ps(dst.add((p + 2) * pitch), _mm512_shuffle_ps::<0x44>(b, d));
            _mm512_storeu_ps(dst.add((p + 3) * pitch), _mm512_shuffle_ps::<0xEE>(b, d));
        }
    }
}

/// [`Vector::turned`] of 16.
///
/// # Safety
/// As there; the machine has AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn turned_16(src: *const f32, column: impl Fn(usize) -> isize) -> [std::arch::x86_64::__m512; 16] {
    use std::arch::x86_64::*;
    // SAFETY: as our caller promised.
    unsafe {
        let mut x = [_mm512_setzero_ps(); 16];
        // No closure: one that is not inlined has no vectors.
        for (l, x) in x.iter_mut().enumerate() {
            *x = _mm512_loadu_ps(src.offset(column(l)));
        }
        // Twos, then fours of neighbours: `y[4 i + c]` has in lane `l` (of 4) element `4 l + c` of rows `4 i..4 i + 4`.
        let mut y = x;
        for i in (0..16).step_by(4) {
            let (a, b) = (_mm512_unpacklo_ps(x[i], x[i + 1]), _mm512_unpackhi_ps(x[i], x[i + 1]));
            let (c, d) = (_mm512_unpacklo_ps(x[i + 2], x[i + 3]), _mm512_unpackhi_ps(x[i + 2], x[i + 3]));
            y[i] = _mm512_shuffle_ps::<0x44>(a, c);
            y[i + 1] = _mm512_shuffle_ps::<0xEE>(a, c);
            y[i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
            y[i + 3] = _mm512_shuffle_ps::<0xEE>(b, d);
        }
        // Halves of two, then of four of those.
        for c in 0..4 {
            let (a, b) = (_mm512_shuffle_f32x4::<0x88>(y[c], y[4 + c]), _mm512_shuffle_f32x4::<0xDD>(y[c], y[4 + c]));
            let (d, e) =
                (_mm512_shuffle_f32x4::<0x88>(y[8 + c], y[12 + c]), _mm512_shuffle_f32x4::<0xDD>(y[8 + c], y[12 + c]));
            x[c] = _mm512_shuffle_f32x4::<0x88>(a, d);
            x[4 + c] = _mm512_shuffle_f32x4::<0x88>(b, e);
            x[8 + c] = _mm512_shuffle_f32x4::<0xDD>(a, d);
            x[12 + c] = _mm512_shuffle_f32x4::<0xDD>(b, e);
        }
        x
    }
}

/// [`Vector::transpose`] of 8 by 8.
///
/// # Safety
/// As there; the machine has AVX.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn transpose_8(dst: *mut f32, pitch: usize, src: *const f32, column: impl Fn(usize) -> isize) {
    use std::arch::x86_64::*;
    // SAFETY: as our caller promised.
    unsafe {
        let mut x = [_mm256_setzero_ps(); 8];
        for (j, x) in x.iter_mut().enumerate() {
            *x = _mm256_loadu_ps(src.offset(column(j)));
        }
        // Pairs, then fours: `y[4 i + c]` has in lane `l` (of 2) element `4 l + c` of rows `4 i..4 i + 4`.
        let mut y = x;
        for i in (0..8).step_by(4) {
            let (a, b) = (_mm256_unpacklo_ps(x[i], x[i + 1]), _mm256_unpackhi_ps(x[i], x[i + 1]));
            let (c, d) = (_mm256_unpacklo_ps(x[i + 2], x[i + 3]), _mm256_unpackhi_ps(x[i + 2], x[i + 3]));
            y[i] = _mm256_shuffle_ps::<0x44>(a, c);
            y[i + 1] = _mm256_shuffle_ps::<0xEE>(a, c);
            y[i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            y[i + 3] = _mm256_shuffle_ps::<0xEE>(b, d);
        }
        for c in 0..4 {
            _mm256_storeu_ps(dst.add(c * pitch), _mm256_permute2f128_ps::<0x20>(y[c], y[4 + c]));
            _mm256_storeu_ps(dst.add((4 + c) * pitch), _mm256_permute2f128_ps::<0x31>(y[c], y[4 + c]));
        }
    }
}
