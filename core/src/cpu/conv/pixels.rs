//! An image in scratch with its channels side by side, in whole vectors, among the zeros of the frame: what the gradient
//! of a kernel multiplies, a vector of channels at a time.
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
        let in_band = |y: usize| (y * down.spread + down.before).checked_sub(top).filter(|&y| y < pixels.rows);
        let (lowest, highest) = match ((0..down.stored).find(|&y| in_band(y).is_some()), down.stored) {
            (Some(low), all) => (low, (low..all).rfind(|&y| in_band(y).is_some()).unwrap_or(low)),
            _ => return,
        };
        let (lines, length) = match one {
            true => (lowest..lowest + 1, (highest + 1 - lowest) * across.stored),
            false => (lowest..highest + 1, across.stored),
        };
        for line in lines {
            let src = src.offset(line as isize * row);
            // Where the element number `i` of the line goes.
            let place = |i: usize| {
                let (y, x) = (line + i / across.stored, i % across.stored);
                let y = (y * down.spread + down.before).wrapping_sub(top);
                pixels.at([y, x * across.spread + across.before])
            };
            if column != 1 || length < V::LANES {
                for i in 0..length {
                    let (to, from) = (dst.add(place(i)), src.offset(i as isize * column));
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
                    let y_in = ((line + y) * down.spread + down.before).wrapping_sub(top);
                    *place = pixels.at([y_in, x * across.spread + across.before]);
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
