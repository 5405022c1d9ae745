//! An image in scratch as minimal filtering sees it: of each pair of neighbouring places the four elements that a row
//! of three taps sees, as sums and differences. Winograd 1980, "Arithmetic complexity of computations", F(2, 3); Lavin &
//! Gray 2015, arXiv:1509.09308.
//!
//! With elements d, taps g and the places' sums y of one row of taps:
//!
//! ```text
//! m₀ = (d₀ − d₂) g₀    m₁ = (d₁ + d₂) (g₀ + g₁ + g₂) / 2    m₂ = (d₂ − d₁) (g₀ − g₁ + g₂) / 2    m₃ = (d₁ − d₃) g₂
//! y₀ = m₀ + m₁ + m₂    y₁ = m₁ − m₂ − m₃
//! ```
//!
//! Four multiplications stand for six. A component mᵢ is summed over channels and rows of taps before the last line.
//! What a place does not see does not reach it, an infinity or a NaN either.
//!
//! Owns that format and its arithmetic; knows no cut.

use crate::cpu::micro::{Subtract, Vector};
use crate::program::kernel::Sliding;

/// Multiplications of a pair of places and a row of taps.
pub const COMPONENTS: usize = 4;

/// The format for bands of so many rows of places: per channel and component the pairs of all rows that a band sees,
/// side by side.
#[derive(Debug)]
pub struct Paired {
    axes: [Sliding; 2],
    rows: usize,
    /// Pairs of places of a row.
    pub pairs: usize,
    /// Elements of a component of a channel.
    pub component: usize,
    /// Whether the image's rows lie one behind the other and are as long as those of places: they are one.
    is_linear: bool,
    /// Which pairs have each of the four elements, of each vector of pairs of a line.
    masks: Vec<[u32; COMPONENTS]>,
}

impl Paired {
    /// For bands of at most `band` rows of an image whose rows and columns lie `strides` apart.
    pub fn new(axes: &[Sliding; 2], band: usize, strides: [isize; 2], lanes: usize) -> Paired {
        let [down, across] = axes;
        let rows = band + (down.taps - 1) * down.dilation;
        let pairs = across.places.div_ceil(2);
        let is_linear = strides == [across.stored as isize, 1] && across.stored == 2 * pairs;
        let count = if is_linear { rows * pairs } else { pairs };
        let has = |pair: usize, element: usize| {
            let column = (2 * (pair % pairs) + element) as isize - across.before;
            pair < count && (0..across.stored as isize).contains(&column)
        };
        let bits = |first: usize, element: usize| {
            (0..lanes).fold(0, |bits, lane| bits | u32::from(has(first + lane, element)) << lane)
        };
        let masks =
            (0..count).step_by(lanes).map(|first| std::array::from_fn(|element| bits(first, element))).collect();
        let component = (rows * pairs + lanes).next_multiple_of(lanes);
        Paired { axes: *axes, rows, pairs, component, is_linear, masks }
    }

    /// Elements of so many channels.
    pub fn elements(&self, channels: usize) -> usize {
        channels * COMPONENTS * self.component
    }

    /// Where the terms of the first component of a row of taps begin.
    pub fn term(&self, channel: usize, row: usize) -> usize {
        channel * COMPONENTS * self.component + row * self.axes[0].dilation * self.pairs
    }
}

/// An image to be laid out.
#[derive(Debug)]
pub struct Pair<'s, T> {
    pub paired: &'s Paired,
    /// `Paired::elements` of them.
    pub dst: *mut T,
    /// Its first element, and from channel to channel, row to row, column to column.
    pub src: *const T,
    pub strides: [isize; 3],
    pub channels: usize,
    /// The band's first row of places.
    pub first: usize,
}

