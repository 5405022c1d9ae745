//! The arithmetic of rows of scores, 16 lanes at a time: weights and their sums, forward and backward. Owns the
//! formulas; knows no products.

use super::{BLOCK, Strip};
use crate::cpu::math::{exp, ln};
use crate::cpu::vector::{Body, Call, Primitive, tree};

/// Sixteen neighbouring elements.
type Lanes = [f32; BLOCK];

/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn load(at: *const f32) -> Lanes {
    // SAFETY: as our caller promised.
    unsafe { at.cast::<Lanes>().read() }
}

/// # Safety
/// They can be written.
#[inline(always)]
unsafe fn store(at: *mut f32, lanes: Lanes) {
    // SAFETY: as our caller promised.
    unsafe { at.cast::<Lanes>().write(lanes) }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Calls a body with its description.
fn call<T>(primitive: Primitive, of: &T) {
    let src = [std::ptr::from_ref(of).cast(), std::ptr::null(), std::ptr::null()];
    // SAFETY: the bodies of this file read their description at `src[0]`, and whoever made it promised the rest.
    unsafe { primitive(&Call { dst: std::ptr::null_mut(), src, step: [0; 3], rows: 1, cols: 1 }) }
}

/// Turns scores into weights, not yet divided by their sum, and has what was summed before follow a larger score.
/// Milakov & Gimelshein 2018, arXiv:1805.02867.
pub struct Softmax<'s> {
    pub strip: &'s Strip,
    /// Of the strip: the first, and how many.
    pub rows: (usize, usize),
    /// Weights that are wanted; what a row does not see is 0.
    pub end: usize,
    pub at: *mut f32,
    pub scale: f32,
    /// Of each row.
    pub largest: *mut f32,
    pub total: *mut f32,
    /// Sums of values, and from row to row of them.
    pub sums: (*mut f32, usize),
}

impl Softmax<'_> {
    /// # Safety
    /// The addresses suit the rows, and the primitive is this body's.
    pub unsafe fn run(&self, primitive: Primitive) {
        call(primitive, self);
    }

    /// # Safety
    /// As for `run`; the row has whole blocks.
    #[inline(always)]
    unsafe fn row(&self, r: usize, n: usize) {
        let (row, first) = (self.at.wrapping_add(r * self.strip.pitch), self.strip.key == 0);
        // SAFETY: as our caller promised.
        unsafe {
            let (largest, total) = (&mut *self.largest.add(r), &mut *self.total.add(r));
            if first {
                (*largest, *total) = (f32::NEG_INFINITY, 0.0);
            }
            let whole = n / BLOCK * BLOCK;
            let mut most = [f32::NEG_INFINITY; BLOCK];
            for j in (0..whole).step_by(BLOCK) {
                let x = load(row.add(j));
                for l in 0..BLOCK {
                    most[l] = larger(most[l], x[l]);
                }
            }
            if whole < n {
                let x = load(row.add(whole));
                for l in 0..BLOCK {
                    most[l] = larger(most[l], if l < n - whole { x[l] } else { f32::NEG_INFINITY });
                }
            }
            let before = *largest;
            let most = larger(before, tree(&mut most, larger) * self.scale);
            let mut sums = [0.0; BLOCK];
            for j in (0..whole).step_by(BLOCK) {
                let mut x = load(row.add(j));
                for x in &mut x {
                    *x = exp(*x * self.scale - most);
                }
                for l in 0..BLOCK {
                    sums[l] += x[l];
                }
                store(row.add(j), x);
            }
            for j in (whole..self.end).step_by(BLOCK) {
                let mut x = load(row.add(j));
                for l in 0..BLOCK {
                    let e = exp(x[l] * self.scale - most);
                    x[l] = if j + l < n { e } else { 0.0 };
                    sums[l] += x[l];
                }
                store(row.add(j), x);
            }
            if n == 0 {
                return;
            }
            *largest = most;
            if first {
                *total = tree(&mut sums, |a, b| a + b);
                return;
            }
            let factor = exp(before - most);
            *total = *total * factor + tree(&mut sums, |a, b| a + b);
            let of = self.sums.0.add(r * self.sums.1);
            for j in 0..self.sums.1 {
                *of.add(j) *= factor;
            }
        }
    }
}

impl Body for Softmax<'_> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `src[0]` is a description whose addresses suit.
        unsafe {
            let of = &*call.src[0].cast::<Softmax<'_>>();
            for r in 0..of.rows.1 {
                of.row(r, of.strip.count(of.rows.0 + r));
            }
        }
    }
}

/// Divides the sums of values, and notes the logarithms of what they were divided by.
pub struct Finish {
    pub rows: usize,
    /// Sums of values, from row to row of them, and how many there are.
    pub of: (*const f32, usize, usize),
    pub largest: *const f32,
    pub total: *const f32,
    /// Whether there are no keys at all: the result is 0.
    pub empty: bool,
    /// Where it goes, and from row to row.
    pub y: (*mut f32, usize),
    pub logs: *mut f32,
}

impl Finish {
    /// # Safety
    /// As for [`Softmax::run`].
    pub unsafe fn run(&self, primitive: Primitive) {
        call(primitive, self);
    }
}

