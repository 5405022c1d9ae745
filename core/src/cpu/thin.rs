//! Products of a few rows, as when a model generates token by token: the right operand passes once from memory to
//! registers, and is packed nowhere. Where its columns run along `k`, it is transposed on the way.
//! Owns the loops and how far ahead they ask for memory; the arithmetic is that of `micro`'s tiles.

use super::micro::Vector;

/// `c[r, j] = Σ a[r, p] · b[p, j]` for a fixed number of rows.
#[derive(Clone, Copy, Debug)]
pub struct Thin<T> {
    /// Length of the sums, and of the blocks they are cut into.
    pub k: usize,
    pub depth: usize,
    /// The first row of `a`.
    pub a: *const T,
    /// From row to row of `a`, and along `k`.
    pub a_step: (isize, isize),
    /// The first column of `b`.
    pub b: *const T,
    /// From column to column, and along `k`: one of them is 1.
    pub b_step: (isize, isize),
    /// How many columns.
    pub cols: usize,
    /// The first element of the result, columns side by side.
    pub c: *mut T,
    /// From row to row of the result.
    pub pitch: usize,
}

/// Computes such a product.
///
/// # Safety
/// The addresses suit it, `c` overlaps neither operand, and the machine has the instruction set.
pub type ThinFn<T> = unsafe fn(&Thin<T>);

/// How far ahead memory is asked for in each of the columns that run along `k`, in bytes: with a vector of columns at a
/// time it is enough to hide the way from memory, and far less than a first-level cache holds.
const AHEAD: usize = 512;
/// The same for rows of columns side by side, all together, for the second-level cache: long strides drive each other
/// out of the first.
const ROWS_AHEAD: usize = 8 << 10;
/// Elements of the largest vector.
const LANES: usize = 16;

/// The product of `R` rows.
///
/// # Safety
/// As for [`ThinFn`].
#[inline(always)]
pub unsafe fn thin<V: Vector, const R: usize>(product: &Thin<V::Element>) {
    // SAFETY: as our caller promised.
    unsafe {
        if product.b_step.0 != 1 {
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
    let (cols, mut j) = (product.cols, 0);
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

/// Where columns run along `k`: a vector of them at a time.
///
/// # Safety
/// As for [`ThinFn`].
#[inline(always)]
unsafe fn along<V: Vector, const R: usize>(product: &Thin<V::Element>) {
    let Thin { k, depth, a, a_step: (a_row, a_col), b, b_step: (b_col, _), cols, c, pitch } = *product;
    let ahead = (AHEAD / size_of::<V::Element>()) as isize;
    // SAFETY: our caller promised that the addresses suit; columns beyond the last are the last again, and what is only
    // asked for may lie anywhere.
    unsafe {
        let zero = V::zero();
        let mut square = [zero; LANES];
        let turned = square.as_mut_ptr().cast::<V::Element>();
        for j in (0..cols).step_by(V::LANES) {
            let last = (cols - j).min(V::LANES) - 1;
            let b = b.offset(j as isize * b_col);
            let mut sums = [zero; R];
            for start in (0..k).step_by(depth) {
                let mut acc = [zero; R];
                let end = k.min(start + depth);
                for p in (start..end).step_by(V::LANES) {
                    let terms = (end - p).min(V::LANES);
                    let src = b.add(p);
                    // Beyond the end of these columns it is the beginning of the next ones that comes up.
                    let goes_on = ahead < (k - p) as isize;
                    let next = if goes_on { ahead } else { ahead - k as isize + V::LANES as isize * b_col };
                    (0..V::LANES).for_each(|l| V::prefetch(src.wrapping_offset(l as isize * b_col + next)));
                    if terms == V::LANES {
                        if last + 1 == V::LANES {
                            V::transpose(turned, V::LANES, src, |l| l as isize * b_col);
                        } else {
                            V::transpose(turned, V::LANES, src, |l| l.min(last) as isize * b_col);
                        }
                        multiply::<V, R>(&mut acc, turned, a.offset(p as isize * a_col), (a_row, a_col), V::LANES);
                    } else {
                        for (q, l) in (0..terms).flat_map(|q| (0..V::LANES).map(move |l| (q, l))) {
                            *turned.add(q * V::LANES + l) = *src.offset(l.min(last) as isize * b_col + q as isize);
                        }
                        multiply::<V, R>(&mut acc, turned, a.offset(p as isize * a_col), (a_row, a_col), terms);
                    }
                }
                (0..R).for_each(|r| sums[r] = if start == 0 { acc[r] } else { sums[r].plus(acc[r]) });
            }
            for (r, &sum) in sums.iter().enumerate() {
                let at = c.add(r * pitch + j);
                if last + 1 == V::LANES {
                    sum.store(at);
                } else {
                    sum.store(turned);
                    (0..=last).for_each(|l| *at.add(l) = *turned.add(l));
                }
            }
        }
    }
}

/// Adds `terms` terms: rows of `turned` with elements of `a`.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn multiply<V: Vector, const R: usize>(
    acc: &mut [V; R],
    turned: *const V::Element,
    a: *const V::Element,
    (a_row, a_col): (isize, isize),
    terms: usize,
) {
    for q in 0..terms {
        // SAFETY: as our caller promised.
        unsafe {
            let line = V::load(turned.add(q * V::LANES));
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = V::splat(a.offset(r as isize * a_row + q as isize * a_col));
                *acc = acc.multiply_add(x, line);
            }
        }
    }
}