/// Lays out an image.
///
/// # Safety
/// The image can be read, `dst` has room and overlaps nothing, and the machine has the vector's instructions.
#[inline(always)]
pub unsafe fn pair<V: Subtract>(pair: &Pair<'_, V::Element>) {
    let &Pair { paired, dst, src, strides: [channel, row, column], channels, first } = pair;
    let [down, across] = &paired.axes;
    // The first place's first element.
    let src = src.wrapping_offset(-across.before * column);
    let above = down.before - first as isize;
    for c in 0..channels {
        // SAFETY: as our caller promised; only elements that there are are read.
        unsafe {
            let (src, dst) = (src.wrapping_offset(c as isize * channel), dst.add(paired.term(c, 0)));
            if paired.is_linear {
                let stored = [above, above + down.stored as isize];
                let stored = stored.map(|y| y.clamp(0, paired.rows as isize) as usize * paired.pairs);
                line::<V>(paired, dst, src.wrapping_offset(-above * row), column, stored);
                continue;
            }
            for y in 0..paired.rows {
                let element = down.element(first + y);
                let stored = [0, if element.is_some() { paired.pairs } else { 0 }];
                let src = src.wrapping_offset(element.unwrap_or(0) as isize * row);
                line::<V>(paired, dst.add(y * paired.pairs), src, column, stored);
            }
        }
    }
}

/// Lays out a line, of which the pairs within `stored` have elements.
///
/// # Safety
/// As for [`pair`].
#[inline(always)]
unsafe fn line<V: Subtract>(
    paired: &Paired,
    dst: *mut V::Element,
    src: *const V::Element,
    column: isize,
    [begin, end]: [usize; 2],
) {
    for (v, masks) in paired.masks.iter().enumerate() {
        let i = v * V::LANES;
        let upto = |end: usize| (1 << end.saturating_sub(i).min(V::LANES)) - 1;
        let within = upto(end) & !upto(begin);
        let (src, masks) = (src.wrapping_offset(2 * i as isize * column), masks.map(|mask| mask & within));
        // SAFETY: as our caller promised.
        unsafe {
            let [a, b, c, d] = if column == 1 { V::quads(src, masks) } else { apart::<V>(src, column, masks) };
            let dst = dst.add(i);
            a.minus(c).store(dst);
            b.plus(c).store(dst.add(paired.component));
            c.minus(b).store(dst.add(2 * paired.component));
            b.minus(d).store(dst.add(3 * paired.component));
        }
    }
}

/// As [`Vector::quads`], of elements so far apart.
///
/// # Safety
/// As there.
#[inline(never)]
unsafe fn apart<V: Vector>(src: *const V::Element, step: isize, masks: [u32; COMPONENTS]) -> [V; COMPONENTS] {
    std::array::from_fn(|element| {
        let mut found = [V::Element::default(); 16];
        for (l, found) in found[..V::LANES].iter_mut().enumerate().filter(|(l, _)| masks[element] >> l & 1 == 1) {
            // SAFETY: as our caller promised.
            *found = unsafe { *src.wrapping_offset((2 * l + element) as isize * step) };
        }
        // SAFETY: no vector is longer.
        unsafe { V::load(found.as_ptr()) }
    })
}

/// Components of pairs to be put together.
#[derive(Clone, Copy, Debug)]
pub struct Join<T> {
    /// The first component's first row, from component to component and from row to row.
    pub sums: *const T,
    pub component: usize,
    pub pitch: usize,
    pub rows: usize,
    /// The first pair of each row, and how many.
    pub first: usize,
    pub pairs: usize,
    /// Places of a line, whose last pair may be one place only.
    pub width: usize,
    /// The place of pair 0 of the first row, and from row to row.
    pub dst: *mut T,
    pub dst_pitch: usize,
}

/// Puts them together.
///
/// # Safety
/// Whole vectors can be read, the places of each pair written; they do not overlap, and the machine has the vector's
/// instructions.
#[inline(always)]
pub unsafe fn join<V: Subtract>(join: &Join<V::Element>) {
    let &Join { sums, component, pitch, rows, first, pairs, width, dst, dst_pitch } = join;
    for r in 0..rows {
        for i in (0..pairs).step_by(V::LANES) {
            // SAFETY: as our caller promised.
            unsafe {
                let at = sums.add(r * pitch + i);
                let [a, b, c, d] = std::array::from_fn(|m| V::load(at.add(m * component)));
                let places = a.plus(b.plus(c)).woven(b.minus(c).minus(d));
                let (dst, left) = (dst.add(r * dst_pitch), (pairs - i).min(V::LANES));
                if width % 2 == 1 {
                    odd::<V>(dst, places, (first + i, left), width);
                    continue;
                }
                let (dst, left) = (dst.add(2 * (first + i)), 2 * left);
                if left == 2 * V::LANES {
                    places[0].store(dst);
                    places[1].store(dst.add(V::LANES));
                    continue;
                }
                places[0].store_some(dst, left.min(V::LANES));
                places[1].store_some(dst.add(V::LANES), left.saturating_sub(V::LANES));
            }
        }
    }
}

