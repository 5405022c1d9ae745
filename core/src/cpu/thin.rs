//! Products of a few rows, as when a model generates token by token: the right operand passes once from memory to
//! registers, and is packed nowhere. Where its columns run along `k`, it is transposed on the way.
//! Owns the loops and how far ahead they ask for memory; the arithmetic is that of `micro`'s tiles.

use super::micro::Vector;
use crate::program::kernel::PANEL;

/// `c[r, j] = Σ a[r, p] · b[p, j]` for a fixed number of rows, and the columns of a share.
#[derive(Clone, Copy, Debug)]
pub struct Thin<T> {
    /// Length of the sums, and of the blocks they are cut into.
    pub k: usize,
    pub depth: usize,
    /// The first row of `a`.
    pub a: *const T,
    /// From row to row of `a`, and along `k`.
    pub a_step: (isize, isize),
    /// The share's first column of `b`.
    pub b: *const T,
    /// From column to column, and along `k`: one of them is 1.
    pub b_step: (isize, isize),
    /// From panel to panel, if the share's columns lie in such; then the columns of one lie side by side.
    pub panel: Option<isize>,
    /// Which columns.
    pub share: Share,
    /// Its first element of the result, columns side by side.
    pub c: *mut T,
    /// From row to row of the result.
    pub pitch: usize,
}

/// Columns that are computed in turns of one in each lane: of turn `t` and lane `l`, column
/// `first + t · turn + l · apart`. There may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub first: usize,
    pub turns: usize,
    pub turn: usize,
    pub lanes: usize,
    pub apart: usize,
}

/// The shares of `columns` that belong to a part of the turns, its first and how many; the last part has what does not
/// fill the lanes too. Each lane has neighbours one after the other: where columns lie along memory it reads one long
/// line of it, which the machine foresees. Columns that lie side by side have one lane.
pub fn shares(columns: usize, lanes: usize, (first, turns): (usize, usize)) -> [Share; 2] {
    let apart = columns / lanes;
    let left = if first + turns == apart { columns % lanes } else { 0 };
    [Share { first, turns, turn: 1, lanes, apart }, rest(apart * lanes, left)]
}

/// The shares of a few columns, whose turns are neighbours. What lies in panels has as many lanes as a panel.
pub fn neighbours(columns: usize, lanes: usize) -> [Share; 2] {
    let turns = columns / lanes;
    [Share { first: 0, turns, turn: lanes, lanes, apart: 1 }, rest(turns * lanes, columns % lanes)]
}

fn rest(first: usize, lanes: usize) -> Share {
    Share { first, turns: lanes.min(1), turn: lanes, lanes, apart: 1 }
}

/// Computes such a product.
///
/// # Safety
/// The addresses suit it, `c` overlaps neither operand, and the machine has the instruction set.
pub type ThinFn<T> = unsafe fn(&Thin<T>);

/// How far ahead memory is asked for in each of the columns that run along `k`, in bytes. In long lines as far as from
/// the second-level cache: what is farther away the machine brings there by itself, in more lines at a time than a
/// program can ask for. In short ones as far as hides the way from memory.
const LONG_AHEAD: usize = 128;
const AHEAD: usize = 512;
/// How far ahead memory is asked for in rows of columns side by side, all together, in bytes; for the second-level
/// cache, since long strides drive each other out of the first.
const ROWS_AHEAD: usize = 8 << 10;

/// The product of `R` rows.
///
/// # Safety
/// As for [`ThinFn`].
#[inline(always)]
pub unsafe fn thin<V: Vector, const R: usize>(product: &Thin<V::Element>) {
    // SAFETY: as our caller promised.
    unsafe {
        if let Some(panel) = product.panel {
            // A line at a time, to its end: memory is read in order.
            match PANEL / V::LANES {
                1 => down::<V, R, 1>(product, panel),
                2 => down::<V, R, 2>(product, panel),
                4 => down::<V, R, 4>(product, panel),
                _ => down::<V, R, 8>(product, panel),
            }
        } else if product.b_step.0 != 1 {
            along::<V, R>(product);
        } else if size_of::<V>() < 64 {
            // Sixteen registers.
            match R {
                1 | 2 => across::<V, R, 4>(product),
                _ => across::<V, R, 2>(product),
            }
        } else {
            match R {
                1..=3 => across::<V, R, 8>(product),
                4..=6 => across::<V, R, 4>(product),
                _ => across::<V, R, 3>(product),
            }
        }
    }
}