impl Body for Finish {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `src[0]` is a description whose addresses suit.
        unsafe {
            let of = &*call.src[0].cast::<Finish>();
            let (sums, pitch, n) = of.of;
            for r in 0..of.rows {
                let (sums, y) = (sums.add(r * pitch), of.y.0.add(r * of.y.1));
                let total = *of.total.add(r);
                let factor = if of.empty { 1.0 } else { 1.0 / total };
                for j in 0..n {
                    *y.add(j) = *sums.add(j) * factor;
                }
            }
            for r in 0..of.rows {
                *of.logs.add(r) = *of.largest.add(r) + ln(*of.total.add(r));
            }
        }
    }
}

/// Turns scores of a strip and the products of cotangents and values into cotangents of scores and weights.
pub struct Weights<'s> {
    pub strip: &'s Strip,
    /// Rows of a tile: as far as any of them sees keys, what the others do not see is 0.
    pub height: usize,
    /// Scores; becomes their cotangents.
    pub scores: *mut f32,
    /// Products of the result's cotangent and values; becomes weights.
    pub weights: *mut f32,
    pub scale: f32,
    /// Of each row: the logarithm of its sum, and the product of the result and its cotangent.
    pub logs: *const f32,
    pub dots: *const f32,
}

impl Weights<'_> {
    /// # Safety
    /// As for [`Softmax::run`].
    pub unsafe fn run(&self, primitive: Primitive) {
        call(primitive, self);
    }

    /// # Safety
    /// As for `run`.
    #[inline(always)]
    unsafe fn row(&self, r: usize, n: usize, end: usize) {
        let (scores, weights) =
            (self.scores.wrapping_add(r * self.strip.pitch), self.weights.wrapping_add(r * self.strip.pitch));
        // SAFETY: as our caller promised.
        unsafe {
            let (log, dot) = (*self.logs.add(r), *self.dots.add(r));
            for j in (0..end).step_by(BLOCK) {
                let (mut s, mut p) = (load(scores.add(j)), load(weights.add(j)));
                for l in 0..BLOCK {
                    let weight = exp(s[l] * self.scale - log);
                    s[l] = weight * (p[l] - dot) * self.scale;
                    p[l] = weight;
                }
                if j + BLOCK > n {
                    for l in 0..BLOCK {
                        s[l] = if j + l < n { s[l] } else { 0.0 };
                        p[l] = if j + l < n { p[l] } else { 0.0 };
                    }
                }
                store(scores.add(j), s);
                store(weights.add(j), p);
            }
        }
    }
}

impl Body for Weights<'_> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `src[0]` is a description whose addresses suit.
        unsafe {
            let of = &*call.src[0].cast::<Weights<'_>>();
            for r in 0..of.strip.rows {
                let last = (r / of.height * of.height + of.height).min(of.strip.rows) - 1;
                let end = of.strip.count(last).next_multiple_of(of.height).min(of.strip.pitch);
                of.row(r, of.strip.count(r), end);
            }
        }
    }
}

/// Products of two lists of rows, row by row.
pub struct Dots {
    pub rows: usize,
    pub n: usize,
    /// From row to row and from element to element.
    pub a: (*const f32, isize, isize),
    /// From row to row.
    pub b: (*const f32, usize),
    pub to: *mut f32,
}

impl Dots {
    /// # Safety
    /// As for [`Softmax::run`].
    pub unsafe fn run(&self, primitive: Primitive) {
        call(primitive, self);
    }
}

impl Body for Dots {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `src[0]` is a description whose addresses suit.
        unsafe {
            let of = &*call.src[0].cast::<Dots>();
            for r in 0..of.rows {
                let (a, b) = (of.a.0.offset(r as isize * of.a.1), of.b.0.add(r * of.b.1));
                let mut sums = [0.0; BLOCK];
                let whole = if of.a.2 == 1 { of.n / BLOCK * BLOCK } else { 0 };
                for j in (0..whole).step_by(BLOCK) {
                    let (a, b) = (load(a.add(j)), load(b.add(j)));
                    for l in 0..BLOCK {
                        sums[l] += a[l] * b[l];
                    }
                }
                for j in whole..of.n {
                    sums[j % BLOCK] += *a.offset(j as isize * of.a.2) * *b.add(j);
                }
                *of.to.add(r) = tree(&mut sums, |a, b| a + b);
            }
        }
    }
}

/// Rows copied or added to others.
pub struct Move {
    pub rows: usize,
    pub n: usize,
    /// From row to row.
    pub from: (*const f32, usize),
    pub to: (*mut f32, usize),
    pub add: bool,
}

impl Move {
    /// # Safety
    /// As for [`Softmax::run`].
    pub unsafe fn run(&self, primitive: Primitive) {
        call(primitive, self);
    }
}

impl Body for Move {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `src[0]` is a description whose addresses suit.
        unsafe {
            let of = &*call.src[0].cast::<Move>();
            for r in 0..of.rows {
                let (from, to) = (of.from.0.add(r * of.from.1), of.to.0.add(r * of.to.1));
                if !of.add {
                    std::ptr::copy_nonoverlapping(from, to, of.n);
                    continue;
                }
                let whole = of.n / BLOCK * BLOCK;
                for j in (0..whole).step_by(BLOCK) {
                    let (x, y) = (load(to.add(j)), load(from.add(j)));
                    *to.add(j).cast::<[f32; BLOCK]>() = std::array::from_fn(|l| x[l] + y[l]);
                }
                (whole..of.n).for_each(|j| *to.add(j) += *from.add(j));
            }
        }
    }
}
