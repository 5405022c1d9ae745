//! Reading operands of products whose lines or sums run along several axes, as the windows of a convolution do.
//! Owns the offsets of neighbouring lines and the panels packed through them; knows no arithmetic.

use super::blocks::DEPTH;
use super::micro::Vector;
use super::space::Walk;
use crate::program::kernel::{Layout, PANEL};

/// One operand of a product.
#[derive(Debug)]
pub struct Side {
    /// Its batch items.
    pub items: Walk,
    /// Where its lines begin: rows of `a`, columns of `b`.
    pub lines: Walk,
    /// Where the terms of the sum lie in a line.
    pub depth: Walk,
    /// From line to line and from term to term, if each is one stride.
    pub plain: Option<(isize, isize)>,
    /// From an item's first element to the farthest one.
    pub reach: isize,
}

impl Side {
    /// Of extents and strides along the lines and along the sum.
    pub fn new(items: Walk, lines: (&[usize], &[isize]), depth: (&[usize], &[isize])) -> Side {
        let walk = |(dims, strides): (&[usize], &[isize])| {
            let strides = strides.iter().copied().collect();
            Walk::new(dims, &Layout { offset: 0, shifts: Default::default(), strides })
        };
        let steps = |(dims, strides): (&[usize], &[isize])| {
            dims.iter().zip(strides).map(|(&d, &s)| (d.max(1) as isize - 1) * s.max(0)).sum::<isize>()
        };
        let plain = single(lines).zip(single(depth));
        Side { items, lines: walk(lines), depth: walk(depth), plain, reach: steps(lines) + steps(depth) }
    }

    /// From panel to panel in elements of `terms` terms each, if lines lie in panels: the first such element of
    /// [`PANEL`] lines side by side, then the next ones, to the end of the sums.
    pub fn panels(&self, terms: usize) -> Option<isize> {
        let (element, row) = (terms as isize, (PANEL * terms) as isize);
        let runs_down = match self.depth.axes() {
            (&[_], &[stride]) => terms == 1 && stride == row,
            (&[_, inner], &[stride, 1]) => inner == terms && stride == row,
            _ => false,
        };
        match self.lines.axes() {
            (&[_, PANEL], &[panel, line]) if runs_down && line == element && panel % element == 0 => {
                Some(panel / element)
            }
            _ => None,
        }
    }
}

/// The only stride of axes that lie one in the other.
fn single((dims, strides): (&[usize], &[isize])) -> Option<isize> {
    let (&inner, outer) = strides.split_last()?;
    let mut expected = inner * dims[outer.len()] as isize;
    for (&d, &s) in dims.iter().zip(outer).rev() {
        if s != expected {
            return None;
        }
        expected *= d as isize;
    }
    Some(inner)
}

/// Offsets of neighbouring lines, and which of them lie side by side.
pub struct Lines {
    at: [isize; DEPTH],
    len: usize,
    /// The last line of each run of lines that lie side by side, and one more.
    ends: [u8; DEPTH],
    runs: usize,
}

impl Lines {
    /// None.
    pub fn new() -> Lines {
        Lines { at: [0; DEPTH], len: 0, ends: [0; DEPTH], runs: 0 }
    }

    /// Lines `start..start + n` of a walk, at most [`DEPTH`].
    pub fn read(&mut self, walk: &Walk, start: usize, n: usize) {
        let Lines { at, ends, .. } = self;
        let mut runs: usize = 0;
        walk.runs(start, n, |done, offset, stride, count| {
            at[done..done + count].iter_mut().enumerate().for_each(|(i, at)| *at = offset + i as isize * stride);
            if stride == 1 {
                let goes_on = done > 0 && at[done - 1] + 1 == offset;
                runs += usize::from(!goes_on);
                ends[runs - 1] = (done + count) as u8;
            } else {
                // A run each, but for one that goes on where the last ended.
                let goes_on = done > 0 && at[done - 1] + 1 == offset;
                runs -= usize::from(goes_on);
                (0..count).for_each(|i| ends[runs + i] = (done + i + 1) as u8);
                runs += count;
            }
        });
        (self.len, self.runs) = (n, runs);
    }

    /// Calls `run(first, offset, count)` for each run.
    #[inline(always)]
    fn each_run(&self, mut run: impl FnMut(usize, isize, usize)) {
        let mut first = 0;
        for &end in &self.ends[..self.runs] {
            run(first, self.at[first], usize::from(end) - first);
            first = usize::from(end);
        }
    }
}

