//! Micro-kernels of convolutions: tiles of sums held in registers whose operands are read through lists of offsets.
//! Owns the arithmetic of a tile; knows neither images nor how they are laid out in scratch.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::compiler_fence;

use crate::cpu::micro::Vector;

/// Vectors of the widest tile.
pub const WIDEST: usize = 3;

/// `c[r, w] = Σ a[r · a_row + a_at[p]] · b[w][b_at[p]…]`, or `+=`: every lane one chain over p in order, from zero.
#[derive(Clone, Copy, Debug)]
pub struct Strip<T> {
    /// Terms of the sum.
    pub k: usize,
    /// What is splatted: its first row, from row to row, and where each term lies.
    pub a: *const T,
    pub a_row: isize,
    pub a_at: *const i32,
    /// The vectors' first elements, and where each term lies from there.
    pub b: [*const T; WIDEST],
    pub b_at: *const i32,
    /// The first element of the result, vectors side by side, and from row to row.
    pub c: *mut T,
    pub pitch: usize,
    /// Whether sums are added to what is there.
    pub add: bool,
    /// What is asked for as the result's rows: a row of as many vectors, and from row to row.
    pub result: (*const T, usize),
    /// What will be read after this tile, asked for into the second-level cache: where it begins, and how many elements
    /// are asked for per term.
    pub next: (*const T, usize),
}

/// How many terms ahead a strip asks for its vectors: lists of offsets are longer by so many.
pub const AHEAD: usize = 8;

/// Computes a tile of a fixed size.
///
/// # Safety
/// The addresses suit the tile and its size, `c` overlaps neither operand, and the machine has the instruction set.
pub type StripFn<T> = unsafe fn(&Strip<T>);

/// The same address, of which the compiler knows nothing.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read through it there
fn hidden<T>(mut address: *const T) -> *const T {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: no instructions.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags));
    }
    address
}

/// The tile of `R` rows by `W` vectors.
///
/// # Safety
/// As for [`StripFn`].
#[inline(always)]
pub unsafe fn strip<V: Vector, const R: usize, const W: usize>(strip: &Strip<V::Element>) {
    let &Strip { k, a, a_row, a_at, b, b_at, c, pitch, add, result, next: (mut next, step) } = strip;
    // SAFETY: as our caller promised.
    unsafe {
        let mut acc = [[V::zero(); W]; R];
        let (mut p, (mut result, apart)) = (0, result);
        macro_rules! terms {
            ($count:expr) => {
                for _ in 0..$count {
                    let at = *b_at.add(p) as isize;
                    let mut line = [V::zero(); W];
                    for (line, b) in line.iter_mut().zip(b) {
                        *line = V::load(b.offset(at));
                        V::prefetch(b.wrapping_offset(*b_at.add(p + AHEAD) as isize));
                    }
                    // A line at a time: many at once would keep the tile's own reads waiting.
                    V::prefetch_far(next);
                    next = next.wrapping_add(step);
                    let mut row = a.offset(*a_at.add(p) as isize);
                    for acc in &mut acc {
                        let x = V::splat(row);
                        for (acc, &line) in acc.iter_mut().zip(&line) {
                            *acc = acc.multiply_add(x, line);
                        }
                        // An address of its own for each row: splats that are read ahead take the registers of sums.
                        row = hidden(row.wrapping_offset(a_row));
                    }
                    p += 1;
                }
            };
        }
        // The result is far away when its turn comes: a row of it after another is asked for in the first half. The
        // number of rows is hidden, so that the loop stays one.
        let part = k / (2 * R);
        let rows = if part > 0 { R } else { 0 };
        for _ in 0..rows {
            (0..W).for_each(|w| V::prefetch(result.wrapping_add(w * V::LANES)));
            result = result.wrapping_add(apart);
            terms!(part);
        }
        terms!(k - p);
        for (r, acc) in acc.iter().enumerate() {
            for (w, &acc) in acc.iter().enumerate() {
                let at = c.add(r * pitch + w * V::LANES);
                let sum = if add { V::load(at).plus(acc) } else { acc };
                sum.store(at);
            }
        }
    }
}

/// `lanes[r, w]` += the sums of `a[r · a_row + i] · b[w][i]` over i, one per lane.
#[derive(Clone, Copy, Debug)]
pub struct Dots<T> {
    /// How many vectors, and elements behind them.
    pub steps: usize,
    pub rest: usize,
    /// The first row, and from row to row.
    pub a: *const T,
    pub a_row: isize,
    /// The other rows.
    pub b: [*const T; WIDEST],
    /// A vector for each pair, side by side for a row, and from row to row.
    pub lanes: *mut T,
    pub pitch: usize,
    /// As of a [`Strip`], per step.
    pub next: (*const T, usize),
}

