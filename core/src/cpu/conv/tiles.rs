//! The transforms of F(2 × 2, 3 × 3), Lavin & Gray 2016, arXiv:1509.09308: of an image's tiles of 4 × 4, of kernels of
//! 3 × 3, and of the products back to 2 × 2 places. Vectors run along tiles, and along channels for kernels.
//! Owns this arithmetic; knows neither the order of the products nor where tiles come from.

use crate::cpu::micro::Vector;

/// Elements of a tile.
pub const TILE: usize = 16;

/// −1 and ½, which a vector's dtype has exactly.
pub type Constants<T> = [T; 2];

/// Tiles of an image to be transformed: element `e` of tile `i` of channel `c` lies at `src[c · channel + at[e] + i]`,
/// and goes to `dst[e · plane + c · pitch + i]`.
pub struct Scatter<'s, T> {
    pub dst: *mut T,
    pub pitch: usize,
    pub plane: usize,
    pub src: *const T,
    pub channel: usize,
    pub at: &'s [usize; TILE],
    pub channels: usize,
    /// How many tiles: whole vectors are read and written.
    pub tiles: usize,
    pub constants: &'s Constants<T>,
}

/// `(a − c, b + c, c − b, b − d)`.
#[inline(always)]
unsafe fn image_line<V: Vector>([a, b, c, d]: [V; 4], minus: V) -> [V; 4] {
    // SAFETY: the machine has the instructions, as our caller promised.
    unsafe { [a.multiply_add(c, minus), b.plus(c), c.multiply_add(b, minus), b.multiply_add(d, minus)] }
}

/// Transforms tiles of an image: Bᵀ d B.
///
/// # Safety
/// Tiles can be read and written, up to whole vectors, and do not overlap; the machine has the vector's instructions.
#[inline(always)]
pub unsafe fn scatter<V: Vector>(scatter: &Scatter<'_, V::Element>) {
    let &Scatter { dst, pitch, plane, src, channel, at, channels, tiles, constants } = scatter;
    // SAFETY: as our caller promised.
    unsafe {
        let minus = V::splat(&constants[0]);
        for c in 0..channels {
            for i in (0..tiles).step_by(V::LANES) {
                let (src, dst) = (src.add(c * channel + i), dst.add(c * pitch + i));
                let mut lines = [[V::zero(); 4]; 4];
                for (y, line) in lines.iter_mut().enumerate() {
                    let row = std::array::from_fn(|x| V::load(src.add(at[4 * y + x])));
                    *line = image_line(row, minus);
                }
                for x in 0..4 {
                    let column = image_line([lines[0][x], lines[1][x], lines[2][x], lines[3][x]], minus);
                    for (y, value) in column.into_iter().enumerate() {
                        value.store(dst.add((4 * y + x) * plane));
                    }
                }
            }
        }
    }
}

/// A kernel to be transformed: `dst[e · outputs · channels + o · channels + c]` from nine taps at
/// `src[o · steps.0 + c · steps.1 + at[t]]`.
pub struct Spectrum<'s, T> {
    pub dst: *mut T,
    pub outputs: usize,
    pub channels: usize,
    pub src: *const T,
    pub steps: (isize, isize),
    pub at: &'s [isize; 9],
    pub constants: &'s Constants<T>,
}

/// `(a, (a + b + c) / 2, (a − b + c) / 2, c)`.
#[inline(always)]
unsafe fn kernel_line<V: Vector>([a, b, c]: [V; 3], minus: V, half: V) -> [V; 4] {
    // SAFETY: the machine has the instructions, as our caller promised.
    unsafe {
        let outer = a.plus(c);
        let (sum, difference) = (outer.plus(b), outer.multiply_add(b, minus));
        [a, V::zero().multiply_add(sum, half), V::zero().multiply_add(difference, half), c]
    }
}

