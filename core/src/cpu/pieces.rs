//! Pieces of operands of half precision, brought to what products are computed in: f32, or pairs of bf16 as they are.
//! Owns how lines and terms are read and laid out; knows no arithmetic.

use std::marker::PhantomData;

use tapeflow_ir::DType;

use super::blocks::DEPTH;
use super::isa::Isa;
use super::micro::Element;
use super::pack::prefetch;
use super::pairs::{self, Pair};
use super::table;
use super::vector::{Call, Primitive};
use super::windows::Side;

/// What a product of half precision is computed in.
pub trait Computed: Element {
    /// Terms of a sum that an element holds.
    const TERMS: usize;

    /// What makes elements of terms.
    fn convert(isa: Isa, half: DType) -> Option<Primitive>;

    /// Terms of a line, `stride` apart, from term `first` of `dst` on.
    ///
    /// # Safety
    /// `count` terms can be read, and there is room.
    unsafe fn run(convert: Primitive, dst: *mut Self, first: usize, src: *const u16, stride: isize, count: usize);

    /// An element each of `count` lines side by side, from one term or a pair; null if there is no second.
    ///
    /// # Safety
    /// `count` terms can be read from each, and there is room.
    unsafe fn row(convert: Primitive, dst: *mut Self, src: [*const u16; 2], count: usize);

    /// Zeros for what a line's last element has beyond its `count` terms.
    ///
    /// # Safety
    /// The elements can be written.
    unsafe fn pad(_line: *mut Self, _count: usize) {}
}

impl Computed for f32 {
    const TERMS: usize = 1;

    fn convert(isa: Isa, half: DType) -> Option<Primitive> {
        table::cast(isa, half, DType::F32)
    }

    unsafe fn run(convert: Primitive, dst: *mut f32, first: usize, src: *const u16, stride: isize, count: usize) {
        const BATCH: usize = 64;
        let dst = dst.wrapping_add(first);
        if stride == 1 {
            // SAFETY: as our caller promised.
            return unsafe { f32::row(convert, dst, [src; 2], count) };
        }
        let mut batch = [0u16; BATCH];
        for start in (0..count).step_by(BATCH) {
            let n = BATCH.min(count - start);
            // SAFETY: as our caller promised.
            unsafe {
                (0..n).for_each(|i| batch[i] = *src.offset((start + i) as isize * stride));
                f32::row(convert, dst.add(start), [batch.as_ptr(); 2], n);
            }
        }
    }

    unsafe fn row(convert: Primitive, dst: *mut f32, src: [*const u16; 2], count: usize) {
        // SAFETY: as our caller promised.
        unsafe { convert(&Call { dst: dst.cast(), src: [src[0].cast(); 3], step: [0; 3], rows: 1, cols: count }) }
    }
}

impl Computed for Pair {
    const TERMS: usize = 2;

    fn convert(isa: Isa, _: DType) -> Option<Primitive> {
        Some(pairs::interleave(isa))
    }

    unsafe fn run(_: Primitive, dst: *mut Pair, first: usize, src: *const u16, stride: isize, count: usize) {
        let dst = dst.cast::<u16>().wrapping_add(first);
        // SAFETY: as our caller promised.
        unsafe {
            match stride {
                1 => dst.copy_from_nonoverlapping(src, count),
                _ => (0..count).for_each(|i| *dst.add(i) = *src.offset(i as isize * stride)),
            }
        }
    }

    unsafe fn row(convert: Primitive, dst: *mut Pair, [x, y]: [*const u16; 2], count: usize) {
        let src = [x.cast(), y.cast(), x.cast()];
        // SAFETY: as our caller promised.
        unsafe { convert(&Call { dst: dst.cast(), src, step: [0; 3], rows: 1, cols: count }) }
    }

    unsafe fn pad(line: *mut Pair, count: usize) {
        if count % 2 == 1 {
            // SAFETY: as our caller promised.
            unsafe { *line.cast::<u16>().add(count) = 0 }
        }
    }
}

/// How pieces of an operand are read.
pub struct Pieces<T> {
    convert: Primitive,
    /// Whether lines lie side by side, and not the terms of one.
    across: bool,
    /// Whether the operand's own memory is what a piece would be, and from line to line of it.
    pub direct: Option<isize>,
    /// Lines of a piece, and elements of each.
    pub lines: usize,
    depth: usize,
    computed: PhantomData<T>,
}

/// How many elements ahead a piece asks for lines that lie side by side.
const AHEAD: usize = 12;

impl<T: Computed> Pieces<T> {
    /// Of an operand whose sums have `k` terms: pieces of `lines` lines of `depth` elements.
    pub fn new(isa: Isa, half: DType, side: &Side, k: usize, (lines, depth): (usize, usize)) -> Option<Pieces<T>> {
        let terms = T::TERMS as isize;
        let whole = |stride: isize| terms == 2 && k.is_multiple_of(2) && stride % terms == 0;
        let direct = side.plain.filter(|&(line, term)| term == 1 && whole(line)).map(|(line, _)| line / terms);
        let across = side.lines.inner_stride() == 1 && side.depth.inner_stride() != 1;
        let convert = T::convert(isa, half)?;
        Some(Pieces { convert, across, direct, lines, depth, computed: PhantomData })
    }

