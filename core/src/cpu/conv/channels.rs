//! The gradient of a kernel of several channels: vectors run along channels and, where taps see pixels side by side,
//! along taps of a row, and each sum is a chain over the places of a chunk's images in order, in blocks. Chunks are cut
//! by shape, and their sums are added in order.
//! Owns the cut and the order of the tiles; the image's copy is `pixels`', the arithmetic `tile`'s.

use std::ops::Range;

use super::pixels::{Pixels, Turn};
use super::tile::{AHEAD, Blocks, Strip, WIDEST};
use super::{Ahead, CHUNK_WORK, CHUNKS, Operand, Units, band, carved, even, seen};
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Element, Micro};
use crate::program::kernel::{Args, Convolution, Executable, RunError, Sliding};

/// Places of a block of a sum: what they see of the image stays in the first-level cache.
const DEPTH: usize = 256;
/// Bytes of all chunks' sums, about, at most.
const PARTIAL: usize = 2 << 20;

/// Whether vectors along channels take less time than vectors along places, as measured.
pub fn suits(convolution: &Convolution, lanes: usize) -> bool {
    let [down, across] = &convolution.axes;
    let (runs, length) = Pixels::new(&convolution.axes, convolution.channels, 1).runs();
    let places = down.places * across.places;
    let by_channels = down.taps * runs * length.div_ceil(lanes) * places;
    // Per sum and image a vector is read, added to and written, and each row of places takes a copy for each tap.
    let by_places = convolution.channels * down.taps * across.taps * (places.div_ceil(lanes) + 3);
    8 * by_channels <= 9 * by_places
}

/// A compiled gradient.
#[derive(Debug)]
pub struct ByChannels<T: 'static> {
    groups: usize,
    outputs: usize,
    channels: usize,
    width: usize,
    axes: [Sliding; 2],
    image: Operand,
    places: Operand,
    pixels: Pixels,
    /// Items and bands; a group's own.
    units: Units,
    items: usize,
    /// Chunks of a group, and units of a chunk.
    blocks: usize,
    per: usize,
    /// Units that are multiplied as if they were one.
    together: usize,
    work: usize,
    /// Where each place of the bands that are multiplied together lies among the places and in scratch.
    rows: Vec<i32>,
    terms: Vec<i32>,
    /// Where each vector of a row of sums begins in scratch.
    vectors: Vec<usize>,
    /// Where each channel's taps lie in a row of sums.
    kernel: Vec<u32>,
    micro: &'static Micro<T>,
}

/// Where the vectors of a row of sums begin in scratch, and where each channel's taps lie in such a row.
fn columns(
    pixels: &Pixels,
    [down, across]: &[Sliding; 2],
    reversed: bool,
    channels: usize,
    lanes: usize,
) -> (Vec<usize>, Vec<u32>) {
    let (runs, length) = pixels.runs();
    let starts = (0..down.taps).flat_map(|y| (0..runs).map(move |x| [y, x]));
    let vectors = starts.flat_map(|at| (0..length).step_by(lanes).map(move |i| pixels.tap(at) + i)).collect();
    let pitch = length.next_multiple_of(lanes);
    let of = |c: usize, t: usize| {
        let tap = [t / across.taps, t % across.taps];
        let [y, x] = if reversed { [down.taps - 1 - tap[0], across.taps - 1 - tap[1]] } else { tap };
        let (run, within) = if runs == 1 { (0, x * channels) } else { (x, 0) };
        ((y * runs + run) * pitch + within + c) as u32
    };
    let taps = down.taps * across.taps;
    (vectors, (0..channels).flat_map(|c| (0..taps).map(move |t| of(c, t))).collect())
}

