//! The gradient of a kernel of three taps a row by minimal filtering: two thirds of the multiplications. Vectors run
//! along channels, and each component's sum is a chain over the pairs of places of a chunk's images in order, in
//! blocks. Chunks are cut by shape, and their sums are added in order.
//! Owns the cut and the order of the tiles; the image's copy is `pixels`' and `paired`'s, the arithmetic `tile`'s.

use std::ops::Range;

use tapeflow_ir::DType;

use super::paired::{COMPONENTS, Differences, Halves};
use super::pixels::{Pixels, Turn};
use super::tile::{AHEAD, Blocks, Strip, WIDEST};
use super::{Ahead, CHUNK_WORK, CHUNKS, Operand, Units, band, carve, carved, even, seen};
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Micro, Number};
use crate::program::kernel::{Args, Convolution, Executable, RunError, Sliding};

/// Pairs of a block of a sum: what they see of the image stays in the first-level cache.
const DEPTH: usize = 256;
/// Bytes of all chunks' sums, about, at most.
const PARTIAL: usize = 2 << 20;
/// Outputs, and pairs of places, at least.
const LEAST_OUTPUTS: usize = 8;
const LEAST_PAIRS: usize = 16;

/// Whether a gradient is computed so: vectors of channels must be full enough, beside vectors of channels and taps.
pub fn suits(convolution: &Convolution, isa: Isa) -> bool {
    let Convolution { dtype, axes: [down, across], channels, outputs, is_minimal, .. } = convolution;
    let lanes = match isa.vectors() {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        _ => return false,
    };
    let is_full = 2 * COMPONENTS * channels.div_ceil(lanes) <= 3 * (across.taps * channels).div_ceil(lanes);
    let is_worth = *outputs >= LEAST_OUTPUTS && down.places * across.places >= 2 * LEAST_PAIRS;
    *is_minimal && *dtype == DType::F32 && across.places.is_multiple_of(2) && is_full && is_worth
}

/// A compiled gradient.
#[derive(Debug)]
pub struct ByPairs<T: 'static> {
    groups: usize,
    outputs: usize,
    channels: usize,
    width: usize,
    axes: [Sliding; 2],
    reversed: bool,
    image: Operand,
    places: Operand,
    /// Whether places of an image lie side by side.
    is_linear: bool,
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
    /// Rows of the frame that a band sees.
    rows: usize,
    /// Where both places of each pair of the bands that are multiplied together lie, where their sum and difference,
    /// and where what they see of the image.
    evens: Vec<i32>,
    odds: Vec<i32>,
    halves: Vec<i32>,
    terms: Vec<i32>,
    micro: &'static Micro<T>,
}

impl<T: Number> ByPairs<T> {
    pub fn new(convolution: &Convolution, isa: Isa) -> ByPairs<T> {
        let Convolution { items, groups, channels, outputs, axes, reversed, image, other, .. } = convolution;
        let (items, groups, channels, outputs) = (*items, *groups, *channels, *outputs);
        let micro = T::micro(isa);
        let [down, across] = axes;
        let work = convolution.work();
        let chunks = (work / CHUNK_WORK).next_power_of_two().min(CHUNKS / 2);
        let vectors = COMPONENTS * channels.div_ceil(micro.lanes);
        let reach = (down.taps - 1) * down.dilation;
        let pairs = across.places / 2;
        let band = band(down.places, chunks.div_ceil((items * groups).max(1)), |rows| {
            let pixels = Pixels::new(axes, channels, rows).elements(1, micro.lanes);
            (pixels + vectors * (rows + reach) * pairs * micro.lanes) * size_of::<T>()
        });
        let units = Units::new(1, down.places, band);
        let sums = groups * outputs * vectors * down.taps * micro.lanes * size_of::<T>();
        let count = items * units.bands;
        // A power of two: as even as can be, for any number of threads of which the same is true.
        let most = 1 << (PARTIAL / sums.max(1)).max(4).ilog2();
        let wanted = chunks.div_ceil(groups.max(1)).min(most).clamp(1, count.max(1));
        let per = count.div_ceil(wanted).max(1);
        let all = band * pairs;
        let together = if units.bands == 1 { (DEPTH / all.max(1)).clamp(1, per) } else { 1 };
        let rows = band + reach;
        let each = || (0..together * all).map(|i| [i / all, i % all / pairs, i % pairs]);
        let at = |axis: usize, index: usize| index as isize * other.strides[axis];
        let place =
            |odd: usize| each().map(move |[item, y, x]| (at(0, item) + at(3, y) + at(4, 2 * x + odd)) as i32).collect();
        let mut terms: Vec<i32> =
            each().map(|[item, y, x]| (((item * rows + y) * pairs + x) * micro.lanes) as i32).collect();
        terms.extend([0; AHEAD]);
        ByPairs {
            groups,
            outputs,
            channels,
            width: across.places,
            axes: *axes,
            reversed: *reversed,
            image: Operand::new(image, [items, groups, channels, down.stored, across.stored]),
            places: Operand::new(other, [items, groups, outputs, down.places, across.places]),
            is_linear: other.strides[4] == 1 && (down.places == 1 || other.strides[3] == across.places as isize),
            pixels: Pixels::new(axes, channels, band),
            units,
            items,
            blocks: count.div_ceil(per),
            per,
            together,
            work,
            rows,
            evens: place(0),
            odds: place(1),
            halves: each().map(|[item, y, x]| (item * outputs * all + y * pairs + x) as i32).collect(),
            terms,
            micro,
        }
    }

