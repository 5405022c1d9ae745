//! An image in scratch as a convolution's places see it, with the zeros of the frame: a tap's terms at neighbouring
//! places lie side by side, whatever the padding, stride and dilation.
//!
//! Where rows of places are whole vectors, each column of the frame is stored once, and taps begin at offsets in its
//! row. Elsewhere vectors run over the ends of rows, and each tap of the second axis has a copy that begins there, of
//! rows as long as there are places.
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
    /// Elements of a row with what lies between it and the next, of a copy, and of a channel.
    pitch: usize,
    copy: usize,
    channel: usize,
    copies: Vec<Columns>,
    /// The copy that each tap of the second axis reads, and where its terms begin in a row.
    taps: Vec<(usize, usize)>,
}

/// What a row of a copy holds.
#[derive(Debug)]
struct Columns {
    /// Where the row begins, so that its first stored element begins a vector.
    lead: usize,
    /// The stored element at each place; negative: none.
    at: Vec<i32>,
    /// If they are a run: the first place that has one, how many have, the first element, and from one to the next.
    run: Option<(usize, usize, usize, usize)>,
    /// Where the stored rows are as long as those of the copy, and nothing lies between: from a place to its element,
    /// and per vector which places have one, if all rows had.
    linear: Option<(isize, Vec<u32>)>,
    /// If places take neighbours or every second element: per vector of so many places from a first one on, which
    /// elements of the image it takes, from that of its first place on. All other places have none.
    masks: (Vec<u32>, usize, usize),
}

/// Where rows of the frame lie that hold nothing stored.
const NOTHING: isize = isize::MIN;

impl Shifted {
    /// For bands of at most `band` rows; a copy begins at whole vectors of `lanes`. Vectors `may_be_apart` if nobody
    /// minds that the places of one row do not follow those of the row before.
    pub fn new(axes: &[Sliding; 2], band: usize, lanes: usize, may_be_apart: bool) -> Shifted {
        let [down, across] = axes;
        let mut residues: Vec<usize> = (0..down.taps).map(|t| t * down.dilation % down.stride).collect();
        residues.sort_unstable();
        residues.dedup();
        let rows = band + down.taps.saturating_sub(1) * down.dilation / down.stride;
        let (from, mut copies, mut taps) = (|t: usize| t * across.dilation, Vec::new(), Vec::new());
        let is_apart = may_be_apart && across.places.is_multiple_of(lanes);
        if is_apart {
            let mut columns: Vec<usize> = (0..across.taps).map(|t| from(t) % across.stride).collect();
            columns.sort_unstable();
            columns.dedup();
            taps.extend((0..across.taps).map(|t| {
                let copy = columns.iter().position(|&c| c == from(t) % across.stride);
                (copy.unwrap_or(0), from(t) / across.stride)
            }));
            let width = across.places + from(across.taps.saturating_sub(1)) / across.stride;
            copies.extend(columns.into_iter().map(|first| Columns::new(across, first, width)));
            copies.iter_mut().for_each(|columns| columns.align_to(lanes));
            taps.iter_mut().for_each(|(copy, offset)| *offset += copies[*copy].lead);
        } else {
            taps.extend((0..across.taps).map(|t| (t, 0)));
            copies.extend((0..across.taps).map(|t| Columns::new(across, from(t), across.places)));
            if down.stride == 1 && down.spread == 1 {
                copies.iter_mut().enumerate().for_each(|(t, copy)| copy.set_linear(across, from(t), rows, lanes));
            }
        }
        copies.iter_mut().for_each(|columns| columns.set_masks(lanes, is_apart));
        let width = copies.iter().map(|columns| columns.at.len()).max().unwrap_or(0);
        let pitch = if is_apart { width.next_multiple_of(lanes) } else { width };
        let ends = if is_apart { lanes } else { 0 };
        let copy = (residues.len() * rows * pitch + ends).next_multiple_of(lanes);
        let channel = copy * copies.len();
        Shifted { axes: *axes, band, residues, rows, pitch, copy, channel, copies, taps }
    }

    /// Elements of so many channels, with what is written and read beyond the last.
    pub fn elements(&self, channels: usize, lanes: usize) -> usize {
        channels * self.channel + 2 * lanes
    }

    /// Vectors that the rows of a channel take.
    pub fn vectors(&self, lanes: usize) -> usize {
        self.numbers() * self.copies.iter().map(|copy| copy.at.len().div_ceil(lanes)).sum::<usize>()
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
        let (copy, offset) = self.taps[across];
        channel * self.channel + copy * self.copy + row * self.pitch + offset
    }

