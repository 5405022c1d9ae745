//! The vectors of x86-64 with AVX-512 and AVX2, and their micro-kernels. Owns which instruction does what.

use super::*;
use crate::cpu::pack;
use std::arch::x86_64::*;

macro_rules! vector {
    ($v:ty, $t:ty, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $store:ident, $add:ident, $sub:ident,
        $fma:ident $(, $transpose:ident, $some:ident, $store_some:ident, $evens_some:ident, $woven:ident
            $(, $turned:ident, $quads:ident)?)?) => {
        impl Vector for $v {
            type Element = $t;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the machine has the instruction, as our caller promised.
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(src: *const $t) -> Self {
                // SAFETY: as our caller promised.
                unsafe { $load(src) }
            }
            #[inline(always)]
            unsafe fn splat(src: *const $t) -> Self {
                // SAFETY: as our caller promised.
                unsafe { $splat(*src) }
            }
            #[inline(always)]
            unsafe fn store(self, dst: *mut $t) {
                // SAFETY: as our caller promised.
                unsafe { $store(dst, self) }
            }
            #[inline(always)]
            fn prefetch(at: *const $t) {
                // SAFETY: a prefetch of any address is allowed, and every x86-64 has it.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
            }
            #[inline(always)]
            fn prefetch_far(at: *const $t) {
                // SAFETY: as for `prefetch`.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
            }
            #[inline(always)]
            unsafe fn plus(self, other: Self) -> Self {
                // SAFETY: the machine has the instruction, as our caller promised.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
                // SAFETY: the machine has the instruction, as our caller promised.
                unsafe { $fma(a, b, self) }
            }
            $(#[inline(always)]
            unsafe fn transpose(dst: *mut $t, pitch: usize, src: *const $t, column: impl Fn(usize) -> isize) {
                // SAFETY: as our caller promised.
                unsafe { pack::$transpose(dst, pitch, src, column) }
            }
            $(#[inline(always)]
            unsafe fn turned(src: *const $t, column: impl Fn(usize) -> isize) -> [Self; 16] {
                // SAFETY: as our caller promised.
                unsafe { pack::$turned(src, column) }
            }
            #[inline(always)]
            unsafe fn quads(src: *const $t, lanes: [u32; 4]) -> [Self; 4] {
                // SAFETY: as our caller promised.
                unsafe { $quads(src, lanes) }
            })?
            const HAS_MASKS: bool = true;
            #[inline(always)]
            unsafe fn load_some(src: *const $t, lanes: u32) -> Self {
                // SAFETY: as our caller promised.
                unsafe { $some(src, lanes) }
            }
            #[inline(always)]
            unsafe fn store_some(self, dst: *mut $t, count: usize) {
                // SAFETY: as our caller promised.
                unsafe { $store_some(self, dst, count) }
            }
            #[inline(always)]
            unsafe fn evens_some(src: *const $t, elements: u32) -> Self {
                // SAFETY: as our caller promised.
                unsafe { $evens_some(src, elements) }
            }
            #[inline(always)]
            unsafe fn weave(dst: [*mut $t; 2], src: [*const $t; 2]) {
                // SAFETY: as our caller promised.
                unsafe {
                    let [first, second] = Self::load(src[0]).woven(Self::load(src[1]));
                    first.store(dst[0]);
                    second.store(dst[1]);
                }
            }
            #[inline(always)]
            unsafe fn woven(self, other: Self) -> [Self; 2] {
                // SAFETY: the machine has the instructions, as our caller promised.
                unsafe { $woven(self, other) }
            })?
        }

        impl Subtract for $v {
            #[inline(always)]
            unsafe fn minus(self, other: Self) -> Self {
                // SAFETY: the machine has the instruction, as our caller promised.
                unsafe { $sub(self, other) }
            }
        }
    };
}
vector!(
    __m512,
    f32,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_fmadd_ps,
    transpose_16,
    some_16,
    store_some_16,
    evens_some_16,
    woven_16,
    turned_16,
    quads_16
);
vector!(
    __m512d,
    f64,
    8,
    _mm512_setzero_pd,
    _mm512_loadu_pd,
    _mm512_set1_pd,
    _mm512_storeu_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_fmadd_pd
);
vector!(
    __m256,
    f32,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_fmadd_ps,
    transpose_8,
    some_8,
    store_some_8,
    evens_some_8,
    woven_8
);
vector!(
    __m256d,
    f64,
    4,
    _mm256_setzero_pd,
    _mm256_loadu_pd,
    _mm256_set1_pd,
    _mm256_storeu_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_fmadd_pd
);

/// [`Vector::load_some`] of 16.
#[inline(always)]
unsafe fn some_16(src: *const f32, lanes: u32) -> __m512 {
    // SAFETY: what is left out is not read.
    unsafe { _mm512_maskz_loadu_ps(lanes as u16, src) }
}