impl<T: Element> ByChannels<T> {
    pub fn new(convolution: &Convolution, isa: Isa) -> ByChannels<T> {
        let Convolution { items, groups, channels, outputs, axes, reversed, image, other, .. } = convolution;
        let (items, groups, channels, outputs) = (*items, *groups, *channels, *outputs);
        let micro = T::micro(isa);
        let [down, across] = axes;
        let work = convolution.work();
        let chunks = (work / CHUNK_WORK).next_power_of_two().min(CHUNKS / 2);
        let band = band(down.places, chunks.div_ceil((items * groups).max(1)), |rows| {
            Pixels::new(axes, channels, rows).elements(1, micro.lanes) * size_of::<T>()
        });
        let pixels = Pixels::new(axes, channels, band);
        let units = Units::new(1, down.places, band);
        let (vectors, kernel) = columns(&pixels, axes, *reversed, channels, micro.lanes);
        let sums = groups * outputs * vectors.len() * micro.lanes * size_of::<T>();
        let count = items * units.bands;
        // A power of two: as even as can be, for any number of threads of which the same is true.
        let most = 1 << (PARTIAL / sums.max(1)).max(4).ilog2();
        let wanted = chunks.div_ceil(groups.max(1)).min(most).clamp(1, count.max(1));
        let per = count.div_ceil(wanted).max(1);
        let all = band * across.places;
        let together = if units.bands == 1 { (DEPTH / all.max(1)).clamp(1, per) } else { 1 };
        let places = || (0..together * all).map(|i| [i / all, i % all / across.places, i % across.places]);
        let at = |axis: usize, index: usize| index as isize * other.strides[axis];
        let rows = places().map(|[item, y, x]| (at(0, item) + at(3, y) + at(4, x)) as i32).collect();
        let mut terms: Vec<i32> =
            places().map(|[item, y, x]| (item * pixels.band() + pixels.place([y, x])) as i32).collect();
        terms.extend([0; AHEAD]);
        ByChannels {
            groups,
            outputs,
            channels,
            width: across.places,
            axes: *axes,
            image: Operand::new(image, [items, groups, channels, down.stored, across.stored]),
            places: Operand::new(other, [items, groups, outputs, down.places, across.places]),
            pixels,
            units,
            items,
            blocks: count.div_ceil(per),
            per,
            together,
            work,
            rows,
            terms,
            vectors,
            kernel,
            micro,
        }
    }

    /// Elements of a row of a chunk's sums, and of all.
    fn pitch(&self) -> usize {
        self.vectors.len() * self.micro.lanes
    }

    fn sums(&self) -> usize {
        self.outputs * self.pitch()
    }

    /// The images and the places of units, which are asked for while those before are computed, and elements of a piece
    /// of each.
    ///
    /// # Safety
    /// As for `run_chunk`.
    unsafe fn ahead(&self, args: &Args<'_>, group: usize, units: Range<usize>) -> ([Ahead<T>; 2], [usize; 2]) {
        if units.is_empty() {
            return ([Ahead::NONE; 2], [0; 2]);
        }
        let (item, _, first, rows) = self.units.of(units.start);
        let panels = self.vectors.len().div_ceil(self.micro.vectors());
        let blocks = (self.together * self.units.band * self.width).div_ceil(DEPTH);
        let turns = blocks * panels * self.outputs.div_ceil(self.micro.height());
        let [down, across] = &self.axes;
        let [places, image] = [0, 1].map(|i| (args.operands[i], [item, group]));
        let seen = (seen(down, (first, rows)), across.stored);
        // SAFETY: as our caller promised.
        let aheads = unsafe {
            let places =
                self.places.ahead(places, args, [units.len(), self.outputs], (first..first + rows, self.width));
            [self.image.ahead(image, args, [units.len(), self.channels], seen), places]
        };
        (aheads, aheads.map(|ahead| ahead.piece(turns / 2)))
    }

