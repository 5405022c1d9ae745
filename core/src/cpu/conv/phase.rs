//! Convolutions of images that are spread among zeros, taken apart: places of one phase of the spread see every `n`th
//! tap and elements side by side. Owns which taps those are, and putting two phases of a row together.

use std::marker::PhantomData;

use crate::cpu::micro::Element;
use crate::cpu::vector::{Body, Call};
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
    pub fn tap(&self, position: usize) -> Option<usize> {
        let from = position.checked_sub(self.first)?;
        (from.is_multiple_of(self.step) && from / self.step < self.axis.taps).then_some(from / self.step)
    }
}

/// Places `phase`, `phase + spread`, … of an axis. Only axes of stride 1 are taken apart: others stay as they are.
pub fn phase(axis: &Sliding, phase: usize) -> Phase {
    if axis.stride != 1 || axis.spread == 1 {
        return Phase { axis: *axis, first: 0, step: 1 };
    }
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

/// `rows` and `cols` elements alternately: as many, or one more of the first.
pub struct Weave<T>(PhantomData<T>);

impl<T: Element> Body for Weave<T> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        let (dst, a, b) = (call.dst.cast::<T>(), call.src[0].cast::<T>(), call.src[1].cast::<T>());
        // SAFETY: there are as many elements.
        unsafe {
            for i in 0..call.cols {
                *dst.add(2 * i) = *a.add(i);
                *dst.add(2 * i + 1) = *b.add(i);
            }
            if call.rows > call.cols {
                *dst.add(2 * call.cols) = *a.add(call.cols);
            }
        }
    }
}
