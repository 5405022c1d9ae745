//! The largest of windows as the definition says it: for every place, every tap.

use super::array::{Array, each_index, offset};
use crate::tape::TensorType;

/// Windows over the last axes: size and stride of each.
pub(crate) struct Pools<'a> {
    pub windows: &'a [(usize, usize)],
    /// How a tap is numbered.
    pub number: &'a dyn Fn(&[usize]) -> i64,
}

impl Pools<'_> {
    fn each_tap(&self, mut f: impl FnMut(&[usize])) {
        each_index(&self.windows.iter().map(|w| w.0).collect::<Vec<_>>(), &mut f);
    }

    /// The element of an image under a tap of a place.
    fn under(&self, place: &[usize], tap: &[usize]) -> Vec<usize> {
        let lead = place.len() - tap.len();
        let along = (0..tap.len()).map(|i| place[lead + i] * self.windows[i].1 + tap[i]);
        place[..lead].iter().copied().chain(along).collect()
    }

    /// `f` of the first largest of each window and of its number; NaN wins.
    pub fn max(&self, x: &Array, ty: &TensorType, f: impl Fn(f64, i64) -> f64) -> Array {
        Array::from_fn(ty, |place| {
            let mut best: Option<(f64, i64)> = None;
            self.each_tap(|tap| {
                let value = x.floats()[offset(&x.shape, &self.under(place, tap))];
                if best.is_none_or(|(largest, _)| value > largest || value.is_nan()) {
                    best = Some((value, (self.number)(tap)));
                }
            });
            best.map_or(0.0, |(value, number)| f(value, number))
        })
    }

    /// The elements that the numbers name.
    pub fn pick(&self, x: &Array, which: &Array, ty: &TensorType) -> Array {
        Array::from_fn(ty, |place| {
            let mut picked = 0.0;
            self.each_tap(|tap| {
                if which.ints()[offset(&which.shape, place)] == (self.number)(tap) {
                    picked = x.floats()[offset(&x.shape, &self.under(place, tap))];
                }
            });
            picked
        })
    }

    /// An image of the values that lie where the numbers say; there are `before` more places than there are windows.
    pub fn place(&self, values: &Array, which: &Array, before: &[usize], ty: &TensorType) -> Array {
        let mut out = Array::fill(ty, 0.0);
        let lead = ty.shape.len() - before.len();
        let mut sums = vec![0.0; ty.shape.numel()];
        each_index(&values.shape, |at| {
            let real = (0..before.len()).all(|i| at[lead + i] >= before[i]);
            let place: Vec<usize> = (0..at.len())
                .map(|axis| if axis < lead { at[axis] } else { at[axis].saturating_sub(before[axis - lead]) })
                .collect();
            self.each_tap(|tap| {
                let under = self.under(&place, tap);
                let within = under.iter().zip(ty.shape.iter()).all(|(i, d)| i < d);
                let from = offset(&values.shape, at);
                if real && within && which.ints()[from] == (self.number)(tap) {
                    sums[offset(&ty.shape, &under)] += values.floats()[from];
                }
            });
        });
        out.data = tapeflow_ir::Column::Float(sums);
        out
    }
}