/// Where columns lie side by side: `W` vectors of them at a time.
///
/// # Safety
/// As for [`ThinFn`].
#[inline(always)]
unsafe fn across<V: Vector, const R: usize, const W: usize>(product: &Thin<V::Element>) {
    let (cols, mut j) = (product.share.turns, 0);
    // SAFETY: as our caller promised.
    unsafe {
        while j + W * V::LANES <= cols {
            strip::<V, R, W>(product, j, V::LANES);
            j += W * V::LANES;
        }
        // A vector alone waits for its sums.
        while W > 4 && j + 4 * V::LANES <= cols {
            strip::<V, R, 4>(product, j, V::LANES);
            j += 4 * V::LANES;
        }
        while j < cols {
            strip::<V, R, 1>(product, j, (cols - j).min(V::LANES));
            j += V::LANES;
        }
    }
}

/// `W` vectors of columns from `j` on; of a single one only the first `lanes` may exist.
///
/// # Safety
/// As for [`ThinFn`].
#[inline(always)]
unsafe fn strip<V: Vector, const R: usize, const W: usize>(product: &Thin<V::Element>, j: usize, lanes: usize) {
    let Thin { k, depth, a, a_step: (a_row, a_col), b, b_step: (_, b_row), c, pitch, .. } = *product;
    // SAFETY: as our caller promised; what is only asked for may lie anywhere.
    unsafe {
        let zero = V::zero();
        let (mut tail, mut edge) = (zero, [zero; R]);
        let (part, edge) = ((&raw mut tail).cast::<V::Element>(), edge.as_mut_ptr().cast::<V::Element>());
        let ahead = (ROWS_AHEAD / size_of::<V>() / W) as isize * b_row;
        for start in (0..k).step_by(depth) {
            let mut acc = [[zero; W]; R];
            for p in start..k.min(start + depth) {
                let src = b.offset(p as isize * b_row).add(j);
                let mut line = [zero; W];
                for (w, line) in line.iter_mut().enumerate() {
                    V::prefetch_far(src.wrapping_offset(ahead).wrapping_add(w * V::LANES));
                    if W == 1 && lanes < V::LANES {
                        (0..lanes).for_each(|l| *part.add(l) = *src.add(l));
                        *line = V::load(part);
                    } else {
                        *line = V::load(src.add(w * V::LANES));
                    }
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = V::splat(a.offset(r as isize * a_row + p as isize * a_col));
                    (0..W).for_each(|w| acc[w] = acc[w].multiply_add(x, line[w]));
                }
            }
            for (r, acc) in acc.iter().enumerate() {
                for (w, &acc) in acc.iter().enumerate() {
                    let at = c.add(r * pitch + j + w * V::LANES);
                    if W == 1 && lanes < V::LANES {
                        let sum = edge.add(r * V::LANES);
                        let total = if start > 0 { V::load(sum).plus(acc) } else { acc };
                        total.store(sum);
                        (0..lanes).for_each(|l| *at.add(l) = *sum.add(l));
                    } else {
                        let total = if start > 0 { V::load(at).plus(acc) } else { acc };
                        total.store(at);
                    }
                }
            }
        }
    }
}

/// Where columns lie in panels of `W` vectors: a panel a turn.
///
/// # Safety
/// As for [`ThinFn`].
#[inline(always)]
unsafe fn down<V: Vector, const R: usize, const W: usize>(product: &Thin<V::Element>, panel: isize) {
    for t in 0..product.share.turns {
        // SAFETY: as our caller promised.
        unsafe {
            let (b, c) = (product.b.offset(t as isize * panel), product.c.add(t * PANEL));
            strip::<V, R, W>(&Thin { b, c, ..*product }, 0, V::LANES);
        }
    }
}