/// Computes dot products of a fixed number of rows.
///
/// # Safety
/// As for [`StripFn`].
pub type DotsFn<T> = unsafe fn(&Dots<T>);

/// Those of `R` rows by `W` rows.
///
/// # Safety
/// As for [`DotsFn`].
#[inline(always)]
pub unsafe fn dots<V: Vector, const R: usize, const W: usize>(dots: &Dots<V::Element>) {
    let &Dots { steps, rest, lanes, pitch, next: (mut next, step), .. } = dots;
    // SAFETY: as our caller promised.
    unsafe {
        let mut acc = [[V::zero(); W]; R];
        for i in 0..steps {
            V::prefetch_far(next);
            next = next.wrapping_add(step);
            products::<V, R, W, false>(&mut acc, dots, i * V::LANES);
        }
        if rest > 0 {
            products::<V, R, W, true>(&mut acc, dots, steps * V::LANES);
        }
        for (r, acc) in acc.iter().enumerate() {
            for (w, &acc) in acc.iter().enumerate() {
                let at = lanes.add(r * pitch + w * V::LANES);
                V::load(at).plus(acc).store(at);
            }
        }
    }
}

/// Adds the products of a vector of each row, or of what is left of one: what lies behind that may be anything.
///
/// # Safety
/// As for [`DotsFn`].
#[inline(always)]
unsafe fn products<V: Vector, const R: usize, const W: usize, const REST: bool>(
    acc: &mut [[V; W]; R],
    dots: &Dots<V::Element>,
    at: usize,
) {
    let some = (1 << dots.rest) - 1;
    // SAFETY: as our caller promised.
    unsafe {
        let mut line = [V::zero(); W];
        for (line, b) in line.iter_mut().zip(dots.b) {
            *line = if REST { V::load_some(b.add(at), some) } else { V::load(b.add(at)) };
        }
        for (r, acc) in acc.iter_mut().enumerate() {
            let a = dots.a.offset(r as isize * dots.a_row).add(at);
            let x = if REST { V::load_some(a, some) } else { V::load(a) };
            for (acc, &line) in acc.iter_mut().zip(&line) {
                *acc = acc.multiply_add(x, line);
            }
            compiler_fence(SeqCst);
        }
    }
}

/// `dst[i]` = the lanes of vector i, added as a tree: lane l and lane l plus half their number, until one is left.
///
/// # Safety
/// `count` vectors can be read at `vectors`, as many elements written at `dst`, and the machine has the
/// vector's instructions.
#[inline(always)]
pub unsafe fn totals<V: Vector>(vectors: *const V::Element, count: usize, dst: *mut V::Element) {
    // SAFETY: as our caller promised; a square of vectors holds a vector for each lane.
    unsafe {
        let mut square = [V::zero(); 16];
        let square = square.as_mut_ptr().cast::<V::Element>();
        for i in (0..count).step_by(V::LANES) {
            // The last vectors of a number that is no multiple are taken as often as it takes.
            let (from, last) = (vectors.add(i * V::LANES), (count - i - 1).min(V::LANES - 1));
            V::transpose(square, V::LANES, from, |j| (j.min(last) * V::LANES) as isize);
            let mut half = V::LANES / 2;
            while half > 0 {
                for l in 0..half {
                    let at = square.add(l * V::LANES);
                    V::load(at).plus(V::load(at.add(half * V::LANES))).store(at);
                }
                half /= 2;
            }
            V::load(square).store_some(dst.add(i), last + 1);
        }
    }
}

/// What computes [`totals`].
pub type TotalsFn<T> = unsafe fn(*const T, usize, *mut T);

/// Rows of chunks' sums, added in order: `dst[i]` = the sum of `src[block · step + i]` over the blocks.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<T> {
    pub dst: *mut T,
    pub src: *const T,
    pub step: usize,
    pub blocks: usize,
    pub count: usize,
}

/// Adds them.
///
/// # Safety
/// The elements can be read and written; `dst` is the first block or overlaps none; the machine has the vector's
/// instructions.
#[inline(always)]
pub unsafe fn blocks<V: Vector>(blocks: &Blocks<V::Element>) {
    let &Blocks { dst, src, step, blocks, count } = blocks;
    let whole = count / V::LANES * V::LANES;
    let some = (1 << (count - whole)) - 1;
    // SAFETY: as our caller promised.
    unsafe {
        for i in (0..whole).step_by(V::LANES) {
            let mut sum = V::load(src.add(i));
            for block in 1..blocks {
                sum = sum.plus(V::load(src.add(block * step + i)));
            }
            sum.store(dst.add(i));
        }
        if whole < count {
            let mut sum = V::load_some(src.add(whole), some);
            for block in 1..blocks {
                sum = sum.plus(V::load_some(src.add(block * step + whole), some));
            }
            sum.store_some(dst.add(whole), count - whole);
        }
    }
}
