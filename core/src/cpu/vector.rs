//! Vector primitives: loops over contiguous elements, written once and compiled once per instruction set.
//! Owns the calling convention and the loop bodies; which function of a scalar they apply comes from `table`.
//!
//! A body works in blocks of 16 elements, so that the compiler turns each into whole vector registers. Rust never
//! contracts `a * b + c`, hence vector, remainder and scalar code of one formula give the same bits.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::isa::Isa;
use crate::random::Stream;

/// Elements in a block.
pub const BLOCK: usize = 16;

/// Lanes combined pairwise, `l` with `l` plus half their number, until one is left: 16 → 8 → 4 → 2 → 1. The order of
/// all sums over lanes; their number is a power of two.
#[inline(always)]
pub fn tree<T: Copy>(lanes: &mut [T], join: impl Fn(T, T) -> T) -> T {
    let mut half = lanes.len() / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] = join(lanes[l], lanes[l + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// What a primitive works on: `rows` rows of `cols` elements. A lane operand and the result are contiguous (rows follow
/// each other); a splat operand is one element per row, `step` elements from row to row.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The result; overlaps no operand.
    pub dst: *mut u8,
    /// The operands.
    pub src: [*const u8; 3],
    /// Of splat operands: 0 or 1.
    pub step: [usize; 3],
    /// How many rows.
    pub rows: usize,
    /// Elements in each.
    pub cols: usize,
}

/// A primitive compiled for one instruction set.
///
/// # Safety
/// All addresses of the call are valid and aligned for what the primitive reads and writes there, the result overlaps
/// no operand, and the machine has the instruction set.
pub type Primitive = unsafe fn(&Call);

/// A loop to be compiled once per instruction set; implementors are never constructed.
pub trait Body {
    /// Runs the loop; `#[inline(always)]` in every implementation, so that it takes on the caller's instruction set.
    ///
    /// # Safety
    /// As for [`Primitive`].
    unsafe fn run(call: &Call);
}

/// The version of a body for an instruction set.
pub fn select<B: Body>(isa: Isa) -> Primitive {
    match isa.vectors() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::<B>,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::<B>,
        _ => baseline::<B>,
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")]
unsafe fn avx512<B: Body>(call: &Call) {
    // SAFETY: as our caller promised.
    unsafe { B::run(call) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi2")]
unsafe fn avx2<B: Body>(call: &Call) {
    // SAFETY: as our caller promised.
    unsafe { B::run(call) }
}

unsafe fn baseline<B: Body>(call: &Call) {
    // SAFETY: as our caller promised.
    unsafe { B::run(call) }
}

/// A function of up to three scalars. Unused operands have type `()`.
pub trait Scalar3 {
    /// First operand.
    type A: Copy;
    /// Second operand.
    type B: Copy;
    /// Third operand.
    type C: Copy;
    /// Result.
    type O: Copy;
    /// Whether it is so cheap that the loop wants unrolling.
    const CHEAP: bool = true;
    /// Whether `rare` may be true.
    const HAS_RARE: bool = false;
    /// The function.
    fn apply(a: Self::A, b: Self::B, c: Self::C) -> Self::O;
    /// Whether `apply` is wrong for these operands and `slow` must be used.
    #[inline(always)]
    fn rare(_a: Self::A, _b: Self::B) -> bool {
        false
    }
    /// The function where `rare`.
    fn slow(a: Self::A, b: Self::B, c: Self::C) -> Self::O {
        Self::apply(a, b, c)
    }
}

/// Applies `F`; each of `SA`, `SB`, `SC` says that the operand is a splat.
pub struct Map<F, const SA: bool, const SB: bool, const SC: bool>(PhantomData<F>);

#[inline(always)]
unsafe fn load<T: Copy, const SPLAT: bool>(row: *const T, at: usize) -> T {
    // SAFETY: a splat row has one element; a lane row has more than `at`.
    unsafe { if SPLAT { *row } else { *row.add(at) } }
}

#[inline(always)]
unsafe fn block<F: Scalar3, const SA: bool, const SB: bool, const SC: bool, const W: usize>(
    dst: &mut [MaybeUninit<F::O>; W],
    a: *const F::A,
    b: *const F::B,
    c: *const F::C,
) {
    // SAFETY: our caller's rows have `W` elements from these addresses (one if splat).
    unsafe {
        for (l, dst) in dst.iter_mut().enumerate() {
            dst.write(F::apply(load::<_, SA>(a, l), load::<_, SB>(b, l), load::<_, SC>(c, l)));
        }
        if F::HAS_RARE {
            let mut rare = false;
            for l in 0..W {
                rare |= F::rare(load::<_, SA>(a, l), load::<_, SB>(b, l));
            }
            if rare {
                patch::<F, SA, SB, SC>(dst, a, b, c);
            }
        }
    }
}

/// Recomputes the rare lanes of a block; out of line to keep the loops small.
#[cold]
#[inline(never)]
unsafe fn patch<F: Scalar3, const SA: bool, const SB: bool, const SC: bool>(
    dst: &mut [MaybeUninit<F::O>],
    a: *const F::A,
    b: *const F::B,
    c: *const F::C,
) {
    for (l, dst) in dst.iter_mut().enumerate() {
        // SAFETY: as for `block`.
        let (a, b, c) = unsafe { (load::<_, SA>(a, l), load::<_, SB>(b, l), load::<_, SC>(c, l)) };
        if F::rare(a, b) {
            dst.write(F::slow(a, b, c));
        }
    }
}

#[inline(always)]
unsafe fn pad<T: Copy, const SPLAT: bool>(row: *const T, n: usize) -> [T; BLOCK] {
    // SAFETY: the row has at least `n >= 1` elements (one if splat).
    unsafe {
        let mut out = [*row; BLOCK];
        if !SPLAT {
            for (l, out) in out.iter_mut().enumerate().take(n) {
                *out = *row.add(l);
            }
        }
        out
    }
}

#[inline(always)]
unsafe fn row<F: Scalar3, const SA: bool, const SB: bool, const SC: bool>(
    dst: *mut F::O,
    a: *const F::A,
    b: *const F::B,
    c: *const F::C,
    n: usize,
) {
    /// The address of element `$at` of a lane row, or of the splat.
    macro_rules! at {
        ($row:ident, $splat:ident, $at:expr) => {
            if $splat { $row } else { $row.add($at) }
        };
    }
    // SAFETY: blocks stay within the `n` elements of each row; the last one may repeat elements of the one before,
    // which is harmless because the result overlaps no operand.
    unsafe {
        let mut i = 0;
        if F::CHEAP {
            while i + 4 * BLOCK <= n {
                let out = &mut *dst.add(i).cast::<[MaybeUninit<F::O>; 4 * BLOCK]>();
                block::<F, SA, SB, SC, { 4 * BLOCK }>(out, at!(a, SA, i), at!(b, SB, i), at!(c, SC, i));
                i += 4 * BLOCK;
            }
        }
        if n >= BLOCK {
            while i < n {
                // The last block may begin early, at elements already done.
                i = i.min(n - BLOCK);
                let out = &mut *dst.add(i).cast::<[MaybeUninit<F::O>; BLOCK]>();
                block::<F, SA, SB, SC, BLOCK>(out, at!(a, SA, i), at!(b, SB, i), at!(c, SC, i));
                i += BLOCK;
            }
        } else if F::CHEAP || n == 1 {
            for i in 0..n {
                let (a, b, c) = (load::<_, SA>(a, i), load::<_, SB>(b, i), load::<_, SC>(c, i));
                *dst.add(i) = if F::rare(a, b) { F::slow(a, b, c) } else { F::apply(a, b, c) };
            }
        } else {
            let (a, b, c) = (pad::<_, SA>(a, n), pad::<_, SB>(b, n), pad::<_, SC>(c, n));
            let mut out = [const { MaybeUninit::uninit() }; BLOCK];
            block::<F, false, false, false, BLOCK>(&mut out, a.as_ptr(), b.as_ptr(), c.as_ptr());
            for (l, out) in out.iter().enumerate().take(n) {
                *dst.add(l) = out.assume_init();
            }
        }
    }
}

impl<F: Scalar3, const SA: bool, const SB: bool, const SC: bool> Body for Map<F, SA, SB, SC> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        let Call { dst, src: [a, b, c], step, rows, cols } = *call;
        let (dst, a, b, c) = (dst.cast::<F::O>(), a.cast::<F::A>(), b.cast::<F::B>(), c.cast::<F::C>());
        for r in 0..rows {
            let at = |splat: bool, operand: usize| r * if splat { step[operand] } else { cols };
            // SAFETY: row `r` of each operand, as the convention of `Call` lays them out.
            unsafe {
                row::<F, SA, SB, SC>(
                    dst.add(r * cols),
                    a.wrapping_add(at(SA, 0)),
                    b.wrapping_add(at(SB, 1)),
                    c.wrapping_add(at(SC, 2)),
                    cols,
                );
            }
        }
    }
}

/// Repeats one element per row along the row.
pub struct Spread<T>(PhantomData<T>);

impl<T: Copy> Body for Spread<T> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        let (dst, src) = (call.dst.cast::<MaybeUninit<T>>(), call.src[0].cast::<T>());
        for r in 0..call.rows {
            // SAFETY: `dst` has `rows · cols` elements, `src` one per row.
            unsafe {
                let value = *src.add(r * call.step[0]);
                let row = std::slice::from_raw_parts_mut(dst.add(r * call.cols), call.cols);
                row.fill(MaybeUninit::new(value));
            }
        }
    }
}

/// Copies `rows · cols` contiguous elements.
pub struct Copied<T>(PhantomData<T>);

impl<T: Copy> Body for Copied<T> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: both have `rows · cols` elements and do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(call.src[0].cast::<T>(), call.dst.cast::<T>(), call.rows * call.cols);
        }
    }
}

/// Fills `cols` f32 from word `step[0]` of the Philox stream at `src[0]` on.
pub struct Random;

impl Body for Random {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `src[0]` is a stream; `dst` has `cols` elements, all of them zeroed or overwritten before they are
        // read.
        unsafe {
            let out = std::slice::from_raw_parts_mut(call.dst.cast::<f32>(), call.cols);
            (*call.src[0].cast::<Stream>()).fill(call.step[0] as u64, out);
        }
    }
}
