//! Images side by side: every element of a frame is a vector with a lane for each of several images.
//! Owns that format, and the ways into it and out of it; knows no arithmetic.

use crate::cpu::micro::Vector;
use crate::program::kernel::Sliding;

/// The format for images of one shape.
#[derive(Debug)]
pub struct Frame {
    stored: [usize; 2],
    channels: usize,
    rows: usize,
    columns: usize,
    lanes: usize,
    /// Where each stored element goes, over (channels, rows, columns); negative: nobody sees it.
    at: Vec<i32>,
    /// Where a channel's zeros lie.
    zeros: Vec<i32>,
}

impl Frame {
    pub fn new(axes: &[Sliding; 2], channels: usize, lanes: usize) -> Frame {
        let [down, across] = axes;
        let (stored, rows, columns) = ([down.stored, across.stored], down.framed, across.framed);
        let mut frame = Frame { stored, channels, rows, columns, lanes, at: Vec::new(), zeros: Vec::new() };
        let mut at = vec![-1; channels * stored[0] * stored[1]];
        for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
            match down.element(y).zip(across.element(x)) {
                Some((row, column)) => (0..channels).for_each(|c| {
                    at[(c * stored[0] + row) * stored[1] + column] = frame.at(c, [y, x]) as i32;
                }),
                None => frame.zeros.push(frame.at(0, [y, x]) as i32),
            }
        }
        frame.at = at;
        frame
    }

    pub fn elements(&self) -> usize {
        self.at(self.channels, [0, 0])
    }

    /// Where a position begins.
    pub fn at(&self, channel: usize, [row, column]: [usize; 2]) -> usize {
        ((channel * self.rows + row) * self.columns + column) * self.lanes
    }
}

/// Images to be laid out.
pub struct Enter<'s, T> {
    pub frame: &'s Frame,
    /// `Frame::elements` of them, and room for a vector of vectors.
    pub dst: *mut T,
    pub square: *mut T,
    /// Whether the frame's zeros are there already.
    pub framed: bool,
    /// The first element, and from image to image, channel to channel, row to row, column to column.
    pub src: *const T,
    pub strides: [isize; 4],
    /// How many images: at most a vector has lanes. What other lanes hold is anything.
    pub items: usize,
}

/// Lays out images.
///
/// # Safety
/// The images can be read, `dst` has room and overlaps nothing, and the machine has the vector's instructions.
#[inline(always)]
pub unsafe fn enter<V: Vector>(enter: &Enter<'_, V::Element>) {
    let &Enter { frame, dst, square, framed, src, strides: [item, channel, row, column], items } = enter;
    let [height, width] = frame.stored;
    // SAFETY: as our caller promised.
    unsafe {
        if !framed {
            for (c, &zero) in (0..frame.channels).flat_map(|c| frame.zeros.iter().map(move |zero| (c, zero))) {
                V::zero().store(dst.add(frame.at(c, [0, 0]) + zero as usize));
            }
        }
        // Rows, and channels, that lie one behind the other are one run.
        let is_one = |inner: usize, stride: isize| column == 1 && stride == inner as isize;
        let run = match (is_one(width, row), is_one(height * width, channel)) {
            (true, true) => frame.at.len(),
            (true, false) => height * width,
            _ => width,
        };
        for (line, places) in frame.at.chunks(run.max(1)).enumerate() {
            let (c, y) = (line * run / (height * width), line * run / width % height);
            let src = src.offset(c as isize * channel + y as isize * row);
            if column != 1 || run < V::LANES {
                for (x, &place) in places.iter().enumerate().filter(|(_, place)| **place >= 0) {
                    let from = src.offset(x as isize * column);
                    (0..items).for_each(|i| *dst.add(place as usize + i) = *from.offset(i as isize * item));
                }
                continue;
            }
            for x in (0..run).step_by(V::LANES) {
                // The last vector begins earlier, and some are written twice.
                let x = x.min(run - V::LANES);
                V::transpose(square, V::LANES, src.add(x), |j| j.min(items - 1) as isize * item);
                for (p, &place) in places[x..x + V::LANES].iter().enumerate().filter(|(_, place)| **place >= 0) {
                    V::load(square.add(p * V::LANES)).store(dst.add(place as usize));
                }
            }
        }
    }
}

/// Results to be put where they belong: element i of image l is lane l of the vector at `at[i]`.
pub struct Leave<'s, T> {
    pub src: *const T,
    pub at: &'s [i32],
    /// Room for a vector of vectors.
    pub square: *mut T,
    /// The first image's, elements side by side, and from image to image.
    pub dst: *mut T,
    pub pitch: usize,
    /// How many images.
    pub items: usize,
}

/// Puts results where they belong.
///
/// # Safety
/// As for [`enter`].
#[inline(always)]
pub unsafe fn leave<V: Vector>(leave: &Leave<'_, V::Element>) {
    let &Leave { src, at, square, dst, pitch, items } = leave;
    for i in (0..at.len()).step_by(V::LANES) {
        // As above.
        let i = i.min(at.len().saturating_sub(V::LANES));
        let (at, last) = (&at[i..], (at.len() - i - 1).min(V::LANES - 1));
        // SAFETY: as our caller promised.
        unsafe {
            if items == V::LANES && last + 1 == V::LANES {
                V::transpose(dst.add(i), pitch, src, |j| at[j] as isize);
                continue;
            }
            V::transpose(square, V::LANES, src, |j| at[j.min(last)] as isize);
            for item in 0..items {
                V::load(square.add(item * V::LANES)).store_some(dst.add(item * pitch + i), last + 1);
            }
        }
    }
}
