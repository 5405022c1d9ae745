//! An image in scratch with its channels side by side, among the zeros of the frame: what the gradient of a kernel
//! multiplies, a vector of channels, or of neighbouring pixels and their channels, at a time.
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
    channels: usize,
    /// Where each stored element of an image goes in its frame, if all of a row do; else none.
    places: Vec<i32>,
}

impl Pixels {
    /// For bands of at most `band` rows.
    pub fn new(axes: &[Sliding; 2], channels: usize, band: usize) -> Pixels {
        let down = &axes[0];
        let rows = band.saturating_sub(1) * down.stride + (down.taps - 1) * down.dilation + 1;
        let mut pixels = Pixels { axes: *axes, rows, channels, places: Vec::new() };
        let at = |axis: usize, element: usize| (element * axes[axis].spread) as isize + axes[axis].before;
        let across = &axes[1];
        let is_seen = |x: usize| (0..across.framed as isize).contains(&at(1, x));
        if across.stored > 0 && is_seen(0) && is_seen(across.stored - 1) {
            let places = (0..down.stored * across.stored).map(|i| [i / across.stored, i % across.stored]);
            let places = places.map(|[y, x]| (at(0, y) * across.framed as isize + at(1, x)) * channels as isize);
            pixels.places = places.map(|place| place as i32).collect();
        }
        pixels
    }

    /// Elements of a band.
    pub fn band(&self) -> usize {
        self.rows * self.axes[1].framed * self.channels
    }

    /// Elements of so many bands and what vectors reach behind them; then those of one transposition follow.
    pub fn bands(&self, bands: usize, lanes: usize) -> usize {
        (bands * self.band() + lanes).next_multiple_of(lanes)
    }

    /// Elements of so many bands, and of the vectors of one transposition.
    pub fn elements(&self, bands: usize, lanes: usize) -> usize {
        self.bands(bands, lanes) + lanes * lanes
    }

    /// What lies side by side of the pixels that one row of taps sees from one place, in elements: a run that begins
    /// at each of these taps.
    pub fn runs(&self) -> (usize, usize) {
        let across = &self.axes[1];
        if across.dilation == 1 { (1, across.taps * self.channels) } else { (across.taps, self.channels) }
    }

    /// Where a position of the band begins, in elements.
    fn at(&self, [row, column]: [usize; 2]) -> usize {
        (row * self.axes[1].framed + column) * self.channels
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
    /// `Pixels::band` of them, a vector behind which may be written too, and room for a vector of vectors.
    pub dst: *mut T,
    pub square: *mut T,
    /// Whether the frame's zeros are there already.
    pub framed: bool,
    /// Its first element, and from channel to channel, row to row, column to column.
    pub src: *const T,
    pub strides: [isize; 3],
    /// The band's first row of places.
    pub first: usize,
}

/// Lays out an image.
///
/// # Safety
/// The image can be read, `dst` has room and overlaps nothing, and the machine has the vector's instructions.
#[inline(always)]
pub unsafe fn turn<V: Vector>(turn: &Turn<'_, V::Element>) {
    let &Turn { pixels, dst, square, framed, src, strides: [channel, row, column], first } = turn;
    let channels = pixels.channels;
    let [down, across] = &pixels.axes;
    let whole = pixels.band();
    let top = first * down.stride;
    // SAFETY: as our caller promised.
    unsafe {
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
        // What rows of the frame above the band take away.
        let above = (top * across.framed * channels) as i32;
        for line in lines {
            let src = src.offset(line as isize * row);
            if column != 1 || length < V::LANES || pixels.places.is_empty() {
                for i in 0..length {
                    let place = row_of(line + i / across.stored).zip(column_of(i % across.stored));
                    let Some((y, x)) = place else { continue };
                    let (to, from) = (dst.add(pixels.at([y, x])), src.offset(i as isize * column));
                    (0..channels).for_each(|c| *to.add(c) = *from.offset(c as isize * channel));
                }
                continue;
            }
            let places = &pixels.places[line * across.stored..][..length];
            for i in (0..length).step_by(V::LANES) {
                // The last vector begins earlier, and some are written twice.
                let i = i.min(length - V::LANES);
                let places = &places[i..i + V::LANES];
                let is_run = places[V::LANES - 1] - places[0] == ((V::LANES - 1) * channels) as i32;
                let first = (places[0] - above) as usize;
                for c in (0..channels).step_by(V::LANES) {
                    let last = channels - c - 1;
                    let from = src.add(i).offset(c as isize * channel);
                    if is_run && last + 1 >= V::LANES {
                        V::transpose(dst.add(first + c), channels, from, |j| j as isize * channel);
                        continue;
                    }
                    V::transpose(square, V::LANES, from, |j| j.min(last) as isize * channel);
                    for (p, &place) in places.iter().enumerate() {
                        let to = dst.add((place - above) as usize + c);
                        V::load(square.add(p * V::LANES)).store_some(to, (last + 1).min(V::LANES));
                    }
                }
            }
        }
    }
}
