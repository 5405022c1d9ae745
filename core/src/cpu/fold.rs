//! Reductions: the fixed arithmetic of sums (16 lanes and a tree, pieces of 4096), along rows, over a stream of tiles
//! and down columns. Owns the loops; how `Group` uses them stands in `group`. The law is `tapeflow_ir::reduce`'s.

use std::marker::PhantomData;

pub use tapeflow_ir::reduce::PIECE;
use tapeflow_ir::{DType, Reduce};

use super::isa::Isa;
use super::vector::{BLOCK, Body, Call, Primitive, select};
use super::{math, vector};

/// Enough levels for any number of elements: 4096⁶ > 2⁶⁴.
const LEVELS: usize = 6;
const _: () = assert!(BLOCK == tapeflow_ir::reduce::LANES);

/// An associative operation on one dtype.
pub trait Fold {
    /// Of the elements.
    type T: Copy;
    /// Neutral: `identity ∘ x = x` in every bit.
    const IDENTITY: Self::T;
    /// The result for no elements.
    const EMPTY: Self::T;
    /// `a ∘ b`
    fn combine(a: Self::T, b: Self::T) -> Self::T;
}

macro_rules! fold {
    ($name:ident, $t:ty, $identity:expr, $empty:expr, |$a:ident, $b:ident| $body:expr) => {
        struct $name;
        impl Fold for $name {
            type T = $t;
            const IDENTITY: $t = $identity;
            const EMPTY: $t = $empty;
            #[inline(always)]
            fn combine($a: $t, $b: $t) -> $t {
                $body
            }
        }
    };
}

/// The lanes of one piece, combined pairwise.
#[inline(always)]
fn tree<F: Fold>(mut lanes: [F::T; BLOCK]) -> F::T {
    vector::tree(&mut lanes, F::combine)
}

/// Adds `n` elements to the lanes, the first to lane 0.
#[inline(always)]
unsafe fn accumulate<F: Fold>(lanes: &mut [F::T; BLOCK], x: *const F::T, n: usize) {
    // SAFETY: our caller's `x` has `n` elements.
    unsafe {
        let mut acc = *lanes;
        let mut i = 0;
        while i + BLOCK <= n {
            let block = &*x.add(i).cast::<[F::T; BLOCK]>();
            for l in 0..BLOCK {
                acc[l] = F::combine(acc[l], block[l]);
            }
            i += BLOCK;
        }
        for (l, acc) in acc.iter_mut().enumerate().take(n - i) {
            *acc = F::combine(*acc, *x.add(i + l));
        }
        *lanes = acc;
    }
}

/// A reduction in progress: the elements come in order, any number at a time.
#[repr(C)]
pub struct Stream<T> {
    lanes: [T; BLOCK],
    count: usize,
    /// Lanes over the results of pieces, of pieces of pieces, and so on, and how many results each has taken.
    upper: [[T; BLOCK]; LEVELS],
    taken: [usize; LEVELS],
}

impl<T: Copy> Stream<T> {
    #[inline(always)]
    fn new<F: Fold<T = T>>() -> Self {
        Stream { lanes: [F::IDENTITY; BLOCK], count: 0, upper: [[F::IDENTITY; BLOCK]; LEVELS], taken: [0; LEVELS] }
    }

    /// Takes the result of a whole piece of `level`.
    #[inline(always)]
    fn lift<F: Fold<T = T>>(&mut self, mut value: T) {
        for level in 0..LEVELS {
            let lane = &mut self.upper[level][self.taken[level] % BLOCK];
            *lane = F::combine(*lane, value);
            self.taken[level] += 1;
            if self.taken[level] < PIECE {
                return;
            }
            value = tree::<F>(std::mem::replace(&mut self.upper[level], [F::IDENTITY; BLOCK]));
            self.taken[level] = 0;
        }
    }

