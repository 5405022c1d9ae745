//! Views as arithmetic on strides. Owns what each movement does to a layout; knows no nodes.

use smallvec::{SmallVec, smallvec};

use crate::ops::cut::{Cut, Start};
use crate::program::kernel::{Dims, Layout, Shift, Shifts, Strides};

impl Layout {
    /// Row-major, without gaps.
    pub(crate) fn contiguous(dims: &[usize]) -> Layout {
        let mut strides: Strides = smallvec![1; dims.len()];
        for axis in (0..dims.len().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * dims[axis + 1].max(1) as isize;
        }
        Layout { offset: 0, shifts: Shifts::new(), strides }
    }

    /// Whether the elements of `dims` lie in row-major order without gaps from element 0 on.
    pub(crate) fn is_contiguous(&self, dims: &[usize]) -> bool {
        let mut expected = 1;
        for (&d, &s) in dims.iter().zip(&self.strides).rev() {
            if d != 1 && s != expected {
                return false;
            }
            expected *= d.max(1) as isize;
        }
        self.offset == 0 && self.shifts.is_empty()
    }

    pub(crate) fn permute(&self, axes: &[usize]) -> Layout {
        self.with_strides(axes.iter().map(|&a| self.strides[a]).collect())
    }

    /// Repeats axes of 1, and new leading ones.
    pub(crate) fn expand(&self, from: &[usize], to: &[usize]) -> Layout {
        let skip = to.len() - from.len();
        let mut strides: Strides = smallvec![0; to.len()];
        for (axis, &d) in from.iter().enumerate() {
            strides[axis + skip] = if d == 1 { 0 } else { self.strides[axis] };
        }
        self.with_strides(strides)
    }

    /// Walks these axes from their ends.
    pub(crate) fn flip(&self, axes: &[usize], dims: &[usize]) -> Layout {
        let mut out = self.clone();
        for &axis in axes {
            out.offset += self.strides[axis] * (dims[axis] as isize - 1).max(0);
            out.strides[axis] = -self.strides[axis];
        }
        out
    }

    fn with_strides(&self, strides: Strides) -> Layout {
        Layout { offset: self.offset, shifts: self.shifts.clone(), strides }
    }

    /// What lies in each axis from the cut's start on, every `step`th element.
    pub(crate) fn slice(&self, cuts: &[Cut]) -> Layout {
        let mut out = self.clone();
        for (axis, cut) in cuts.iter().enumerate() {
            let stride = self.strides[axis];
            match &cut.start {
                Start::Fixed(start) => out.offset += stride * *start as isize,
                Start::Host(_) if stride == 0 => {}
                Start::Host(start) => out.shifts.push(Shift { slot: start.slot(), stride }),
            }
            out.strides[axis] = stride * cut.step as isize;
        }
        out
    }

    /// The same elements in the same order under other extents; `None` if no strides can say so.
    pub(crate) fn reshape(&self, from: &[usize], to: &[usize]) -> Option<Layout> {
        if from.contains(&0) {
            return Some(Layout::contiguous(to));
        }
        // Axes of 1 say nothing; runs of axes that lie one in the other are one longer axis.
        let mut runs: SmallVec<[(usize, isize); 6]> = SmallVec::new();
        for (&d, &s) in from.iter().zip(&self.strides).filter(|(d, _)| **d != 1) {
            match runs.last_mut() {
                Some((len, stride)) if *stride == s * d as isize => {
                    *len *= d;
                    *stride = s;
                }
                _ => runs.push((d, s)),
            }
        }
        let mut strides: Strides = smallvec![0; to.len()];
        let mut run = runs.len();
        let (mut left, mut stride) = (1usize, 0isize);
        for axis in (0..to.len()).rev() {
            let d = to[axis];
            if d == 1 {
                continue;
            }
            if left == 1 {
                run = run.checked_sub(1)?;
                (left, stride) = runs[run];
            }
            if left % d != 0 {
                return None;
            }
            strides[axis] = stride;
            stride *= d as isize;
            left /= d;
        }
        (run == 0 && left == 1).then(|| self.with_strides(strides))
    }
}

/// Extents after a permutation.
pub(crate) fn permuted(dims: &[usize], axes: &[usize]) -> Dims {
    axes.iter().map(|&a| dims[a]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(l: &Layout, index: &[usize]) -> isize {
        l.offset + index.iter().zip(&l.strides).map(|(&i, &s)| i as isize * s).sum::<isize>()
    }

    #[test]
    fn reshape_splits_and_merges_where_strides_allow() {
        let l = Layout::contiguous(&[2, 3, 4]);
        assert_eq!(l.reshape(&[2, 3, 4], &[6, 4]).unwrap(), Layout::contiguous(&[6, 4]));
        let t = l.permute(&[1, 0, 2]);
        assert_eq!(t.reshape(&[3, 2, 4], &[6, 4]), None);
        let split = t.reshape(&[3, 2, 4], &[3, 2, 2, 2]).unwrap();
        assert_eq!(at(&split, &[2, 1, 1, 0]), at(&t, &[2, 1, 2]));
        let with_ones = l.reshape(&[2, 3, 4], &[2, 1, 12]).unwrap();
        assert_eq!(at(&with_ones, &[1, 0, 5]), 17);
        let repeated = Layout::contiguous(&[1, 3]).expand(&[1, 3], &[4, 3]);
        assert_eq!(repeated.reshape(&[4, 3], &[12]), None);
        assert_eq!(repeated.reshape(&[4, 3], &[2, 2, 3]).unwrap().strides[..], [0, 0, 1]);
    }

    #[test]
    fn contiguity_ignores_axes_of_one() {
        assert!(Layout { offset: 0, shifts: Shifts::new(), strides: smallvec![7, 1] }.is_contiguous(&[1, 5]));
        assert!(!Layout { offset: 1, shifts: Shifts::new(), strides: smallvec![5, 1] }.is_contiguous(&[2, 5]));
    }
}