    /// Vectors of channels of a component.
    fn vectors(&self) -> usize {
        self.channels.div_ceil(self.micro.lanes)
    }

    /// Elements of what is seen of a component of a vector of channels, of a row of a chunk's sums, and of all sums.
    fn plane(&self) -> usize {
        self.together * self.rows * self.width / 2 * self.micro.lanes
    }

    fn pitch(&self) -> usize {
        COMPONENTS * self.vectors() * self.axes[0].taps * self.micro.lanes
    }

    fn sums(&self) -> usize {
        self.outputs * self.pitch()
    }

    /// Pairs of a band, and elements of the sums of all bands' pairs.
    fn pairs(&self) -> usize {
        self.units.band * self.width / 2
    }

    fn halved(&self) -> usize {
        self.together * self.outputs * self.pairs() + self.micro.lanes
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
        let panels = COMPONENTS * self.vectors() * self.axes[0].taps.div_ceil(self.micro.vectors());
        let blocks = (self.together * self.pairs()).div_ceil(DEPTH);
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

    /// Lays out an image and the sums and differences of its places.
    ///
    /// # Safety
    /// As for `run_chunk`; `planes` and `halves` have room for the unit.
    unsafe fn lay_out(
        &self,
        (args, group, unit): (&Args<'_>, usize, usize),
        is_framed: bool,
        pixels: *mut T,
        planes: *mut T,
        halves: *mut T,
    ) {
        let (item, _, first, rows) = self.units.of(unit);
        let (across, pairs) = (&self.axes[1], self.width / 2);
        let stride = |axis| self.image.stride(axis);
        // SAFETY: as our caller promised.
        unsafe {
            (self.micro.conv.turn)(&Turn {
                pixels: &self.pixels,
                dst: pixels,
                square: pixels.add(self.pixels.bands(1, self.micro.lanes)),
                framed: is_framed,
                src: self.image.at(args.operands[1], args, [item, group]),
                strides: [stride(2), stride(3), stride(4)],
                first,
            });
            (self.micro.conv.differences)(&Differences {
                src: pixels,
                pitch: across.framed * self.channels,
                channels: self.channels,
                rows: self.rows,
                pairs,
                dst: planes,
                plane: self.plane(),
            });
            let places = self.places.at::<T>(args.operands[0], args, [item, group]);
            let places = places.offset(first as isize * self.places.stride(3));
            // Rows that do not lie side by side are taken one by one, and columns too.
            let [lines, columns] = match (self.is_linear, self.places.stride(4)) {
                (true, _) => [1, 1],
                (_, 1) => [rows, 1],
                _ => [rows, pairs],
            };
            for line in 0..lines {
                for column in 0..columns {
                    let from = line as isize * self.places.stride(3) + 2 * column as isize * self.places.stride(4);
                    (self.micro.conv.halves)(&Halves {
                        src: [0, 1].map(|odd| places.offset(from + odd * self.places.stride(4))),
                        src_pitch: self.places.stride(2),
                        rows: self.outputs,
                        pairs: rows * pairs / lines / columns,
                        dst: [halves, halves.add(self.halved())].map(|half| half.add(line * pairs + column)),
                        dst_pitch: self.pairs(),
                    });
                }
            }
        }
    }

    /// Adds the products of units that are laid out; the first are not added but written.
    ///
    /// # Safety
    /// As for `run_chunk`; `places` are those of the units, `count` how many pairs there are.
    unsafe fn multiply(
        &self,
        (planes, halves, places): (*const T, *const T, *const T),
        sums: *mut T,
        (count, is_first): (usize, bool),
        (ahead, pieces): (&mut [Ahead<T>; 2], [usize; 2]),
    ) {
        let Micro { lanes, ref conv, .. } = *self.micro;
        let down = &self.axes[0];
        let panels = down.taps.div_ceil(self.micro.vectors());
        let tiles = self.outputs.div_ceil(self.micro.height());
        let (pitch, tap) = (self.pitch(), down.dilation * self.width / 2 * lanes);
        for p in (0..count).step_by(DEPTH) {
            let k = DEPTH.min(count - p);
            for number in 0..COMPONENTS * self.vectors() {
                let (a, row, a_at) = match number / self.vectors() {
                    0 => (places, self.places.stride(2), &self.evens),
                    1 => (halves, self.pairs() as isize, &self.halves),
                    2 => (halves.wrapping_add(self.halved()), self.pairs() as isize, &self.halves),
                    _ => (places, self.places.stride(2), &self.odds),
                };
                let plane = planes.wrapping_add(number * self.plane());
                let mut t = 0;
                for panel in 0..panels {
                    let vectors = even(down.taps, panels, panel);
                    let b: [*const T; WIDEST] =
                        std::array::from_fn(|w| plane.wrapping_add((t + w).min(down.taps - 1) * tap));
                    let mut o = 0;
                    for tile in 0..tiles {
                        let rows = even(self.outputs, tiles, tile);
                        // SAFETY: as our caller promised.
                        unsafe {
                            let a = a.offset(o as isize * row);
                            let c = sums.add(o * pitch + (number * down.taps + t) * lanes);
                            let next = (0..2).find_map(|i| Some((ahead[i].next(pieces[i])?, pieces[i].div_ceil(k))));
                            conv.strips[vectors - 1][rows - 1](&Strip {
                                k,
                                a,
                                a_row: row,
                                a_at: a_at[p..].as_ptr(),
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
                    t += vectors;
                }
            }
        }
    }
}

impl<T: Number> Executable for ByPairs<T> {
    fn chunks(&self) -> usize {
        self.groups * self.blocks
    }

    fn scratch_bytes(&self) -> usize {
        let planes = COMPONENTS * self.vectors() * self.plane();
        carved::<T>(self.pixels.elements(1, self.micro.lanes)) + carved::<T>(planes) + carved::<T>(2 * self.halved())
    }

    fn partial_bytes(&self) -> usize {
        self.chunks() * self.sums() * size_of::<T>()
    }

    fn cost(&self) -> u64 {
        100 + (self.work / 28) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let (group, block) = (chunk / self.blocks, chunk % self.blocks);
        let all = self.items * self.units.bands;
        let units = block * self.per..((block + 1) * self.per).min(all);
        let sums = args.partial.cast::<T>().wrapping_add(chunk * self.sums());
        // SAFETY: the layouts stay within the operands, the chunk's sums are its own, and scratch is as large as asked.
        unsafe {
            let (pixels, rest) = carve::<T>(scratch.as_mut_ptr(), self.pixels.elements(1, self.micro.lanes));
            let (planes, rest) = carve::<T>(rest, COMPONENTS * self.vectors() * self.plane());
            let halves = rest.cast::<T>();
            for start in units.clone().step_by(self.together) {
                let together = start..(start + self.together).min(units.end);
                for unit in together.clone() {
                    let number = unit - start;
                    let planes = planes.add(number * self.rows * self.width / 2 * self.micro.lanes);
                    let halves = halves.add(number * self.outputs * self.pairs());
                    let is_framed = self.units.bands == 1 && unit > units.start;
                    self.lay_out((args, group, unit), is_framed, pixels, planes, halves);
                }
                let (item, _, first, rows) = self.units.of(start);
                let places = self.places.at::<T>(args.operands[0], args, [item, group]);
                let places = places.offset(first as isize * self.places.stride(3));
                let next = together.end..(together.end + self.together).min(all);
                let (mut ahead, pieces) = self.ahead(args, group, next);
                let count = together.len() * rows * self.width / 2;
                let operands = (planes.cast_const(), halves.cast_const(), places);
                self.multiply(operands, sums, (count, start == units.start), (&mut ahead, pieces));
            }
        }
        Ok(())
    }

    fn has_finish(&self) -> bool {
        true
    }

    unsafe fn finish(&self, args: &Args<'_>, _: &mut [u8]) -> Result<(), RunError> {
        let (pitch, lanes, taps, vectors) = (self.pitch(), self.micro.lanes, self.axes[0].taps, self.vectors());
        let half = T::HALF;
        // SAFETY: the result is contiguous, and all chunks have written their sums.
        unsafe {
            let (sums, mut out) = (args.partial.cast::<T>(), args.operands[2].cast::<T>());
            for (group, o) in (0..self.groups).flat_map(|group| (0..self.outputs).map(move |o| (group, o))) {
                let total = sums.add(group * self.blocks * self.sums() + o * pitch);
                let (step, blocks) = (self.sums(), self.blocks);
                (self.micro.conv.blocks)(&Blocks { dst: total, src: total, step, blocks, count: pitch });
                for c in 0..self.channels {
                    for t in 0..taps {
                        let row = if self.reversed { taps - 1 - t } else { t };
                        let at = |m: usize| *total.add(((m * vectors + c / lanes) * taps + row) * lanes + c % lanes);
                        let [a, b, c, d] = [0, 1, 2, 3].map(at);
                        let middle = b.plus(c).times(half);
                        let (first, last) = (a.plus(middle), middle.minus(d));
                        let (first, last) = if self.reversed { (last, first) } else { (first, last) };
                        *out = first;
                        *out.add(1) = b.minus(c).times(half);
                        *out.add(2) = last;
                        out = out.add(3);
                    }
                }
            }
        }
        Ok(())
    }
}
