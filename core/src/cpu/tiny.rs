//! Tiny products: plain loops in the arithmetic of the micro-kernels, without their panels.
//! Owns nothing but the loops; when to use them is `matmul`'s decision.

use super::blocks::{DEPTH, depth};
use super::matmul::Product;
use super::micro::Number;
use super::vector::{BLOCK, Body, Call};

/// The plain loops in the same arithmetic, a block of columns at a time where `b` has its columns side by side. `FUSED`
/// says how the instruction set multiplies and adds.
pub struct Plain<T, const FUSED: bool>(std::marker::PhantomData<T>);

/// `W` neighbouring elements of the result: `Σ a[p] · b[p, ..W]`, steps along `k`.
///
/// # Safety
/// These elements can be read.
#[inline(always)]
unsafe fn chain<T: Number, const FUSED: bool, const W: usize>(
    k: usize,
    mut a: *const T,
    a_step: isize,
    mut b: *const T,
    b_step: isize,
) -> [T; W] {
    let mut acc = [T::ZERO; W];
    for _ in 0..k {
        // SAFETY: as our caller promised.
        let (x, row) = unsafe { (*a, &*b.cast::<[T; W]>()) };
        for l in 0..W {
            acc[l] = if FUSED { acc[l].fused(x, row[l]) } else { acc[l].multiply_add(x, row[l]) };
        }
        a = a.wrapping_offset(a_step);
        b = b.wrapping_offset(b_step);
    }
    acc
}

/// The sum over the blocks of `k`.
///
/// # Safety
/// As for [`chain`].
#[inline(always)]
unsafe fn chains<T: Number, const FUSED: bool, const W: usize>(
    k: usize,
    a: *const T,
    a_step: isize,
    b: *const T,
    b_step: isize,
) -> [T; W] {
    let depth = if k <= DEPTH { k } else { depth(k) };
    // SAFETY: as our caller promised, for the blocks of `k` too.
    unsafe {
        let mut sum = chain::<T, FUSED, W>(depth, a, a_step, b, b_step);
        let mut p = depth;
        while p < k {
            let (a, b) = (a.offset(p as isize * a_step), b.offset(p as isize * b_step));
            let more = chain::<T, FUSED, W>(depth.min(k - p), a, a_step, b, b_step);
            (0..W).for_each(|l| sum[l] = sum[l].plus(more[l]));
            p += depth;
        }
        sum
    }
}

impl<T: Number, const FUSED: bool> Body for Plain<T, FUSED> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        let (c, a, b) = (call.dst.cast::<T>(), call.src[0].cast::<T>(), call.src[1].cast::<T>());
        // SAFETY: `src[2]` is the product that `run_chunk` described, and its addresses suit it.
        unsafe {
            let Product { m, n, k, a: (a_row, a_col), b: (b_row, b_col), pitch } = *call.src[2].cast::<Product>();
            for i in 0..m {
                let (a, c) = (a.offset(i as isize * a_row), c.add(i * pitch));
                let mut j = 0;
                while b_col == 1 && j + BLOCK <= n {
                    *c.add(j).cast::<[T; BLOCK]>() = chains::<T, FUSED, BLOCK>(k, a, a_col, b.add(j), b_row);
                    j += BLOCK;
                }
                for j in j..n {
                    let b = b.offset(j as isize * b_col);
                    *c.add(j) = chains::<T, FUSED, 1>(k, a, a_col, b, b_row)[0];
                }
            }
        }
    }
}