    /// Adds the products of a unit whose image lies in scratch; the first are not added but written.
    ///
    /// # Safety
    /// As for `run_chunk`; `places` are those of the unit, `count` how many there are.
    unsafe fn multiply(
        &self,
        (image, places): (*const T, *const T),
        sums: *mut T,
        count: usize,
        is_first: bool,
        (ahead, pieces): (&mut [Ahead<T>; 2], [usize; 2]),
    ) {
        let Micro { lanes, ref conv, .. } = *self.micro;
        let panels = self.vectors.len().div_ceil(self.micro.vectors());
        let tiles = self.outputs.div_ceil(self.micro.height());
        let (row, pitch) = (self.places.stride(2), self.pitch());
        for p in (0..count).step_by(DEPTH) {
            let mut v = 0;
            for panel in 0..panels {
                let vectors = even(self.vectors.len(), panels, panel);
                let b: [*const T; WIDEST] =
                    std::array::from_fn(|w| image.wrapping_add(self.vectors[(v + w).min(self.vectors.len() - 1)]));
                let mut o = 0;
                for tile in 0..tiles {
                    let rows = even(self.outputs, tiles, tile);
                    // SAFETY: as our caller promised.
                    unsafe {
                        let (k, a) = (DEPTH.min(count - p), places.offset(o as isize * row));
                        let next = (0..2).find_map(|i| Some((ahead[i].next(pieces[i])?, pieces[i].div_ceil(k))));
                        let c = sums.add(o * pitch + v * lanes);
                        conv.strips[vectors - 1][rows - 1](&Strip {
                            k,
                            a,
                            a_row: row,
                            a_at: self.rows[p..].as_ptr(),
                            b,
                            b_at: self.terms[p..].as_ptr(),
                            c,
                            pitch,
                            add: !is_first || p > 0,
                            result: (c.cast_const(), pitch),
                            next: next.unwrap_or((a, 0)),
                        });
                    }
                    o += rows;
                }
                v += vectors;
            }
        }
    }
}

impl<T: Element> Executable for ByChannels<T> {
    fn chunks(&self) -> usize {
        self.groups * self.blocks
    }

    fn scratch_bytes(&self) -> usize {
        carved::<T>(self.pixels.elements(self.together, self.micro.lanes))
    }

    fn partial_bytes(&self) -> usize {
        self.chunks() * self.sums() * size_of::<T>()
    }

    fn cost(&self) -> u64 {
        100 + (self.work / 20) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let (group, block) = (chunk / self.blocks, chunk % self.blocks);
        let stride = |axis| self.image.stride(axis);
        let units = block * self.per..((block + 1) * self.per).min(self.items * self.units.bands);
        let sums = args.partial.cast::<T>().wrapping_add(chunk * self.sums());
        let image = scratch.as_mut_ptr().cast::<T>();
        for start in units.clone().step_by(self.together) {
            let (item, _, first, rows) = self.units.of(start);
            let together = start..(start + self.together).min(units.end);
            // SAFETY: the layouts stay within the operands, the chunk's sums are its own, and scratch is as large as
            // asked.
            unsafe {
                for unit in together.clone() {
                    let item = self.units.of(unit).0;
                    let number = unit - start;
                    (self.micro.conv.turn)(&Turn {
                        pixels: &self.pixels,
                        dst: image.add(number * self.pixels.band()),
                        square: image.add(self.pixels.bands(self.together, self.micro.lanes)),
                        framed: self.units.bands == 1 && start > units.start,
                        src: self.image.at(args.operands[1], args, [item, group]),
                        strides: [stride(2), stride(3), stride(4)],
                        first,
                    });
                }
                let places = self.places.at::<T>(args.operands[0], args, [item, group]);
                let places = places.offset(first as isize * self.places.stride(3));
                let next = together.end..(together.end + self.together).min(self.items * self.units.bands);
                let (mut ahead, pieces) = self.ahead(args, group, next);
                let count = together.len() * rows * self.width;
                self.multiply((image, places), sums, count, start == units.start, (&mut ahead, pieces));
            }
        }
        Ok(())
    }

    fn has_finish(&self) -> bool {
        true
    }

    unsafe fn finish(&self, args: &Args<'_>, _: &mut [u8]) -> Result<(), RunError> {
        let pitch = self.pitch();
        // SAFETY: the result is contiguous, and all chunks have written their sums.
        unsafe {
            let (sums, out) = (args.partial.cast::<T>(), args.operands[2].cast::<T>());
            for (group, o) in (0..self.groups).flat_map(|group| (0..self.outputs).map(move |o| (group, o))) {
                let total = sums.add(group * self.blocks * self.sums() + o * pitch);
                let (step, blocks) = (self.sums(), self.blocks);
                (self.micro.conv.blocks)(&Blocks { dst: total, src: total, step, blocks, count: pitch });
                let total = std::slice::from_raw_parts(total.cast_const(), pitch);
                let out = out.add((group * self.outputs + o) * self.kernel.len());
                for (i, &at) in self.kernel.iter().enumerate() {
                    *out.add(i) = *total.get_unchecked(at as usize);
                }
            }
        }
        Ok(())
    }
}