    /// Where a place's terms lie from those of the first: the first of a vector, and all of it.
    #[inline(always)]
    pub fn place(&self, place: usize) -> usize {
        let width = self.axes[1].places;
        if self.pitch == width { place } else { place / width * self.pitch + place % width }
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
    /// Of so many places, the first at a column of the frame.
    fn new(axis: &Sliding, first: usize, places: usize) -> Columns {
        let element = |place: usize| axis.element(first + place * axis.stride);
        let at: Vec<i32> = (0..places).map(|place| element(place).map_or(-1, |e| e as i32)).collect();
        let first = at.iter().position(|&e| e >= 0).unwrap_or(0);
        let count = at[first..].iter().take_while(|&&e| e >= 0).count();
        let step = if count > 1 { at[first + 1] - at[first] } else { 1 };
        let even = (first..first + count).all(|place| at[place] == at[first] + (place - first) as i32 * step);
        let alone = at.iter().filter(|&&e| e >= 0).count() == count;
        let start = if count > 0 { at[first] as usize } else { 0 };
        let run = (even && alone && step > 0).then_some((first, count, start, step as usize));
        Columns { lead: 0, at, run, linear: None, masks: Default::default() }
    }

    /// Sets where the row begins.
    fn align_to(&mut self, lanes: usize) {
        let before = self.run.map_or(0, |run| run.0);
        self.lead = before.next_multiple_of(lanes) - before;
    }

    /// Sets which elements each vector takes, if that is the way to copy rows: those of neighbours that begin a vector
    /// are copied as they are. Places without one are left out only where vectors would not begin at whole ones.
    fn set_masks(&mut self, lanes: usize, is_apart: bool) {
        let Some((before, count, _, step)) = self.run else { return };
        if step == 2 || step == 1 && !is_apart {
            let (first, count) = if is_apart { (before, count) } else { (0, self.at.len()) };
            let bits = |at: &[i32]| at.iter().rev().fold(0, |bits, &at| bits << step | u32::from(at >= 0));
            self.masks = (self.at[first..first + count].chunks(lanes).map(bits).collect(), first, count);
        }
    }

    /// Finds out whether so many rows, of a copy that begins at a column of the frame, are one run of the image.
    fn set_linear(&mut self, axis: &Sliding, first: usize, rows: usize, lanes: usize) {
        let width = axis.places;
        if axis.stride != 1 || axis.spread != 1 || width != axis.stored {
            return;
        }
        let has = |i: usize| i < rows * width && self.at[i % width] >= 0;
        let vector = |v: usize| (0..lanes).fold(0, |bits, lane| bits | u32::from(has(v * lanes + lane)) << lane);
        let vectors = (rows * width).div_ceil(lanes);
        self.linear = Some((first as isize - axis.before, (0..vectors).map(vector).collect()));
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
    let (pitch, [down, across]) = (shifted.pitch, &shifted.axes);
    let seen = numbers.iter().copied().filter(|&from| from != NOTHING);
    let (low, high) = seen.fold((isize::MAX, isize::MIN), |(low, high), from| (low.min(from), high.max(from)));
    let is_linear = V::HAS_MASKS && column == 1 && row == across.stored as isize;
    // The rows of a linear copy that are stored.
    let above = down.before - first as isize;
    let stored = [above, above + down.stored as isize].map(|y| y.clamp(0, shifted.rows as isize) as usize * pitch);
    for c in 0..channels {
        let src = src.wrapping_offset(c as isize * channel);
        for (copy, columns) in shifted.copies.iter().enumerate() {
            let width = columns.at.len();
            // SAFETY: as our caller promised; whole vectors are read only if all of them lie between `ends`.
            unsafe {
                let dst = dst.add(c * shifted.channel + copy * shifted.copy + columns.lead);
                match (&columns.linear, columns.run) {
                    (Some((shift, masks)), _) if is_linear => {
                        linear::<V>(dst, src.wrapping_offset(shift - above * row), masks, stored);
                    }
                    (_, Some(_)) if low > high => {
                        (0..numbers.len()).for_each(|i| zeros::<V>(dst.add(i * pitch), width));
                    }
                    (_, Some((before, _, start, step)))
                        if V::HAS_MASKS && column == 1 && !columns.masks.0.is_empty() =>
                    {
                        let (ref masks, first, count) = columns.masks;
                        let src = src.wrapping_add(start).wrapping_sub((before - first) * step);
                        let copy = Copy { dst, width, pitch, src, before: first, count, rows: numbers };
                        match (&masks[..], step) {
                            (&[mask], 1) => masked::<V, 1>(&copy, &[mask]),
                            (&[mask], _) => masked::<V, 2>(&copy, &[mask]),
                            (&[first, second], 1) => masked::<V, 1>(&copy, &[first, second]),
                            (&[first, second], _) => masked::<V, 2>(&copy, &[first, second]),
                            (masks, 1) => masked::<V, 1>(&copy, masks),
                            (masks, _) => masked::<V, 2>(&copy, masks),
                        }
                    }
                    (_, Some((before, count, start, step))) if column == 1 && step <= 2 => {
                        let line = src.wrapping_add(start);
                        let vectors_of_row = count.div_ceil(V::LANES);
                        let reach = (vectors_of_row * V::LANES * step) as isize - 1;
                        let inside = line.wrapping_offset(low) >= ends[0]
                            && line.wrapping_offset(high + reach.max(0)) <= ends[1];
                        let copy = Copy { dst, width, pitch, src: line, before, count, rows: numbers };
                        match vectors_of_row {
                            _ if !inside => gather::<V>(dst, src, numbers, (&columns.at, column), pitch),
                            _ if step == 2 => evens::<V>(&copy),
                            1 => vectors::<V, 1>(&copy),
                            2 => vectors::<V, 2>(&copy),
                            4 => vectors::<V, 4>(&copy),
                            _ => vectors::<V, 0>(&copy),
                        }
                    }
                    _ => gather::<V>(dst, src, numbers, (&columns.at, column), pitch),
                }
            }
        }
    }
}

/// A copy of rows that are one run of the image, but for the places that these masks leave out and whatever lies
/// outside of `stored`.
///
/// # Safety
/// As for `fill`; the elements of the remaining places can be read.
#[inline(always)]
unsafe fn linear<V: Vector>(dst: *mut V::Element, src: *const V::Element, masks: &[u32], [begin, end]: [usize; 2]) {
    for (v, &mask) in masks.iter().enumerate() {
        let i = v * V::LANES;
        let upto = |end: usize| ((1u64 << end.saturating_sub(i).min(V::LANES)) - 1) as u32;
        // SAFETY: as our caller promised.
        unsafe { V::load_some(src.wrapping_add(i), mask & upto(end) & !upto(begin)).store(dst.add(i)) }
    }
}

/// A copy of the rows of one channel: `count` columns of each, from column `before` on, come from the image.
struct Copy<'s, T> {
    dst: *mut T,
    width: usize,
    /// From row to row.
    pitch: usize,
    /// What the rows count from: the first element of the run.
    src: *const T,
    before: usize,
    count: usize,
    rows: &'s [isize],
}

/// Copies rows, or every `STEP`th element of rows, by the elements of each vector that are stored.
///
/// # Safety
/// As for `fill`; a vector behind the last row can be written.
#[inline(always)]
unsafe fn masked<V: Vector, const STEP: usize>(copy: &Copy<'_, V::Element>, masks: &[u32]) {
    let &Copy { mut dst, width, pitch, src, before, count, rows } = copy;
    for &from in rows {
        // SAFETY: as our caller promised; what no mask has is not read.
        unsafe {
            if from == NOTHING {
                zeros::<V>(dst, width);
            } else {
                let (line, first) = (src.wrapping_offset(from), dst.add(before));
                blank::<V>(dst, before);
                for (i, &mask) in masks.iter().enumerate() {
                    let line = line.wrapping_add(i * V::LANES * STEP);
                    let vector = if STEP == 1 { V::load_some(line, mask) } else { V::evens_some(line, mask) };
                    vector.store(first.add(i * V::LANES));
                }
                blank::<V>(first.add(count), width - before - count);
            }
            dst = dst.add(pitch);
        }
    }
}

/// Copies rows as `N` vectors each; 0: as many as it takes.
///
/// # Safety
/// As for `fill`; whole vectors can be read. They are written up to the end of a row, then the next row over what is
/// too much: there is room for a vector behind the last.
#[inline(always)]
unsafe fn vectors<V: Vector, const N: usize>(copy: &Copy<'_, V::Element>) {
    let &Copy { mut dst, width, pitch, src, before, count, rows } = copy;
    let vectors = if N == 0 { count.div_ceil(V::LANES) } else { N };
    for &from in rows {
        // SAFETY: as our caller promised.
        unsafe {
            if from == NOTHING {
                zeros::<V>(dst, width);
            } else {
                let (line, first) = (src.wrapping_offset(from), dst.add(before));
                blank::<V>(dst, before);
                (0..vectors).for_each(|i| V::load(line.wrapping_add(i * V::LANES)).store(first.add(i * V::LANES)));
                blank::<V>(first.add(count), width - before - count);
            }
            dst = dst.add(pitch);
        }
    }
}

/// Copies every second element of rows, beginning with the first.
///
/// # Safety
/// As for `vectors`; twice as many can be read.
#[inline(always)]
unsafe fn evens<V: Vector>(copy: &Copy<'_, V::Element>) {
    let &Copy { mut dst, width, pitch, src, before, count, rows } = copy;
    for &from in rows {
        // SAFETY: as our caller promised.
        unsafe {
            if from == NOTHING {
                zeros::<V>(dst, width);
            } else {
                let (line, first) = (src.wrapping_offset(from), dst.add(before));
                blank::<V>(dst, before);
                (0..count).step_by(V::LANES).for_each(|x| V::evens(first.add(x), line.wrapping_add(2 * x)));
                blank::<V>(first.add(count), width - before - count);
            }
            dst = dst.add(pitch);
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
    pitch: usize,
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
            dst = dst.add(pitch);
        }
    }
}

/// Zeros in a gap of mostly less than a vector: one that is written over what follows, which comes after it.
///
/// # Safety
/// As for [`zeros`].
#[inline(always)]
unsafe fn blank<V: Vector>(dst: *mut V::Element, count: usize) {
    // SAFETY: as our caller promised.
    unsafe {
        if count > 0 {
            V::zero().store(dst);
        }
        if count > V::LANES {
            zeros::<V>(dst.add(V::LANES), count - V::LANES);
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
