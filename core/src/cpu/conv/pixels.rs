//! An image in scratch with its channels side by side, in whole vectors, among the zeros of the frame: what the
//! gradient of a kernel multiplies, a vector of channels at a time.
//!
//! Owns that format; knows no arithmetic.

use crate::cpu::micro::Vector;
use crate::program::kernel::Sliding;

/// The format for bands of so many rows of places.
#[derive(Debug)]
pub struct Pixels {
    axes: [Sliding; 2],
    /// Rows of the frame that a band sees.
    rows: usize,
    /// Channels in whole vectors.
    pub depth: usize,
}

impl Pixels {
    /// For bands of at most `band` rows.
    pub fn new(axes: &[Sliding; 2], channels: usize, band: usize, lanes: usize) -> Pixels {
        let down = &axes[0];
        let rows = band.saturating_sub(1) * down.stride + (down.taps - 1) * down.dilation + 1;
        Pixels { axes: *axes, rows, depth: channels.next_multiple_of(lanes) }
    }

    /// Elements of a band, and of the vectors of one transposition.
    pub fn elements(&self, lanes: usize) -> usize {
        self.rows * self.axes[1].framed * self.depth + lanes * lanes
    }

    /// Where a position of the band begins, in elements.
    fn at(&self, [row, column]: [usize; 2]) -> usize {
        (row * self.axes[1].framed + column) * self.depth
    }

    /// Where a tap at these positions along the axes begins, from its place.
    pub fn tap(&self, positions: [usize; 2]) -> usize {
        self.at([0, 1].map(|i| positions[i] * self.axes[i].dilation))
    }

    /// Where a place of the band begins.
    pub fn place(&self, place: [usize; 2]) -> usize {
        self.at([0, 1].map(|i| place[i] * self.axes[i].stride))
    }
}

/// An image to be laid out.
pub struct Turn<'s, T> {
    pub pixels: &'s Pixels,
    /// `Pixels::elements` of them.
    pub dst: *mut T,
    /// Whether the frame's zeros are there already.
    pub framed: bool,
    /// Its first element, and from channel to channel, row to row, column to column.
    pub src: *const T,
    pub strides: [isize; 3],
    pub channels: usize,
    /// The band's first row of places.
    pub first: usize,
}

/// Lays out an image.
///
/// # Safety
/// The image can be read, `dst` has room and overlaps nothing, and the machine has the vector's instructions.
#[inline(always)]
pub unsafe fn turn<V: Vector>(turn: &Turn<'_, V::Element>) {
    let &Turn { pixels, dst, framed, src, strides: [channel, row, column], channels, first } = turn;
    let [down, across] = &pixels.axes;
    let whole = pixels.rows * across.framed * pixels.depth;
    let top = first * down.stride;
    // SAFETY: as our caller promised; `elements` counts the square behind the band.
    unsafe {
        let square = dst.add(whole);
        if !framed {
            (0..whole).step_by(V::LANES).for_each(|i| V::zero().store(dst.add(i)));
        }
        // Rows that lie one behind the other are one row.
        let one = row == across.stored as isize * column;
        // The row of the band and the column of the frame where an element goes, if it lies there.
        let row_of = |y: usize| {
            usize::try_from((y * down.spread) as isize + down.before - top as isize).ok().filter(|&y| y < pixels.rows)
        };
        let column_of = |x: usize| {
            usize::try_from((x * across.spread) as isize + across.before).ok().filter(|&x| x < across.framed)
        };
        let mut seen = (0..down.stored).filter(|&y| row_of(y).is_some());
        let Some(lowest) = seen.next() else { return };
        let highest = seen.next_back().unwrap_or(lowest);
        let (lines, length) = match one {
            true => (lowest..lowest + 1, (highest + 1 - lowest) * across.stored),
            false => (lowest..highest + 1, across.stored),
        };
        let all_seen = [0, across.stored - 1].into_iter().all(|x| column_of(x).is_some());
        for line in lines {
            let src = src.offset(line as isize * row);
            if column != 1 || length < V::LANES || !all_seen {
                for i in 0..length {
                    let place = row_of(line + i / across.stored).zip(column_of(i % across.stored));
                    let Some((y, x)) = place else { continue };
                    let (to, from) = (dst.add(pixels.at([y, x])), src.offset(i as isize * column));
                    (0..channels).for_each(|c| *to.add(c) = *from.offset(c as isize * channel));
                }
                continue;
            }
            for i in (0..length).step_by(V::LANES) {
                // The last vector begins earlier, and some are written twice.
                let i = i.min(length - V::LANES);
                let (mut y, mut x) = (i / across.stored, i % across.stored);
                let mut places = [0usize; 64];
                for place in &mut places[..V::LANES] {
                    let (y_in, x_in) = (row_of(line + y).unwrap_or(0), column_of(x).unwrap_or(0));
                    *place = pixels.at([y_in, x_in]);
                    x += 1;
                    if x == across.stored {
                        (y, x) = (y + 1, 0);
                    }
                }
                for c in (0..pixels.depth).step_by(V::LANES) {
                    let last = channels - c - 1;
                    let from = src.add(i).offset(c as isize * channel);
                    V::transpose(square, V::LANES, from, |j| j.min(last) as isize * channel);
                    for (p, &place) in places[..V::LANES].iter().enumerate() {
                        V::load(square.add(p * V::LANES)).store(dst.add(place + c));
                    }
                }
            }
        }
    }
}