/// Where columns run along `k`: a turn at a time.
///
/// # Safety
/// As for [`ThinFn`].
#[inline(always)]
unsafe fn along<V: Vector, const R: usize>(product: &Thin<V::Element>) {
    let Thin { k, depth, a, a_step: (a_row, a_col), b, b_step: (b_col, _), share, c, pitch, .. } = *product;
    let Share { turns, turn, lanes, apart, .. } = share;
    let step = apart as isize * b_col;
    let ahead = if turn == 1 { LONG_AHEAD } else { AHEAD } / size_of::<V::Element>();
    // SAFETY: our caller promised that the addresses suit.
    unsafe {
        for t in 0..turns {
            let b = b.offset((t * turn) as isize * b_col);
            let mut sums = [V::zero(); R];
            for start in (0..k).step_by(depth) {
                let (a, terms) = (a.offset(start as isize * a_col), depth.min(k - start));
                // Beyond the end of these columns it is the beginning of the next turn's that comes up.
                let goes_on = start + ahead < k;
                let ahead = if goes_on { 0 } else { turn as isize * b_col - k as isize } + ahead as isize;
                let lines = Lines { b: b.add(start), ahead };
                // Strides that are known leave no addresses to compute. Lanes beyond the last are the last again.
                let column = |l: usize| l as isize * step;
                let acc = match (a_col, lanes == V::LANES) {
                    (1, true) => lines.multiply::<V, R>(a, (a_row, 1), terms, column),
                    (_, true) => lines.multiply::<V, R>(a, (a_row, a_col), terms, column),
                    _ => lines.multiply::<V, R>(a, (a_row, a_col), terms, |l| column(l.min(lanes - 1))),
                };
                (0..R).for_each(|r| sums[r] = if start == 0 { acc[r] } else { sums[r].plus(acc[r]) });
            }
            let mut row = [V::zero(); 1];
            let row = row.as_mut_ptr().cast::<V::Element>();
            for (r, &sum) in sums.iter().enumerate() {
                sum.store(row);
                (0..lanes).for_each(|l| *c.add(r * pitch + t * turn + l * apart) = *row.add(l));
            }
        }
    }
}

/// Columns of a turn, from some term on: the first one's, and how far ahead memory is asked for.
struct Lines<T> {
    b: *const T,
    ahead: isize,
}

impl<T: Copy> Lines<T> {
    /// The sums of so many terms, of columns that lie so from the first.
    ///
    /// # Safety
    /// They can be read.
    #[inline(always)]
    unsafe fn multiply<V: Vector<Element = T>, const R: usize>(
        &self,
        a: *const T,
        (a_row, a_col): (isize, isize),
        terms: usize,
        column: impl Fn(usize) -> isize,
    ) -> [V; R] {
        let Lines { b, ahead } = *self;
        // SAFETY: as our caller promised; what is only asked for may lie anywhere.
        unsafe {
            let mut acc = [V::zero(); R];
            let whole = terms / V::LANES * V::LANES;
            let (mut src, mut x) = (b, a);
            for _ in 0..whole / V::LANES {
                for l in 0..V::LANES {
                    V::prefetch(src.wrapping_offset(column(l) + ahead));
                }
                for (q, &line) in V::turned(src, &column)[..V::LANES].iter().enumerate() {
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let x = V::splat(x.offset(r as isize * a_row + q as isize * a_col));
                        *acc = acc.multiply_add(x, line);
                    }
                }
                src = src.wrapping_add(V::LANES);
                x = x.wrapping_offset(V::LANES as isize * a_col);
            }
            // A term at a time.
            let mut line = [V::zero(); 1];
            let at = line.as_mut_ptr().cast::<T>();
            for p in whole..terms {
                (0..V::LANES).for_each(|l| *at.add(l) = *b.offset(column(l)).add(p));
                let line = V::load(at);
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = V::splat(a.offset(r as isize * a_row + p as isize * a_col));
                    *acc = acc.multiply_add(x, line);
                }
            }
            acc
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(seen: &mut [usize], shares: [Share; 2]) {
        for Share { first, turns, turn, lanes, apart } in shares {
            (0..turns).for_each(|t| (0..lanes).for_each(|l| seen[first + t * turn + l * apart] += 1));
        }
    }

    #[test]
    fn shares_are_every_column_once() {
        for (columns, lanes, parts) in [(0, 16, 1), (5, 16, 1), (16, 16, 1), (50257, 16, 16), (100, 8, 5), (100, 1, 7)]
        {
            let turns = columns / lanes;
            let mut seen = vec![0; columns];
            for part in 0..parts {
                let (start, end) = (part * turns / parts, (part + 1) * turns / parts);
                count(&mut seen, shares(columns, lanes, (start, end - start)));
            }
            assert!(seen.iter().all(|&n| n == 1), "{columns} columns in {lanes} lanes, {parts} parts: {seen:?}");
            let mut seen = vec![0; columns];
            count(&mut seen, neighbours(columns, lanes));
            assert!(seen.iter().all(|&n| n == 1), "{columns} columns in {lanes} lanes: {seen:?}");
        }
    }
}
