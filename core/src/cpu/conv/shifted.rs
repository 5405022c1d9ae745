//! An image in scratch as a convolution's places see it: for each tap of the second axis a copy that begins there, with
//! the zeros of the frame, of rows as long as there are places. A tap's terms at neighbouring places lie side by side
//! then, whatever the padding, stride and dilation.
//!
//! Owns that format; knows no arithmetic.

use crate::cpu::micro::Vector;
use crate::program::kernel::Sliding;

/// The format for bands of so many rows of places.
#[derive(Debug)]
pub struct Shifted {
    axes: [Sliding; 2],
    /// Rows of places of a band.
    pub band: usize,
    /// Rows of the frame that the stride keeps apart: the residues that taps lie at, and rows of each.
    residues: Vec<usize>,
    rows: usize,
    /// Elements of a copy, and of a channel.
    copy: usize,
    channel: usize,
    /// The columns of each copy.
    columns: Vec<Columns>,
}

/// What a row of a copy holds.
#[derive(Debug)]
struct Columns {
    /// The stored element at each place; negative: none.
    at: Vec<i32>,
    /// If they are a run: the first place that has one, how many have, the first element, and from one to the next.
    run: Option<(usize, usize, usize, usize)>,
}

/// Where rows of the frame lie that hold nothing stored.
const NOTHING: isize = isize::MIN;

impl Shifted {
    /// For bands of at most `band` rows; a copy begins at whole vectors of `lanes`.
    pub fn new(axes: &[Sliding; 2], band: usize, lanes: usize) -> Shifted {
        let [down, across] = axes;
        let mut residues: Vec<usize> = (0..down.taps).map(|t| t * down.dilation % down.stride).collect();
        residues.sort_unstable();
        residues.dedup();
        let rows = band + down.taps.saturating_sub(1) * down.dilation / down.stride;
        let copy = (residues.len() * rows * across.places).next_multiple_of(lanes);
        let columns = (0..across.taps).map(|t| Columns::new(across, t)).collect();
        Shifted { axes: *axes, band, residues, rows, copy, channel: copy * across.taps, columns }
    }

    /// Elements of so many channels, with what is written and read beyond the last.
    pub fn elements(&self, channels: usize, lanes: usize) -> usize {
        channels * self.channel + 2 * lanes
    }

    /// How many numbers `fill` needs.
    pub fn numbers(&self) -> usize {
        self.residues.len() * self.rows
    }

    /// Where the terms of a tap begin: a channel, and positions of a tap along both axes.
    pub fn term(&self, channel: usize, [down, across]: [usize; 2]) -> usize {
        let axis = &self.axes[0];
        let from = down * axis.dilation;
        let residue = self.residues.iter().position(|&r| r == from % axis.stride).unwrap_or(0);
        let row = residue * self.rows + from / axis.stride;
        channel * self.channel + across * self.copy + row * self.axes[1].places
    }

    /// Where each row of a copy comes from in the image, in elements.
    fn sources(&self, first: usize, stride: isize, rows: &mut [isize]) {
        let axis = &self.axes[0];
        for (&residue, rows) in self.residues.iter().zip(rows.chunks_exact_mut(self.rows)) {
            for (i, row) in rows.iter_mut().enumerate() {
                let element = axis.element(residue + (first + i) * axis.stride);
                *row = element.map_or(NOTHING, |element| element as isize * stride);
            }
        }
    }
}

impl Columns {
    fn new(axis: &Sliding, tap: usize) -> Columns {
        let element = |place: usize| axis.element(place * axis.stride + tap * axis.dilation);
        let at: Vec<i32> = (0..axis.places).map(|place| element(place).map_or(-1, |e| e as i32)).collect();
        let first = at.iter().position(|&e| e >= 0).unwrap_or(0);
        let count = at[first..].iter().take_while(|&&e| e >= 0).count();
        let step = if count > 1 { at[first + 1] - at[first] } else { 1 };
        let even = (first..first + count).all(|place| at[place] == at[first] + (place - first) as i32 * step);
        let alone = at.iter().filter(|&&e| e >= 0).count() == count;
        let start = if count > 0 { at[first] as usize } else { 0 };
        let run = (even && alone && step > 0).then_some((first, count, start, step as usize));
        Columns { at, run }
    }
}

/// An image to be laid out.
pub struct Fill<'s, T> {
    pub shifted: &'s Shifted,
    /// `Shifted::elements` of them.
    pub dst: *mut T,
    /// Its first element, and from channel to channel, row to row, column to column.
    pub src: *const T,
    pub strides: [isize; 3],
    pub channels: usize,
    /// The first and the last element of the operand: all between can be read.
    pub ends: [*const T; 2],
    /// The band's first row of places.
    pub first: usize,
    /// `Shifted::numbers` numbers.
    pub numbers: &'s mut [isize],
}