    /// Whether lines of a piece lie side by side.
    pub fn is_across(&self) -> bool {
        self.across
    }

    /// From line to line and from element to element of a piece.
    pub fn strides(&self) -> (isize, isize) {
        match (self.direct, self.across) {
            (Some(line), _) => (line, 1),
            (None, true) => (1, self.pitch() as isize),
            (None, false) => (self.depth as isize, 1),
        }
    }

    /// From element to element of lines that lie side by side: no power of two, lest they share sets of a cache.
    fn pitch(&self) -> usize {
        self.lines.next_multiple_of(32) + 16
    }

    /// Elements of scratch.
    pub fn elements(&self) -> usize {
        match (self.direct, self.across) {
            (Some(_), _) => 0,
            (None, true) => self.pitch() * self.depth,
            (None, false) => self.lines * self.depth,
        }
    }

    /// Where lines `lines.0..` and their terms `terms.0..` (first and count each) are to be found: in the operand, or
    /// brought to `dst`.
    ///
    /// # Safety
    /// They can be read from `src` on, and `dst` has room for a piece.
    pub unsafe fn read(
        &self,
        side: &Side,
        src: *const u16,
        dst: *mut T,
        lines: (usize, usize),
        terms: (usize, usize),
    ) -> *const T {
        // SAFETY: as our caller promised.
        unsafe {
            match (self.direct, side.plain) {
                (Some(_), Some((line, _))) => {
                    return src.offset(lines.0 as isize * line).add(terms.0).cast();
                }
                _ if self.across => self.across(side, src, dst, lines, terms),
                _ => self.along(side, src, dst, lines, terms),
            }
        }
        dst
    }

    /// # Safety
    /// As for `read`.
    unsafe fn along(&self, side: &Side, src: *const u16, dst: *mut T, lines: (usize, usize), terms: (usize, usize)) {
        side.lines.runs(lines.0, lines.1, |first, offset, stride, count| {
            for line in 0..count {
                let at = offset + line as isize * stride;
                let dst = dst.wrapping_add((first + line) * self.depth);
                side.depth.runs(terms.0, terms.1, |done, offset, stride, count| {
                    // SAFETY: as our caller promised.
                    unsafe { T::run(self.convert, dst, done, src.offset(at + offset), stride, count) }
                });
                // SAFETY: as our caller promised.
                unsafe { T::pad(dst, terms.1) }
            }
        });
    }

    /// # Safety
    /// As for `read`.
    unsafe fn across(&self, side: &Side, src: *const u16, dst: *mut T, lines: (usize, usize), terms: (usize, usize)) {
        if let Some((1, step)) = side.plain {
            let first = src.wrapping_add(lines.0).wrapping_offset(terms.0 as isize * step);
            for (e, t) in (0..terms.1).step_by(T::TERMS).enumerate() {
                let term = |t: usize| first.wrapping_offset(t as isize * step);
                for next in t + AHEAD * T::TERMS..terms.1.min(t + (AHEAD + 1) * T::TERMS) {
                    (0..lines.1).step_by(32).for_each(|l| prefetch(term(next).wrapping_add(l)));
                }
                let second = if t + 1 < terms.1 { term(t + 1) } else { std::ptr::null() };
                // SAFETY: as our caller promised.
                unsafe { T::row(self.convert, dst.add(e * self.pitch()), [term(t), second], lines.1) }
            }
            return;
        }
        let mut at = [0; 2 * DEPTH];
        for start in (0..terms.1).step_by(2 * DEPTH) {
            let terms = (terms.0 + start, (2 * DEPTH).min(terms.1 - start));
            side.depth.runs(terms.0, terms.1, |done, offset, stride, count| {
                at[done..done + count].iter_mut().enumerate().for_each(|(i, at)| *at = offset + i as isize * stride);
            });
            let all = &at[..terms.1];
            for (e, at) in all.chunks(T::TERMS).enumerate() {
                let dst = dst.wrapping_add((start / T::TERMS + e) * self.pitch());
                side.lines.runs(lines.0, lines.1, |done, offset, stride, count| {
                    let ahead = (e + AHEAD) * T::TERMS..(e + AHEAD + 1) * T::TERMS;
                    if let (Some(ahead), 1) = (all.get(ahead), stride) {
                        for at in ahead {
                            let line = src.wrapping_offset(at + offset);
                            (0..count).step_by(32).for_each(|l| prefetch(line.wrapping_add(l)));
                        }
                    }
                    let term = |t: usize| at.get(t).map_or(std::ptr::null(), |at| src.wrapping_offset(at + offset));
                    let (dst, terms) = (dst.wrapping_add(done), [term(0), term(1)]);
                    // SAFETY: as our caller promised.
                    unsafe {
                        if stride == 1 {
                            return T::row(self.convert, dst, terms, count);
                        }
                        for line in 0..count {
                            let next = |t: *const u16| if t.is_null() { t } else { t.offset(line as isize * stride) };
                            T::row(self.convert, dst.add(line), terms.map(next), 1);
                        }
                    }
                });
            }
        }
    }
}
