//! The vectors of AArch64 with NEON, and their micro-kernels. Owns which instruction does what.

use super::*;
use std::arch::aarch64::*;

macro_rules! vector {
    ($v:ty, $t:ty, $lanes:literal, $set:ident, $load:ident, $splat:ident, $store:ident, $add:ident, $sub:ident,
        $fma:ident, $pairs:ident $(, $transpose:ident)?) => {
        impl Vector for $v {
            type Element = $t;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: every AArch64 that this is compiled for has the instruction.
                unsafe { $set(0.0) }
            }
            #[inline(always)]
            unsafe fn load(src: *const $t) -> Self {
                // SAFETY: as our caller promised.
                unsafe { $load(src) }
            }
            #[inline(always)]
            unsafe fn splat(src: *const $t) -> Self {
                // SAFETY: as our caller promised.
                unsafe { $splat(src) }
            }
            #[inline(always)]
            unsafe fn store(self, dst: *mut $t) {
                // SAFETY: as our caller promised.
                unsafe { $store(dst, self) }
            }
            #[inline(always)]
            fn prefetch(at: *const $t) {
                // SAFETY: a prefetch of any address is allowed.
                unsafe {
                    std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(readonly, nostack, preserves_flags));
                }
            }
            #[inline(always)]
            fn prefetch_far(at: *const $t) {
                // SAFETY: as for `prefetch`.
                unsafe {
                    std::arch::asm!("prfm pldl2keep, [{}]", in(reg) at, options(readonly, nostack, preserves_flags));
                }
            }
            #[inline(always)]
            unsafe fn plus(self, other: Self) -> Self {
                // SAFETY: every AArch64 that this is compiled for has the instruction.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
                // SAFETY: every AArch64 that this is compiled for has the instruction.
                unsafe { $fma(self, a, b) }
            }
            #[inline(always)]
            unsafe fn evens(dst: *mut $t, src: *const $t) {
                // SAFETY: as our caller promised.
                unsafe { $store(dst, $pairs(src).0) }
            }
            $(#[inline(always)]
            unsafe fn transpose(dst: *mut $t, pitch: usize, src: *const $t, column: impl Fn(usize) -> isize) {
                // SAFETY: as our caller promised.
                unsafe { $transpose(dst, pitch, src, column) }
            })?
        }

        impl Subtract for $v {
            #[inline(always)]
            unsafe fn minus(self, other: Self) -> Self {
                // SAFETY: every AArch64 that this is compiled for has the instruction.
                unsafe { $sub(self, other) }
            }
        }
    };
}
vector!(
    float32x4_t,
    f32,
    4,
    vdupq_n_f32,
    vld1q_f32,
    vld1q_dup_f32,
    vst1q_f32,
    vaddq_f32,
    vsubq_f32,
    vfmaq_f32,
    vld2q_f32,
    transpose_4
);
vector!(
    float64x2_t,
    f64,
    2,
    vdupq_n_f64,
    vld1q_f64,
    vld1q_dup_f64,
    vst1q_f64,
    vaddq_f64,
    vsubq_f64,
    vfmaq_f64,
    vld2q_f64
);

/// [`Vector::transpose`] of 4 by 4.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn transpose_4(dst: *mut f32, pitch: usize, src: *const f32, column: impl Fn(usize) -> isize) {
    // SAFETY: as our caller promised.
    unsafe {
        let x: [float32x4_t; 4] = std::array::from_fn(|j| vld1q_f32(src.offset(column(j))));
        // Rows 0 and 2, 1 and 3 side by side: their elements in turns are those of a column, two by two.
        let (a, b) = (vzip1q_f32(x[0], x[2]), vzip2q_f32(x[0], x[2]));
        let (c, d) = (vzip1q_f32(x[1], x[3]), vzip2q_f32(x[1], x[3]));
        vst1q_f32(dst, vzip1q_f32(a, c));
        vst1q_f32(dst.add(pitch), vzip2q_f32(a, c));
        vst1q_f32(dst.add(2 * pitch), vzip1q_f32(b, d));
        vst1q_f32(dst.add(3 * pitch), vzip2q_f32(b, d));
    }
}

// Of 32 registers 24 are sums, 3 a row of `b`, and the others elements of `a`.
micro!(f32x4, float32x4_t, f32, [1 2 3 4 5 6 7 8], [1 2 3], "neon");
micro!(f64x2, float64x2_t, f64, [1 2 3 4 5 6 7 8], [1 2 3], "neon");