/// Lays out an image.
///
/// # Safety
/// The image can be read, all between `ends` too; `dst` has room and overlaps nothing; the machine has the vector's
/// instructions.
#[inline(always)]
pub unsafe fn fill<V: Vector>(fill: &mut Fill<'_, V::Element>) {
    let Fill { shifted, dst, src, strides: [channel, row, column], channels, ends, first, ref mut numbers } = *fill;
    shifted.sources(first, row, numbers);
    let width = shifted.axes[1].places;
    let lows = numbers.iter().copied().filter(|&from| from != NOTHING);
    let (low, high) = lows.fold((isize::MAX, isize::MIN), |(low, high), from| (low.min(from), high.max(from)));
    let whole = width.next_multiple_of(V::LANES) as isize;
    for c in 0..channels {
        let src = src.wrapping_offset(c as isize * channel);
        for (tap, columns) in shifted.columns.iter().enumerate() {
            // SAFETY: as our caller promised; whole vectors are read only if all of them lie between `ends`.
            unsafe {
                let dst = dst.add(c * shifted.channel + tap * shifted.copy);
                match columns.run {
                    Some(_) if low > high => (0..numbers.len()).for_each(|i| zeros::<V>(dst.add(i * width), width)),
                    Some((before, count, start, step)) if column == 1 && step <= 2 => {
                        let line = src.wrapping_add(start).wrapping_sub(before * step);
                        let inside = line.wrapping_offset(low) >= ends[0]
                            && line.wrapping_offset(high + whole * step as isize - 1) <= ends[1];
                        let copy = Copy { dst, width, src: line, before, behind: before + count, rows: numbers };
                        match width.div_ceil(V::LANES) {
                            _ if !inside => gather::<V>(dst, src, numbers, (&columns.at, column)),
                            _ if step == 2 => evens::<V>(&copy),
                            1 => vectors::<V, 1>(&copy),
                            2 => vectors::<V, 2>(&copy),
                            4 => vectors::<V, 4>(&copy),
                            _ => vectors::<V, 0>(&copy),
                        }
                    }
                    _ => gather::<V>(dst, src, numbers, (&columns.at, column)),
                }
            }
        }
    }
}

/// A copy of the rows of one channel: of each, columns `before..behind` come from the image.
struct Copy<'s, T> {
    dst: *mut T,
    width: usize,
    /// What the rows count from; column 0 is read there.
    src: *const T,
    before: usize,
    behind: usize,
    rows: &'s [isize],
}

/// Copies rows as `N` vectors each; 0: as many as it takes.
///
/// # Safety
/// As for `fill`; whole vectors can be read. They are written up to the end of a row, then the next row over what is
/// too much: there is room for a vector behind the last.
#[inline(always)]
unsafe fn vectors<V: Vector, const N: usize>(copy: &Copy<'_, V::Element>) {
    let &Copy { mut dst, width, src, before, behind, rows } = copy;
    let count = if N == 0 { width.div_ceil(V::LANES) } else { N };
    for &from in rows {
        // SAFETY: as our caller promised.
        unsafe {
            if from == NOTHING {
                (0..count).for_each(|i| V::zero().store(dst.add(i * V::LANES)));
            } else {
                let line = src.wrapping_offset(from);
                (0..count).for_each(|i| V::load(line.wrapping_add(i * V::LANES)).store(dst.add(i * V::LANES)));
                (0..before).for_each(|x| *dst.add(x) = Default::default());
                (behind..width).for_each(|x| *dst.add(x) = Default::default());
            }
            dst = dst.add(width);
        }
    }
}

/// Copies every second element of rows, beginning with the first.
///
/// # Safety
/// As for `vectors`; twice as many can be read.
#[inline(always)]
unsafe fn evens<V: Vector>(copy: &Copy<'_, V::Element>) {
    let &Copy { mut dst, width, src, before, behind, rows } = copy;
    for &from in rows {
        // SAFETY: as our caller promised.
        unsafe {
            if from == NOTHING {
                zeros::<V>(dst, width);
            } else {
                let line = src.wrapping_offset(from);
                (0..width).step_by(V::LANES).for_each(|x| V::evens(dst.add(x), line.wrapping_add(2 * x)));
                (0..before).for_each(|x| *dst.add(x) = Default::default());
                (behind..width).for_each(|x| *dst.add(x) = Default::default());
            }
            dst = dst.add(width);
        }
    }
}

/// Picks the elements of rows at these columns, so far from each other; negative ones are zeros.
///
/// # Safety
/// As for `fill`.
#[inline(always)]
unsafe fn gather<V: Vector>(
    mut dst: *mut V::Element,
    src: *const V::Element,
    rows: &[isize],
    (columns, stride): (&[i32], isize),
) {
    for &from in rows {
        // SAFETY: as our caller promised.
        unsafe {
            zeros::<V>(dst, columns.len());
            if from != NOTHING {
                let line = src.wrapping_offset(from);
                for (x, &at) in columns.iter().enumerate().filter(|(_, at)| **at >= 0) {
                    *dst.add(x) = *line.offset(at as isize * stride);
                }
            }
            dst = dst.add(columns.len());
        }
    }
}

/// # Safety
/// As many elements, up to whole vectors, can be written.
#[inline(always)]
unsafe fn zeros<V: Vector>(dst: *mut V::Element, count: usize) {
    // SAFETY: as our caller promised.
    unsafe { (0..count).step_by(V::LANES).for_each(|x| V::zero().store(dst.add(x))) }
}