/// A panel of `b` to be packed: `dst[p · width + j] = src[rows[p] + cols[j]]`. It is written up to a vector of lines
/// beyond its end.
pub struct Panel<'l, T> {
    /// Where it goes.
    pub dst: *mut T,
    /// Columns of the panel, whole vectors.
    pub width: usize,
    /// What offsets count from.
    pub src: *const T,
    /// Offsets of the terms of the sum.
    pub rows: &'l Lines,
    /// Offsets of the columns that there are; beyond them the panel holds anything.
    pub cols: &'l Lines,
    /// The last element that can be read.
    pub last: *const T,
}

/// Packs a panel.
///
/// # Safety
/// What the offsets name can be read, and all between, up to `last`; the panel and a vector of lines more can be
/// written and overlaps nothing; the machine has the vector's instructions.
#[inline(always)]
pub unsafe fn panel<V: Vector>(panel: &Panel<'_, V::Element>) {
    let Panel { dst, width, src, rows, cols, last } = *panel;
    // SAFETY: as our caller promised. What is read and written beyond a run is written again with the next one.
    unsafe {
        if 4 * cols.runs <= cols.len {
            // Vectors of neighbouring columns: where they go, and where they come from.
            let (mut moves, mut count) = ([(0, 0); DEPTH], 0);
            cols.each_run(|first, offset, columns| {
                for j in (0..columns).step_by(V::LANES) {
                    moves[count] = (first + j, offset + j as isize);
                    count += 1;
                }
            });
            let moves = &moves[..count];
            let farthest = moves.iter().map(|m| m.1).max().unwrap_or(0) + V::LANES as isize - 1;
            let highest = rows.at[..rows.len].iter().copied().max().unwrap_or(0);
            if src.wrapping_offset(farthest + highest) <= last {
                for (p, &row) in rows.at[..rows.len].iter().enumerate() {
                    let (dst, src) = (dst.add(p * width), src.offset(row));
                    moves.iter().for_each(|&(to, from)| V::load(src.offset(from)).store(dst.add(to)));
                }
                return;
            }
            for (p, &row) in rows.at[..rows.len].iter().enumerate() {
                let dst = dst.add(p * width);
                cols.each_run(|first, offset, count| {
                    let (dst, src) = (dst.add(first), src.offset(row + offset));
                    for j in (0..count).step_by(V::LANES) {
                        if j + V::LANES <= count || src.wrapping_add(j + V::LANES - 1) <= last {
                            V::load(src.add(j)).store(dst.add(j));
                        } else {
                            (j..count).for_each(|j| *dst.add(j) = *src.add(j));
                        }
                    }
                });
            }
            return;
        }
        let scattered = 4 * rows.runs > rows.len;
        let farthest = cols.at[..cols.len].iter().copied().max().unwrap_or(0);
        rows.each_run(|first, row, count| {
            let (dst, src) = (dst.add(first * width), src.offset(row));
            for p in (0..count).step_by(V::LANES) {
                let fits = src.wrapping_offset(farthest).wrapping_add(p + V::LANES - 1) <= last;
                if scattered || !fits {
                    for p in p..count.min(p + V::LANES) {
                        let (dst, src) = (dst.add(p * width), src.add(p));
                        cols.at[..cols.len].iter().enumerate().for_each(|(j, &at)| *dst.add(j) = *src.offset(at));
                    }
                    continue;
                }
                for j in (0..cols.len).step_by(V::LANES) {
                    let (dst, src) = (dst.add(p * width + j), src.add(p));
                    let end = cols.len - 1;
                    V::transpose(dst, width, src, |l| cols.at[(j + l).min(end)]);
                }
            }
        });
    }
}

/// Copies terms `terms.0..` of lines `lines.0..` (first and count each) of `a`, line by line, to `dst`.
///
/// # Safety
/// The lines can be read, and there is room.
pub unsafe fn pack_lines<T: Copy>(
    side: &Side,
    dst: *mut T,
    src: *const T,
    lines: (usize, usize),
    terms: (usize, usize),
) {
    const STEP: usize = 8;
    let mut sums = Lines::new();
    sums.read(&side.depth, terms.0, terms.1);
    side.lines.runs(lines.0, lines.1, |done, offset, stride, count| {
        for line in 0..count {
            // SAFETY: as our caller promised.
            unsafe {
                let (dst, src) = (dst.add((done + line) * terms.1), src.offset(offset + line as isize * stride));
                sums.each_run(|first, at, count| {
                    let (dst, src) = (dst.add(first), src.offset(at));
                    let whole = count / STEP * STEP;
                    for p in (0..whole).step_by(STEP) {
                        *dst.add(p).cast::<[T; STEP]>() = *src.add(p).cast::<[T; STEP]>();
                    }
                    (whole..count).for_each(|p| *dst.add(p) = *src.add(p));
                });
            }
        }
    });
}
