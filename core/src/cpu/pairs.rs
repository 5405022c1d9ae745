//! Sums of products of bf16 in the instructions made for them: lanes take two neighbouring terms at once. Owns the
//! element that holds such a pair, its vector and micro-kernels; knows neither the cut nor where pairs come from.
//!
//! Each lane adds a pair of products to its f32 sum, the second term's first. Numbers below the normal ones count as
//! zero, and become zero. Pairs are added in order, in blocks as `matmul` says.

use super::isa::Isa;
use super::micro::{Element, Micro};
use super::vector::{BLOCK, Body, Call, Primitive, select};

/// Two neighbouring terms in bf16, or the f32 of a sum: a lane's bits. It lies wherever a bf16 may.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Pair([u16; 2]);

impl Pair {
    /// The sum that it holds.
    fn sum(self) -> f32 {
        f32::from_bits(u32::from(self.0[0]) | u32::from(self.0[1]) << 16)
    }
}

impl Element for Pair {
    const ZERO: Pair = Pair([0; 2]);

    fn micro(isa: Isa) -> &'static Micro<Pair> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => &x86::MICRO,
            _ => unreachable!("invariant: pairs are products' elements only where an instruction multiplies them"),
        }
    }

    fn plain(_: Isa) -> Option<Primitive> {
        None
    }

    #[inline(always)]
    fn plus(self, other: Pair) -> Pair {
        let bits = (self.sum() + other.sum()).to_bits();
        Pair([bits as u16, (bits >> 16) as u16])
    }
}

/// Makes pairs of two lines of terms, or of one and zeros.
pub fn interleave(isa: Isa) -> Primitive {
    select::<Interleave>(isa)
}

struct Interleave;

impl Body for Interleave {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        let (dst, cols) = (call.dst.cast::<Pair>(), call.cols);
        let [x, y, _] = call.src.map(|src| src.cast::<u16>());
        // SAFETY: as our caller promised, there are `cols` terms in each line and pairs to be written.
        unsafe {
            if y.is_null() {
                (0..cols).for_each(|l| *dst.add(l) = Pair([*x.add(l), 0]));
                return;
            }
            let whole = cols / BLOCK * BLOCK;
            for l in (0..whole).step_by(BLOCK) {
                let (x, y) = (*x.add(l).cast::<[u16; BLOCK]>(), *y.add(l).cast::<[u16; BLOCK]>());
                // As numbers: the compiler finds vectors of them, and none of `Pair`s.
                let mut pairs = [0u32; BLOCK];
                (0..BLOCK).for_each(|l| pairs[l] = u32::from(x[l]) | u32::from(y[l]) << 16);
                dst.add(l).cast::<[u32; BLOCK]>().write_unaligned(pairs.map(u32::to_le));
            }
            (whole..cols).for_each(|l| *dst.add(l) = Pair([*x.add(l), *y.add(l)]));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::micro::{Subtract, Tile, Vector, micro, table, thins};
    use super::super::pack::{self, Columns};
    use super::super::thin::Thin;
    use super::super::windows::Panel;
    use super::{Micro, Pair};
    use std::arch::x86_64::*;

    /// A register of pairs, or of sums.
    #[derive(Clone, Copy)]
    pub struct Pairs(__m512);

    impl Vector for Pairs {
        type Element = Pair;
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the machine has the instruction, as our caller promised.
            Pairs(unsafe { _mm512_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn load(src: *const Pair) -> Self {
            // SAFETY: as our caller promised.
            Pairs(unsafe { _mm512_loadu_ps(src.cast()) })
        }
        #[inline(always)]
        unsafe fn splat(src: *const Pair) -> Self {
            // SAFETY: as our caller promised.
            Pairs(unsafe { _mm512_set1_ps(src.cast::<f32>().read_unaligned()) })
        }
        #[inline(always)]
        unsafe fn store(self, dst: *mut Pair) {
            // SAFETY: as our caller promised.
            unsafe { _mm512_storeu_ps(dst.cast(), self.0) }
        }
        #[inline(always)]
        fn prefetch(at: *const Pair) {
            // SAFETY: a prefetch of any address is allowed, and every x86-64 has it.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
        #[inline(always)]
        fn prefetch_far(at: *const Pair) {
            // SAFETY: as for `prefetch`.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            // SAFETY: the machine has the instruction, as our caller promised.
            Pairs(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            // SAFETY: the machine has the instruction, as our caller promised; the types are the same 512 bits.
            unsafe {
                let pairs = |x: Pairs| std::mem::transmute::<__m512, __m512bh>(x.0);
                Pairs(_mm512_dpbf16_ps(self.0, pairs(a), pairs(b)))
            }
        }
        #[inline(always)]
        unsafe fn transpose(dst: *mut Pair, pitch: usize, src: *const Pair, column: impl Fn(usize) -> isize) {
            // SAFETY: as our caller promised; bits are moved, whatever they mean.
            unsafe { pack::transpose_16(dst.cast(), pitch, src.cast(), column) }
        }
    }

    impl Subtract for Pairs {
        #[inline(always)]
        unsafe fn minus(self, other: Self) -> Self {
            // SAFETY: the machine has the instruction, as our caller promised.
            Pairs(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
    }

    micro!(pairs, Pairs, Pair, [1 2 3 4 5 6 7 8], [1 2 3], "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2");
    pub use pairs::MICRO;
}
