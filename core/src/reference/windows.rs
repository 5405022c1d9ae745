//! Convolutions as their definition says them: nested loops over every place, channel and tap.

use super::array::{Array, each_index, offset};
use crate::tape::TensorType;

/// An image `(N, G, C, L…)` and how windows lie in it: stride and dilation per axis.
pub(crate) struct Windows<'a> {
    pub image: &'a Array,
    pub steps: &'a [(usize, usize)],
    /// Whether the taps are reversed.
    pub reversed: bool,
}

impl Windows<'_> {
    /// The image under a tap of a place.
    fn at(&self, lead: [usize; 3], place: &[usize], tap: &[usize], taps: &[usize]) -> f64 {
        let mut index = lead.to_vec();
        for (axis, &(stride, dilation)) in self.steps.iter().enumerate() {
            let tap = if self.reversed { taps[axis] - 1 - tap[axis] } else { tap[axis] };
            index.push(place[axis] * stride + tap * dilation);
        }
        self.image.floats()[offset(&self.image.shape, &index)]
    }

    /// The convolution with a kernel `(G, O, C, K…)`.
    pub fn convolve(&self, kernel: &Array, ty: &TensorType) -> Array {
        let taps = &kernel.shape[3..];
        Array::from_fn(ty, |to| {
            let (item, group, out, place) = (to[0], to[1], to[2], &to[3..]);
            let mut sum = 0.0;
            each_index(&kernel.shape[2..], |from| {
                let (channel, tap) = (from[0], &from[1..]);
                let weight = offset(&kernel.shape, &[&[group, out, channel], tap].concat());
                sum += self.at([item, group, channel], place, tap, taps) * kernel.floats()[weight];
            });
            sum
        })
    }

    /// The kernel's gradient, given that of the places `(N, G, O, P…)`.
    pub fn kernel(&self, places: &Array, ty: &TensorType) -> Array {
        let dims = [&places.shape[..1], &places.shape[3..]].concat();
        Array::from_fn(ty, |to| {
            let (group, out, channel, tap) = (to[0], to[1], to[2], &to[3..]);
            let mut sum = 0.0;
            each_index(&dims, |from| {
                let (item, place) = (from[0], &from[1..]);
                let cotangent = offset(&places.shape, &[&[item, group, out], place].concat());
                sum += self.at([item, group, channel], place, tap, &ty.shape[3..]) * places.floats()[cotangent];
            });
            sum
        })
    }
}
