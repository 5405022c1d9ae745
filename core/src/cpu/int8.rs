//! Products with weights of eight bits: codes become floats in registers, next to the sums.
//! Owns the loops and their cut into rows of the weight; knows nothing of where codes come from.
//!
//! Every sum runs over 16 lanes in order and a tree, so its bits depend on its length alone, and on whether the
//! instruction set fuses multiplication and addition.

use std::fmt;
use std::ops::Range;

use super::blocks::Blocked;
use super::isa::Isa;
use super::micro::{Portable, Vector};
use super::vector::tree;
use crate::program::kernel::{Args, Executable, LinearInt8, RunError};

/// Rows of the weight that are read at a time.
const ACROSS: usize = 4;
/// Lanes of a sum, on every instruction set.
const LANES: usize = 16;
/// Codes of a cache line.
const LINE: usize = 64;
/// Bytes of codes of a chunk, about: they stay in the second-level cache while all rows pass by.
const CHUNK_BYTES: usize = 64 << 10;

/// A compiled product.
pub struct Int8Kernel {
    m: usize,
    n: usize,
    k: usize,
    /// Rows of the weight in a chunk.
    rows: usize,
    run: unsafe fn(&Part),
}

impl fmt::Debug for Int8Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinearInt8({}x{}x{}, {} rows)", self.m, self.n, self.k, self.rows)
    }
}

impl Int8Kernel {
    /// Of these extents.
    pub fn new(&LinearInt8 { m, n, k }: &LinearInt8, isa: Isa) -> Int8Kernel {
        let rows = (CHUNK_BYTES / k.max(1)).next_multiple_of(ACROSS).clamp(ACROSS, 512);
        Int8Kernel { m, n, k, rows, run: of_part(isa) }
    }
}

/// What a chunk computes: `c[i, j] = scale[j] · Σ a[i, p] · (codes[j, p] − 128)` of `rows` rows `j`.
struct Part {
    m: usize,
    k: usize,
    rows: usize,
    a: *const f32,
    codes: *const u8,
    scales: *const f32,
    c: *mut f32,
    /// From row to row of the result.
    pitch: usize,
}

impl Executable for Int8Kernel {
    fn chunks(&self) -> usize {
        if self.m == 0 { 0 } else { self.n.div_ceil(self.rows) }
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn cost(&self) -> u64 {
        50 + (self.n * (self.k + 1)).saturating_mul(self.m + 1) as u64 / 100
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, _: &mut [u8]) -> Result<(), RunError> {
        let first = chunk * self.rows;
        // SAFETY: operands are contiguous and of the extents, chunks write columns of their own.
        unsafe {
            (self.run)(&Part {
                m: self.m,
                k: self.k,
                rows: self.rows.min(self.n - first),
                a: args.operands[0].cast::<f32>().cast_const(),
                codes: args.operands[1].add(first * self.k).cast_const(),
                scales: args.operands[2].cast::<f32>().add(first).cast_const(),
                c: args.operands[3].cast::<f32>().add(first),
                pitch: self.n,
            });
        }
        Ok(())
    }
}

impl Blocked for Int8Kernel {
    fn lines(&self) -> (usize, usize) {
        (self.m, self.n)
    }

    fn block(&self, chunk: usize) -> Option<[Range<usize>; 2]> {
        let first = chunk * self.rows;
        Some([0..self.m, first..(first + self.rows).min(self.n)])
    }
}

/// A vector that codes can be read into.
trait Codes: Vector<Element = f32> {
    /// What `LANES` codes count.
    ///
    /// # Safety
    /// They can be read; the machine has the instruction set.
    unsafe fn codes(src: *const u8) -> Self;
}

impl<const L: usize> Codes for Portable<f32, L> {
    #[inline(always)]
    unsafe fn codes(src: *const u8) -> Self {
        // SAFETY: as our caller promised.
        let codes = unsafe { src.cast::<[u8; L]>().read() };
        Portable(std::array::from_fn(|l| f32::from((codes[l] ^ 0x80) as i8)))
    }
}

/// The loops for an instruction set.
fn of_part(isa: Isa) -> unsafe fn(&Part) {
    match isa.vectors() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::avx2,
        _ => all::<Portable<f32, 4>, 4, 1>,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    impl Codes for __m512 {
        #[inline(always)]
        unsafe fn codes(src: *const u8) -> Self {
            // SAFETY: as our caller promised.
            unsafe {
                let signed = _mm_xor_si128(_mm_loadu_si128(src.cast()), _mm_set1_epi8(i8::MIN));
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(signed))
            }
        }
    }