/// [`Vector::load_some`] of 8.
#[inline(always)]
unsafe fn some_8(src: *const f32, lanes: u32) -> __m256 {
    // SAFETY: what is left out is not read.
    unsafe {
        let bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        let which = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(lanes as i32), bit), bit);
        _mm256_maskload_ps(src, which)
    }
}

/// [`Vector::store_some`] of 16.
#[inline(always)]
unsafe fn store_some_16(vector: __m512, dst: *mut f32, count: usize) {
    // SAFETY: what is left out is not written.
    unsafe { _mm512_mask_storeu_ps(dst, ((1u32 << count) - 1) as u16, vector) }
}

/// [`Vector::store_some`] of 8: in pieces, since stores under a mask are slow on some machines without AVX-512.
#[inline(always)]
unsafe fn store_some_8(vector: __m256, mut dst: *mut f32, count: usize) {
    // SAFETY: the pieces are as long as `count` together.
    unsafe {
        if count >= 8 {
            return _mm256_storeu_ps(dst, vector);
        }
        let mut left = _mm256_castps256_ps128(vector);
        if count & 4 != 0 {
            _mm_storeu_ps(dst, left);
            (left, dst) = (_mm256_extractf128_ps::<1>(vector), dst.add(4));
        }
        if count & 2 != 0 {
            _mm_store_sd(dst.cast(), _mm_castps_pd(left));
            (left, dst) = (_mm_movehl_ps(left, left), dst.add(2));
        }
        if count & 1 != 0 {
            _mm_store_ss(dst, left);
        }
    }
}

/// [`Vector::evens_some`] of 16.
#[inline(always)]
unsafe fn evens_some_16(src: *const f32, elements: u32) -> __m512 {
    // SAFETY: what is left out is not read.
    unsafe {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let [low, high] = [some_16(src, elements & 0xFFFF), some_16(src.wrapping_add(16), elements >> 16)];
        _mm512_permutex2var_ps(low, even, high)
    }
}

/// [`Vector::evens_some`] of 8.
#[inline(always)]
unsafe fn evens_some_8(src: *const f32, elements: u32) -> __m256 {
    // SAFETY: what is left out is not read.
    unsafe {
        let [low, high] = [some_8(src, elements & 0xFF), some_8(src.wrapping_add(8), elements >> 8)];
        // Within each half, first those of the low vector.
        let halves = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(low, high));
        _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(halves))
    }
}

/// [`Vector::quads`] of 16: each element is read once.
#[inline(always)]
unsafe fn quads_16(src: *const f32, lanes: [u32; 4]) -> [__m512; 4] {
    // SAFETY: what is left out is not read.
    unsafe {
        let [a, b, c, d] = lanes.map(u64::from);
        let (even, odd) = (_pdep_u64(a | c << 1, 0x5555_5555_5555_5555), _pdep_u64(b | d << 1, 0xAAAA_AAAA_AAAA_AAAA));
        let bits = even | odd;
        let [low, middle, high] = [0, 16, 32].map(|at| some_16(src.wrapping_add(at), (bits >> at) as u32 & 0xFFFF));
        let evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
        let (even, odd) = (_mm512_permutex2var_ps(low, evens, middle), _mm512_permutex2var_ps(low, odds, middle));
        // A lane further, and one of what follows.
        let next = _mm512_setr_epi32(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
        let last = _mm512_mask_set1_epi32(next, 1 << 15, 17);
        let [a, b, c, d] = lanes.map(|lanes| lanes as u16);
        [
            _mm512_maskz_mov_ps(a, even),
            _mm512_maskz_mov_ps(b, odd),
            _mm512_maskz_permutex2var_ps(c, even, next, high),
            _mm512_maskz_permutex2var_ps(d, odd, last, high),
        ]
    }
}

/// [`Vector::woven`] of 16.
#[inline(always)]
unsafe fn woven_16(a: __m512, b: __m512) -> [__m512; 2] {
    // SAFETY: as our caller promised.
    unsafe {
        let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
        [_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)]
    }
}

/// [`Vector::woven`] of 8.
#[inline(always)]
unsafe fn woven_8(a: __m256, b: __m256) -> [__m256; 2] {
    // SAFETY: as our caller promised.
    unsafe {
        let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
    }
}

micro!(f32x16, __m512, f32, [1 2 3 4 5 6 7 8], [1 2 3], "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2");
micro!(f64x8, __m512d, f64, [1 2 3 4 5 6 7 8], [1 2 3], "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2");
micro!(f32x8, __m256, f32, [1 2 3 4 5 6], [1 2], "avx2,fma,bmi2");
micro!(f64x4, __m256d, f64, [1 2 3 4 5 6], [1 2], "avx2,fma,bmi2");