    #[inline(always)]
    unsafe fn feed<F: Fold<T = T>>(&mut self, mut x: *const T, mut n: usize) {
        while n > 0 {
            let (lane, room) = (self.count % BLOCK, PIECE - self.count % PIECE);
            let take = if lane == 0 { n.min(room) } else { n.min(BLOCK - lane) };
            // SAFETY: `take <= n` elements from `x` are the caller's.
            unsafe {
                if lane == 0 {
                    accumulate::<F>(&mut self.lanes, x, take);
                } else {
                    for l in 0..take {
                        self.lanes[lane + l] = F::combine(self.lanes[lane + l], *x.add(l));
                    }
                }
                x = x.add(take);
            }
            n -= take;
            self.count += take;
            if self.count.is_multiple_of(PIECE) {
                let value = tree::<F>(std::mem::replace(&mut self.lanes, [F::IDENTITY; BLOCK]));
                self.lift::<F>(value);
            }
        }
    }

    #[inline(always)]
    fn end<F: Fold<T = T>>(mut self) -> T {
        if self.count == 0 {
            return F::EMPTY;
        }
        if self.count < PIECE {
            return tree::<F>(self.lanes);
        }
        if !self.count.is_multiple_of(PIECE) {
            let value = tree::<F>(self.lanes);
            self.lift::<F>(value);
        }
        // A level that has taken nothing holds the identity; lifting a level's partial result into the next is the
        // last, shorter piece of that level.
        let mut value = None;
        for level in 0..LEVELS {
            if let Some(value) = value {
                let lane = &mut self.upper[level][self.taken[level] % BLOCK];
                *lane = F::combine(*lane, value);
                self.taken[level] += 1;
            }
            value = match self.taken[level] {
                0 => None,
                _ => Some(tree::<F>(self.upper[level])),
            };
        }
        value.unwrap_or(F::EMPTY)
    }
}

/// `dst[r] ← fold of row r`
struct Rows<F>(PhantomData<F>);

impl<F: Fold> Body for Rows<F> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        let (dst, src, n) = (call.dst.cast::<F::T>(), call.src[0].cast::<F::T>(), call.cols);
        for r in 0..call.rows {
            // SAFETY: `src` has `rows · cols` elements, `dst` has `rows`.
            unsafe {
                let row = src.add(r * n);
                *dst.add(r) = if n == 0 {
                    F::EMPTY
                } else if n <= PIECE {
                    let mut lanes = [F::IDENTITY; BLOCK];
                    accumulate::<F>(&mut lanes, row, n);
                    tree::<F>(lanes)
                } else {
                    let mut stream = Stream::new::<F>();
                    stream.feed::<F>(row, n);
                    stream.end::<F>()
                };
            }
        }
    }
}

/// Begins a [`Stream`] at `dst`.
struct Begin<F>(PhantomData<F>);

impl<F: Fold> Body for Begin<F> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `dst` is 64-byte aligned scratch of `STREAM_BYTES`.
        unsafe { call.dst.cast::<Stream<F::T>>().write(Stream::new::<F>()) }
    }
}

/// Feeds `cols` elements to the [`Stream`] at `dst`.
struct Feed<F>(PhantomData<F>);

impl<F: Fold> Body for Feed<F> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `dst` holds a stream that `Begin` wrote; `src` has `cols` elements.
        unsafe { (*call.dst.cast::<Stream<F::T>>()).feed::<F>(call.src[0].cast(), call.cols) }
    }
}

/// Writes the result of the [`Stream`] at `src` to `dst`.
struct End<F>(PhantomData<F>);

impl<F: Fold> Body for End<F> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `src` holds a stream that `Begin` wrote; `dst` has room for one element.
        unsafe { *call.dst.cast::<F::T>() = call.src[0].cast::<Stream<F::T>>().read().end::<F>() }
    }
}

/// `dst[c] ← dst[c] ∘ row 0[c] ∘ row 1[c] ∘ …`
struct Down<F>(PhantomData<F>);