    impl Codes for __m256 {
        #[inline(always)]
        unsafe fn codes(src: *const u8) -> Self {
            // SAFETY: as our caller promised.
            unsafe {
                let signed = _mm_xor_si128(_mm_loadl_epi64(src.cast()), _mm_set1_epi8(i8::MIN));
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(signed))
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")]
    pub unsafe fn avx512(part: &Part) {
        // SAFETY: as our caller promised.
        unsafe { all::<__m512, 1, 4>(part) }
    }

    #[target_feature(enable = "avx2,fma,bmi2")]
    pub unsafe fn avx2(part: &Part) {
        // SAFETY: as our caller promised.
        unsafe { all::<__m256, 2, 1>(part) }
    }
}

/// A chunk, `R` rows of `a` at a time; `G` vectors are the lanes of a sum.
///
/// # Safety
/// The addresses suit the part, and the machine has the instruction set.
#[inline(always)]
unsafe fn all<V: Codes, const G: usize, const R: usize>(part: &Part) {
    let mut i = 0;
    // SAFETY: as our caller promised.
    unsafe {
        while i + R <= part.m {
            across::<V, G, R>(part, i);
            i += R;
        }
        while i < part.m {
            across::<V, G, 1>(part, i);
            i += 1;
        }
    }
}

/// `R` rows from `i` on by all rows of the weight.
///
/// # Safety
/// As for [`all`].
#[inline(always)]
unsafe fn across<V: Codes, const G: usize, const R: usize>(part: &Part, i: usize) {
    let mut j = 0;
    // SAFETY: as our caller promised.
    unsafe {
        while j + ACROSS <= part.rows {
            tile::<V, G, R, ACROSS>(part, i, j);
            j += ACROSS;
        }
        while j < part.rows {
            tile::<V, G, R, 1>(part, i, j);
            j += 1;
        }
    }
}

/// `R` rows from `i` on by `W` rows of the weight from `j` on.
///
/// # Safety
/// As for [`all`].
#[inline(always)]
unsafe fn tile<V: Codes, const G: usize, const R: usize, const W: usize>(part: &Part, i: usize, j: usize) {
    let k = part.k;
    let whole = k / LANES * LANES;
    // SAFETY: as our caller promised; what is only asked for may lie anywhere. The last block is copied as far as it
    // goes: zeros add nothing.
    unsafe {
        let (a, codes) = (part.a.add(i * k), part.codes.add(j * k));
        let mut sums = [[[V::zero(); G]; W]; R];
        for p in (0..whole).step_by(LANES) {
            if p % LINE == 0 {
                // The same place of the next rows.
                (0..W).for_each(|w| V::prefetch(codes.wrapping_add((W + w) * k + p).cast()));
            }
            block::<V, G, R, W>(&mut sums, (a.add(p), k), (codes.add(p), k));
        }
        if whole < k {
            let (mut x, mut last) = ([[0f32; LANES]; R], [[128u8; LANES]; W]);
            for p in whole..k {
                (0..R).for_each(|r| x[r][p - whole] = *a.add(r * k + p));
                (0..W).for_each(|w| last[w][p - whole] = *codes.add(w * k + p));
            }
            block::<V, G, R, W>(&mut sums, (x.as_ptr().cast(), LANES), (last.as_ptr().cast(), LANES));
        }
        for (r, sums) in sums.iter().enumerate() {
            for (w, sums) in sums.iter().enumerate() {
                let mut lanes = [0f32; LANES];
                (0..G).for_each(|g| sums[g].store(lanes.as_mut_ptr().add(g * V::LANES)));
                *part.c.add((i + r) * part.pitch + j + w) = tree(&mut lanes, |a, b| a + b) * *part.scales.add(j + w);
            }
        }
    }
}

/// Adds the products of `LANES` terms; operands with what lies from row to row.
///
/// # Safety
/// They can be read, and the machine has the instruction set.
#[inline(always)]
unsafe fn block<V: Codes, const G: usize, const R: usize, const W: usize>(
    sums: &mut [[[V; G]; W]; R],
    (a, a_row): (*const f32, usize),
    (codes, row): (*const u8, usize),
) {
    for g in 0..G {
        // SAFETY: as our caller promised.
        unsafe {
            let mut weights = [V::zero(); W];
            (0..W).for_each(|w| weights[w] = V::codes(codes.add(w * row + g * V::LANES)));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = V::load(a.add(r * a_row + g * V::LANES));
                (0..W).for_each(|w| sums[w][g] = sums[w][g].multiply_add(x, weights[w]));
            }
        }
    }
}
