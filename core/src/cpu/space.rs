//! Iteration spaces: merging axes that every layout walks as one, and walking a range of a space run by run.
//! Owns index arithmetic; knows neither functions nor dtypes.

use crate::program::kernel::{Dims, Layout, shift};

/// Rows of a transposed operand that are read together.
pub const TRANSPOSED_ROWS: usize = 16;

/// Number of elements.
pub fn product(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// The strides of contiguous elements.
#[cfg(test)]
pub fn contiguous(dims: &[usize]) -> Layout {
    let mut strides: crate::program::kernel::Strides = dims.iter().map(|_| 0).collect();
    let mut stride = 1;
    for axis in (0..dims.len()).rev() {
        strides[axis] = stride;
        stride *= dims[axis] as isize;
    }
    Layout { offset: 0, shifts: Default::default(), strides }
}

/// Merges neighbouring axes wherever all layouts agree, and drops axes of one element. `keep_last` leaves the last axis
/// alone: it is a row. The result has at least one axis.
pub fn collapse(dims: &[usize], layouts: &[&Layout], keep_last: bool) -> (Dims, Vec<Layout>) {
    let mut out: Vec<Layout> =
        layouts.iter().map(|layout| Layout { strides: Default::default(), ..(*layout).clone() }).collect();
    let mut merged = Dims::new();
    for (axis, &extent) in dims.iter().enumerate() {
        let last = axis + 1 == dims.len();
        let pinned = keep_last && last;
        if extent == 1 && !pinned {
            continue;
        }
        let fits = |(out, layout): (&Layout, &&Layout)| {
            out.strides.last().is_some_and(|&outer| outer == layout.strides[axis] * extent as isize)
        };
        match merged.last_mut() {
            Some(outer) if !pinned && out.iter().zip(layouts).all(fits) => {
                *outer *= extent;
                for (out, layout) in out.iter_mut().zip(layouts) {
                    if let Some(stride) = out.strides.last_mut() {
                        *stride = layout.strides[axis];
                    }
                }
            }
            _ => {
                merged.push(extent);
                for (out, layout) in out.iter_mut().zip(layouts) {
                    out.strides.push(layout.strides[axis]);
                }
            }
        }
    }
    if merged.is_empty() {
        merged.push(1);
        out.iter_mut().for_each(|out| out.strides.push(0));
    }
    (merged, out)
}

/// Whether the elements over `dims` follow each other without gaps. An axis of one element fits anywhere.
pub fn is_linear(dims: &[usize], strides: &[isize]) -> bool {
    let mut expected = 1;
    for (&extent, &stride) in dims.iter().zip(strides).rev() {
        if extent != 1 && stride != expected {
            return false;
        }
        expected *= extent as isize;
    }
    true
}

/// Where in an operand the elements of a space lie: a layout over its (merged) axes.
#[derive(Clone, Debug)]
pub struct Walk {
    dims: Dims,
    layout: Layout,
}

impl Walk {
    /// Over the first `dims.len()` axes of the layout.
    pub fn new(dims: &[usize], layout: &Layout) -> Walk {
        let strides = layout.strides[..dims.len()].iter().copied().collect();
        Walk { dims: dims.iter().copied().collect(), layout: Layout { strides, ..layout.clone() } }
    }

    /// What these arguments of the host add to every offset.
    #[inline(always)]
    pub fn shift(&self, scalars: &[u64]) -> isize {
        shift(&self.layout.shifts, scalars)
    }

    /// Its axes: extents, and from element to element of each.
    pub fn axes(&self) -> (&[usize], &[isize]) {
        (&self.dims, &self.layout.strides)
    }

    /// From element to element of the innermost axis.
    pub fn inner_stride(&self) -> isize {
        self.layout.strides.last().copied().unwrap_or(0)
    }

    /// The offset of element 0, but for the shift.
    pub fn first(&self) -> isize {
        self.layout.offset
    }

    /// The offset of element number `at` of the space, but for the shift.
    pub fn offset(&self, mut at: usize) -> isize {
        let mut offset = self.layout.offset;
        for (&extent, &stride) in self.dims.iter().zip(&self.layout.strides).rev() {
            if at == 0 {
                break;
            }
            offset += (at % extent) as isize * stride;
            at /= extent;
        }
        offset
    }

    /// Calls `run(done, offset, stride, count)` for every run of the inner axis within elements `start..start + n`:
    /// `count` elements from `offset`, the first being number `start + done`.
    #[inline(always)]
    pub fn runs(&self, start: usize, n: usize, mut run: impl FnMut(usize, isize, isize, usize)) {
        let Some(inner) = self.dims.len().checked_sub(1) else {
            if n > 0 {
                run(0, self.layout.offset, 0, 1);
            }
            return;
        };
        let mut index: Dims = self.dims.clone();
        let (mut rest, mut offset) = (start, self.layout.offset);
        for axis in (0..=inner).rev() {
            index[axis] = rest % self.dims[axis].max(1);
            rest /= self.dims[axis].max(1);
            offset += index[axis] as isize * self.layout.strides[axis];
        }
        let (extent, stride) = (self.dims[inner], self.layout.strides[inner]);
        let mut done = 0;
        while done < n {
            let count = (extent - index[inner]).min(n - done);
            run(done, offset, stride, count);
            done += count;
            // The next run begins at inner index 0: carry into the outer axes.
            offset -= index[inner] as isize * stride;
            index[inner] = 0;
            for axis in (0..inner).rev() {
                index[axis] += 1;
                offset += self.layout.strides[axis];
                if index[axis] < self.dims[axis] {
                    break;
                }
                offset -= self.dims[axis] as isize * self.layout.strides[axis];
                index[axis] = 0;
            }
        }
    }

    /// Reads elements `start..start + n` from the operand at `base` into `dst`.
    ///
    /// # Safety
    /// The layout stays within the operand, `dst` has room, and they do not overlap.
    pub unsafe fn gather<T: Copy>(&self, dst: *mut T, base: *const T, start: usize, n: usize) {
        self.runs(start, n, |done, offset, stride, count| {
            // SAFETY: as our caller promised.
            unsafe {
                let (dst, src) = (dst.add(done), base.offset(offset));
                match stride {
                    1 if count >= 8 => std::ptr::copy_nonoverlapping(src, dst, count),
                    0 => {
                        let value = *src;
                        (0..count).for_each(|i| *dst.add(i) = value);
                    }
                    // Of a constant stride a compiler makes shuffles.
                    2 => (0..count).for_each(|i| *dst.add(i) = *src.add(2 * i)),
                    _ => (0..count).for_each(|i| *dst.add(i) = *src.offset(i as isize * stride)),
                }
            }
        });
    }

    /// Whether runs of the inner axis stride, while neighbouring rows lie side by side: a transposed operand.
    pub fn is_transposed(&self) -> bool {
        matches!(self.layout.strides[..], [.., 1, inner] if inner.abs() > 1)
            && self.dims[self.dims.len() - 2] >= TRANSPOSED_ROWS
    }

    /// Reads columns `col..col + n` of rows `row..row + TRANSPOSED_ROWS` (those there are) of a transposed operand;
    /// `dst` has `pitch` elements from row to row.
    ///
    /// # Safety
    /// As for [`Walk::gather`].
    pub unsafe fn gather_rows<T: Copy>(
        &self,
        dst: *mut T,
        base: *const T,
        row: usize,
        col: usize,
        n: usize,
        pitch: usize,
    ) {
        let inner = self.dims[self.dims.len() - 1];
        let rows = (product(&self.dims) / inner - row).min(TRANSPOSED_ROWS);
        let start = |row: usize| self.offset(row * inner + col);
        let first = start(row);
        let stride = self.layout.strides[self.dims.len() - 1];
        // SAFETY: as our caller promised.
        unsafe {
            if rows == TRANSPOSED_ROWS && start(row + rows - 1) == first + rows as isize - 1 {
                // A cache line of the operand at a time.
                for c in 0..n {
                    let line = base.offset(first + c as isize * stride);
                    for r in 0..TRANSPOSED_ROWS {
                        *dst.add(r * pitch + c) = *line.add(r);
                    }
                }
            } else {
                for r in 0..rows {
                    self.gather(dst.add(r * pitch), base, (row + r) * inner + col, n);
                }
            }
        }
    }

    /// Writes `src` to elements `start..start + n` of the operand at `base`.
    ///
    /// # Safety
    /// As for [`Walk::gather`].
    pub unsafe fn scatter<T: Copy>(&self, base: *mut T, src: *const T, start: usize, n: usize) {
        self.runs(start, n, |done, offset, stride, count| {
            // SAFETY: as our caller promised.
            unsafe {
                let (dst, src) = (base.offset(offset), src.add(done));
                match stride {
                    1 if count >= 8 => std::ptr::copy_nonoverlapping(src, dst, count),
                    _ => (0..count).for_each(|i| *dst.offset(i as isize * stride) = *src.add(i)),
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    #[test]
    fn axes_merge_where_all_layouts_agree() {
        let x = contiguous(&[2, 3, 1, 4]);
        let bias = Layout { offset: 5, shifts: Default::default(), strides: smallvec![0, 0, 0, 1] };
        let (dims, layouts) = collapse(&[2, 3, 1, 4], &[&x, &bias], false);
        assert_eq!(&dims[..], [6, 4]);
        assert_eq!(&layouts[0].strides[..], [4, 1]);
        assert_eq!(&layouts[1].strides[..], [0, 1]);
        let (dims, _) = collapse(&[2, 3, 1, 4], &[&x], false);
        assert_eq!(&dims[..], [24]);
        let (dims, _) = collapse(&[2, 3, 1], &[&contiguous(&[2, 3, 1])], true);
        assert_eq!(&dims[..], [6, 1]);
        let (dims, _) = collapse(&[], &[&contiguous(&[])], false);
        assert_eq!(&dims[..], [1]);
    }

    #[test]
    fn a_walk_visits_every_element_from_any_start() {
        let dims = [3, 2, 5];
        let layout = Layout { offset: 100, shifts: Default::default(), strides: smallvec![1, -7, 20] };
        let expected: Vec<isize> = (0..30).map(|i| 100 + (i / 10) - 7 * (i / 5 % 2) + 20 * (i % 5)).collect();
        let walk = Walk::new(&dims, &layout);
        for start in 0..30 {
            assert_eq!(walk.offset(start), expected[start]);
            for n in 0..=30 - start {
                let mut seen = Vec::new();
                walk.runs(start, n, |done, offset, stride, count| {
                    assert_eq!(done, seen.len());
                    seen.extend((0..count as isize).map(|i| offset + i * stride));
                });
                assert_eq!(seen, expected[start..start + n]);
            }
        }
    }
}
