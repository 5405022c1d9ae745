//! Convolutions of images that are spread among zeros, taken apart: places of one phase of the spread see every `n`th
//! tap and elements side by side. Owns which taps those are, and putting two phases of a row together.

use crate::cpu::micro::Vector;
use crate::program::kernel::Sliding;

/// The places of an axis at one phase.
pub struct Phase {
    /// How the taps that they see slide over the image as it is stored.
    pub axis: Sliding,
    /// The position of the first tap that they see, and from one to the next.
    first: usize,
    step: usize,
}

impl Phase {
    /// Which tap of `axis` lies at this position of the whole axis' taps, if these places see it.
    fn tap(&self, position: usize) -> Option<usize> {
        let from = position.checked_sub(self.first)?;
        (from.is_multiple_of(self.step) && from / self.step < self.axis.taps).then_some(from / self.step)
    }
}

/// The places of an axis in parts that see the same taps, and what all of them see of the image.
pub struct Phases {
    /// A convolution whose frame is all of it: taps lie side by side if there are several parts.
    pub axis: Sliding,
    pub parts: Vec<Phase>,
}

impl Phases {
    /// Of an axis. Only axes of stride 1 are taken apart: others stay as they are.
    pub fn new(axis: &Sliding) -> Phases {
        if axis.stride != 1 || axis.spread == 1 {
            return Phases { axis: *axis, parts: vec![Phase { axis: *axis, first: 0, step: 1 }] };
        }
        let parts: Vec<Phase> = (0..axis.spread).map(|number| phase(axis, number)).collect();
        let seeing = || parts.iter().map(|part| part.axis).filter(|axis| axis.taps > 0);
        let before = seeing().map(|axis| axis.before).max().unwrap_or(0);
        let last = seeing().map(|axis| (before - axis.before) as usize + (axis.taps - 1) * axis.dilation).max();
        let (taps, places) = (last.unwrap_or(0) + 1, parts[0].axis.places);
        let axis = Sliding { before, spread: 1, framed: places + taps - 1, taps, places, dilation: 1, ..*axis };
        Phases { axis, parts }
    }

    /// Which tap of `axis` the tap of a part is that lies at this position of the whole axis' taps, if its places see
    /// it.
    pub fn tap(&self, part: usize, position: usize) -> Option<usize> {
        let part = &self.parts[part];
        let tap = part.tap(position)?;
        let shift = (self.axis.before - part.axis.before) as usize;
        Some(if self.parts.len() == 1 { tap } else { shift + tap * part.axis.dilation })
    }
}

/// Places `phase`, `phase + spread`, … of an axis.
fn phase(axis: &Sliding, phase: usize) -> Phase {
    let spread = axis.spread as isize;
    // Where a tap lies, from the first stored element.
    let offset = |position: usize| phase as isize + (position * axis.dilation) as isize - axis.before;
    let seen: Vec<usize> = (0..axis.taps).filter(|&t| offset(t).rem_euclid(spread) == 0).collect();
    let (first, step) = match seen[..] {
        [first, second, ..] => (first, second - first),
        [first] => (first, 1),
        [] => (0, 1),
    };
    let places = axis.places.saturating_sub(phase).div_ceil(axis.spread);
    let axis = Sliding {
        before: -offset(first).div_euclid(spread),
        spread: 1,
        taps: seen.len(),
        places,
        dilation: (step * axis.dilation).div_ceil(axis.spread),
        ..*axis
    };
    Phase { axis, first, step }
}

/// Rows of two parts, to be put together: `dst[p, r, 2 i] = a[p, r, i]`, `dst[p, r, 2 i + 1] = b[p, r, i]`.
#[derive(Clone, Copy, Debug)]
pub struct Weave<T> {
    pub planes: usize,
    pub rows: usize,
    /// Columns of both parts: as many, or one more of the first.
    pub cols: [usize; 2],
    /// The first element of the result, from plane to plane and from row to row.
    pub dst: *mut T,
    pub dst_steps: [usize; 2],
    /// Those of both parts.
    pub src: [*const T; 2],
    pub src_steps: [usize; 2],
}

/// Puts rows together.
///
/// # Safety
/// The elements can be read and written and do not overlap; the machine has the vector's instructions.
#[inline(always)]
pub unsafe fn weave<V: Vector>(weave: &Weave<V::Element>) {
    let &Weave { planes, rows, cols, dst, dst_steps, src: [a, b], src_steps } = weave;
    let whole = cols[1] / V::LANES * V::LANES;
    // Two rows of half a vector are one.
    let is_half = 2 * cols[0] == V::LANES && cols[0] == cols[1] && src_steps[1] == cols[0];
    let pairs = if is_half { rows / 2 } else { 0 };
    // SAFETY: as our caller promised.
    unsafe {
        for plane in 0..planes {
            let dst = |row: usize| dst.add(plane * dst_steps[0] + row * dst_steps[1]);
            let of = |row: usize| [a, b].map(|part| part.add(plane * src_steps[0] + row * src_steps[1]));
            for row in (0..2 * pairs).step_by(2) {
                V::weave([dst(row), dst(row + 1)], of(row));
            }
            for row in 2 * pairs..rows {
                let (dst, [a, b]) = (dst(row), of(row));
                for i in (0..whole).step_by(V::LANES) {
                    let dst = dst.add(2 * i);
                    V::weave([dst, dst.add(V::LANES)], [a.add(i), b.add(i)]);
                }
                (whole..cols[0]).for_each(|i| *dst.add(2 * i) = *a.add(i));
                (whole..cols[1]).for_each(|i| *dst.add(2 * i + 1) = *b.add(i));
            }
        }
    }
}
