//! The vector of machines without an instruction set of their own here: the compiler's. Owns nothing but that.

use super::{Number, Subtract, Vector};

/// What the compiler turns into a vector of its target.
#[derive(Clone, Copy)]
pub struct Portable<T, const L: usize>(pub [T; L]);

impl<T: Number, const L: usize> Vector for Portable<T, L> {
    type Element = T;
    const LANES: usize = L;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Portable([T::ZERO; L])
    }
    #[inline(always)]
    unsafe fn load(src: *const T) -> Self {
        // SAFETY: as our caller promised.
        Portable(unsafe { src.cast::<[T; L]>().read() })
    }
    #[inline(always)]
    unsafe fn splat(src: *const T) -> Self {
        // SAFETY: as our caller promised.
        Portable([unsafe { *src }; L])
    }
    #[inline(always)]
    unsafe fn store(self, dst: *mut T) {
        // SAFETY: as our caller promised.
        unsafe { dst.cast::<[T; L]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn plus(mut self, other: Self) -> Self {
        for l in 0..L {
            self.0[l] = self.0[l].plus(other.0[l]);
        }
        self
    }
    #[inline(always)]
    unsafe fn multiply_add(mut self, a: Self, b: Self) -> Self {
        for l in 0..L {
            let (a, b) = (a.0[l], b.0[l]);
            self.0[l] =
                if cfg!(target_arch = "aarch64") { self.0[l].fused(a, b) } else { self.0[l].multiply_add(a, b) };
        }
        self
    }
}

impl<T: Number, const L: usize> Subtract for Portable<T, L> {
    #[inline(always)]
    unsafe fn minus(mut self, other: Self) -> Self {
        for l in 0..L {
            self.0[l] = self.0[l].minus(other.0[l]);
        }
        self
    }
}