/// Transforms kernels: G g Gᵀ.
///
/// # Safety
/// Taps can be read and results written, and a vector behind the last; the machine has the vector's instructions.
#[inline(always)]
pub unsafe fn spectrum<V: Vector>(spectrum: &Spectrum<'_, V::Element>) {
    let &Spectrum { dst, outputs, channels, src, steps, at, constants } = spectrum;
    // SAFETY: as our caller promised; a clamped channel is one that there is, and what is written beyond a row's end is
    // written again with the next row.
    unsafe {
        let (minus, half) = (V::splat(&constants[0]), V::splat(&constants[1]));
        for (o, c) in (0..outputs).flat_map(|o| (0..channels).step_by(V::LANES).map(move |c| (o, c))) {
            let mut lines = [[V::zero(); 4]; 3];
            for (y, line) in lines.iter_mut().enumerate() {
                let mut row = [V::zero(); 3];
                for (x, value) in row.iter_mut().enumerate() {
                    let mut lanes = [V::Element::default(); 16];
                    let src = src.offset(o as isize * steps.0 + at[3 * y + x]);
                    for (l, lane) in lanes[..V::LANES].iter_mut().enumerate() {
                        *lane = *src.offset((c + l).min(channels - 1) as isize * steps.1);
                    }
                    *value = V::load(lanes.as_ptr());
                }
                *line = kernel_line(row, minus, half);
            }
            for x in 0..4 {
                let column = kernel_line([lines[0][x], lines[1][x], lines[2][x]], minus, half);
                for (y, value) in column.into_iter().enumerate() {
                    let to = dst.add(((4 * y + x) * outputs + o) * channels + c);
                    if c + V::LANES <= channels {
                        value.store(to);
                    } else {
                        let mut lanes = [V::Element::default(); 16];
                        value.store(lanes.as_mut_ptr());
                        (0..channels - c).for_each(|l| *to.add(l) = lanes[l]);
                    }
                }
            }
        }
    }
}

/// Products to be transformed back: element `e` of tile `i` of output `o` lies at `src[e · product + o · pitch + i]`;
/// its places go to rows of an image.
pub struct Collect<'s, T> {
    pub dst: *mut T,
    /// From output to output, and the image's rows and columns.
    pub output: usize,
    pub rows: usize,
    pub width: usize,
    pub src: *const T,
    pub product: usize,
    pub pitch: usize,
    pub outputs: usize,
    /// Tiles beside each other, and in all.
    pub across: usize,
    pub tiles: usize,
    pub constants: &'s Constants<T>,
}

/// `(a + b + c, b − c − d)`.
#[inline(always)]
unsafe fn place_line<V: Vector>([a, b, c, d]: [V; 4], minus: V) -> [V; 2] {
    // SAFETY: the machine has the instructions, as our caller promised.
    unsafe { [a.plus(b).plus(c), b.multiply_add(c, minus).multiply_add(d, minus)] }
}

/// Transforms products to places: Aᵀ m A.
///
/// # Safety
/// Products can be read, up to whole vectors, and places written; the machine has the vector's instructions.
#[inline(always)]
pub unsafe fn collect<V: Vector>(collect: &Collect<'_, V::Element>) {
    let &Collect { dst, output, rows, width, src, product, pitch, outputs, across, tiles, constants } = collect;
    // SAFETY: as our caller promised.
    unsafe {
        let minus = V::splat(&constants[0]);
        for o in 0..outputs {
            let (src, dst) = (src.add(o * pitch), dst.add(o * output));
            for first in (0..tiles).step_by(V::LANES) {
                let mut lines = [[V::zero(); 2]; 4];
                for (y, line) in lines.iter_mut().enumerate() {
                    let row = std::array::from_fn(|x| V::load(src.add(first + (4 * y + x) * product)));
                    *line = place_line(row, minus);
                }
                let columns: [[V; 2]; 2] =
                    std::array::from_fn(|x| place_line([lines[0][x], lines[1][x], lines[2][x], lines[3][x]], minus));
                let mut woven = [[V::Element::default(); 32]; 2];
                (0..2).for_each(|y| V::weave(woven[y].as_mut_ptr(), columns[0][y], columns[1][y]));
                // Tiles beside each other belong to the same rows.
                let (mut tile, end) = (first, (first + V::LANES).min(tiles));
                while tile < end {
                    let (i, j) = (tile / across, tile % across);
                    let run = (across - j).min(end - tile);
                    let count = (2 * run).min(width - 2 * j);
                    for y in 0..2.min(rows - 2 * i) {
                        let (to, from) =
                            (dst.add((2 * i + y) * width + 2 * j), woven[y].as_ptr().add(2 * (tile - first)));
                        let whole = count / V::LANES * V::LANES;
                        (0..whole).step_by(V::LANES).for_each(|x| V::load(from.add(x)).store(to.add(x)));
                        (whole..count).for_each(|x| *to.add(x) = *from.add(x));
                    }
                    tile += run;
                }
            }
        }
    }
}