/// Stores so many pairs where lines are of an odd number of places.
///
/// # Safety
/// As for [`join`].
#[inline(never)]
unsafe fn odd<V: Vector>(dst: *mut V::Element, places: [V; 2], (first, pairs): (usize, usize), width: usize) {
    let (mut found, per) = ([V::Element::default(); 32], width.div_ceil(2));
    // SAFETY: as our caller promised; no vector is longer than half of `found`.
    unsafe {
        places[0].store(found.as_mut_ptr());
        places[1].store(found.as_mut_ptr().add(V::LANES));
        for pair in 0..pairs {
            let (line, at) = ((first + pair) / per, 2 * ((first + pair) % per));
            (at..width.min(at + 2)).for_each(|x| *dst.add(line * width + x) = found[2 * pair + x - at]);
        }
    }
}

/// A band of pixels whose differences and sums are wanted, for each pair of neighbouring places.
#[derive(Clone, Copy, Debug)]
pub struct Differences<T> {
    /// The band's first pixel, and from row to row.
    pub src: *const T,
    pub pitch: usize,
    pub channels: usize,
    pub rows: usize,
    /// Pairs of a row.
    pub pairs: usize,
    /// Where they go: a vector of channels per pair, side by side; from one component of a vector of channels to the
    /// next, vectors of channels within components.
    pub dst: *mut T,
    pub plane: usize,
}

/// Makes them.
///
/// # Safety
/// Four pixels of each pair can be read and a vector behind the last, all vectors written; they do not overlap, and the
/// machine has the vector's instructions.
#[inline(always)]
pub unsafe fn differences<V: Subtract>(differences: &Differences<V::Element>) {
    let &Differences { src, pitch, channels, rows, pairs, dst, plane } = differences;
    let vectors = channels.div_ceil(V::LANES);
    for y in 0..rows {
        for vector in 0..vectors {
            // SAFETY: as our caller promised.
            unsafe {
                let mut src = src.add(y * pitch + vector * V::LANES);
                let mut dst = dst.add(vector * plane + y * pairs * V::LANES);
                let (mut a, mut b) = (V::load(src), V::load(src.add(channels)));
                for _ in 0..pairs {
                    src = src.add(2 * channels);
                    let (c, d) = (V::load(src), V::load(src.add(channels)));
                    a.minus(c).store(dst);
                    b.plus(c).store(dst.add(vectors * plane));
                    c.minus(b).store(dst.add(2 * vectors * plane));
                    b.minus(d).store(dst.add(3 * vectors * plane));
                    (a, b, dst) = (c, d, dst.add(V::LANES));
                }
            }
        }
    }
}

/// Rows of places whose sums and differences are wanted, pair by pair.
#[derive(Clone, Copy, Debug)]
pub struct Halves<T> {
    /// The first row's first pair, whose pairs lie side by side, and from row to row.
    pub src: [*const T; 2],
    pub src_pitch: isize,
    pub rows: usize,
    pub pairs: usize,
    /// Where sums and differences go, and from row to row.
    pub dst: [*mut T; 2],
    pub dst_pitch: usize,
}

/// Makes them.
///
/// # Safety
/// The places can be read, sums and differences written; they do not overlap, and the machine has the vector's
/// instructions.
#[inline(always)]
pub unsafe fn halves<V: Subtract>(halves: &Halves<V::Element>) {
    let &Halves { src, src_pitch, rows, pairs, dst, dst_pitch } = halves;
    for r in 0..rows {
        for i in (0..pairs).step_by(V::LANES) {
            let left = (pairs - i).min(V::LANES);
            let mask = ((1u64 << (2 * left)) - 1) as u32 & 0x5555_5555;
            // SAFETY: as our caller promised.
            unsafe {
                let [a, b] = src.map(|src| V::evens_some(src.wrapping_offset(r as isize * src_pitch).add(2 * i), mask));
                let [sums, differences] = dst.map(|dst| dst.add(r * dst_pitch + i));
                if left == V::LANES {
                    a.plus(b).store(sums);
                    a.minus(b).store(differences);
                } else {
                    a.plus(b).store_some(sums, left);
                    a.minus(b).store_some(differences, left);
                }
            }
        }
    }
}