impl<F: Fold> Body for Down<F> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        let Call { rows, cols, .. } = *call;
        let (dst, src) = (call.dst.cast::<F::T>(), call.src[0].cast::<F::T>());
        // SAFETY: `dst` has `cols` elements, `src` has `rows · cols`, and they do not overlap.
        unsafe {
            let mut c = 0;
            while c + BLOCK <= cols {
                let out = &mut *dst.add(c).cast::<[F::T; BLOCK]>();
                let mut acc = *out;
                for r in 0..rows {
                    let row = &*src.add(r * cols + c).cast::<[F::T; BLOCK]>();
                    for l in 0..BLOCK {
                        acc[l] = F::combine(acc[l], row[l]);
                    }
                }
                *out = acc;
                c += BLOCK;
            }
            for c in c..cols {
                let mut acc = *dst.add(c);
                for r in 0..rows {
                    acc = F::combine(acc, *src.add(r * cols + c));
                }
                *dst.add(c) = acc;
            }
        }
    }
}

/// The primitives of one reduction of one dtype.
#[derive(Clone, Copy)]
pub struct Folds {
    /// `dst[r] ← fold of row r` of `cols` elements.
    pub rows: Primitive,
    /// Begins the stream at `dst`.
    pub begin: Primitive,
    /// Feeds it `cols` elements.
    pub feed: Primitive,
    /// Writes the result of the stream at `src` to `dst`.
    pub end: Primitive,
    /// Folds the rows of `src` into the row at `dst`, in order.
    pub down: Primitive,
    /// Bits of the neutral element.
    pub identity: u64,
    /// Bits of the result for no elements.
    pub empty: u64,
}

/// Scratch that a [`Stream`] needs.
pub const STREAM_BYTES: usize = (size_of::<Stream<u64>>() + 63) & !63;

/// The primitives of a reduction, if the dtype has it.
pub fn folds(isa: Isa, reduce: Reduce, dtype: DType) -> Option<Folds> {
    macro_rules! of {
        ($t:ty, $bits:expr, $identity:expr, $empty:expr, |$a:ident, $b:ident| $body:expr) => {{
            fold!(F, $t, $identity, $empty, |$a, $b| $body);
            Some(Folds {
                rows: select::<Rows<F>>(isa),
                begin: select::<Begin<F>>(isa),
                feed: select::<Feed<F>>(isa),
                end: select::<End<F>>(isa),
                down: select::<Down<F>>(isa),
                identity: $bits(F::IDENTITY),
                empty: $bits(F::EMPTY),
            })
        }};
    }
    macro_rules! int {
        ($t:ty) => {
            match reduce {
                Reduce::Sum => of!($t, |x| x as u64, 0, 0, |a, b| a.wrapping_add(b)),
                Reduce::Max => of!($t, |x| x as u64, <$t>::MIN, <$t>::MIN, |a, b| a.max(b)),
                Reduce::Min => of!($t, |x| x as u64, <$t>::MAX, <$t>::MAX, |a, b| a.min(b)),
            }
        };
    }
    macro_rules! float {
        ($t:ty, $min:path, $max:path) => {
            match reduce {
                Reduce::Sum => of!($t, |x: $t| x.to_bits() as u64, -0.0, 0.0, |a, b| a + b),
                Reduce::Max => {
                    of!($t, |x: $t| x.to_bits() as u64, <$t>::NEG_INFINITY, <$t>::NEG_INFINITY, |a, b| $max(a, b))
                }
                Reduce::Min => of!($t, |x: $t| x.to_bits() as u64, <$t>::INFINITY, <$t>::INFINITY, |a, b| $min(a, b)),
            }
        };
    }
    match dtype {
        DType::F32 => float!(f32, math::min32, math::max32),
        DType::F64 => float!(f64, math::min64, math::max64),
        DType::I32 => int!(i32),
        DType::U32 => int!(u32),
        DType::I64 => int!(i64),
        DType::U8 => int!(u8),
        DType::Bool | DType::F16 | DType::BF16 => None,
    }
}
