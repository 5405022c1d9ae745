//! The places of a convolution: vectors run along them, and each sum is one chain over channels, then taps, in order.
//! Owns the cut and the order of the tiles; the image's copy is `shifted`'s, the arithmetic `tile`'s.
//!
//! An image whose elements are spread among zeros, as in the gradient of a convolution with a stride, is never laid out
//! so: places that lie a spread apart see the same taps, and each such part is a convolution of the image as it is.

use super::phase::{Phases, Weave};
use super::shifted::Shifted;
use super::tile::{AHEAD, Strip, WIDEST};
use super::{Ahead, CHUNK_WORK, CHUNKS, Operand, Units, band, carve, carved, even, seen};
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Element, Micro};
use crate::program::kernel::{Args, Convolution, Executable, RunError, Sliding};

/// Elements of the largest tile of any instruction set.
const EDGE: usize = 8 * 48;

/// Elements of a cache line, at most.
const LINE: usize = 16;

/// A compiled convolution.
#[derive(Debug)]
pub struct Places<T: 'static> {
    items: usize,
    channels: usize,
    outputs: usize,
    /// Places of all rows, and of one.
    places: usize,
    width: usize,
    image: Operand,
    kernel: Operand,
    /// How the taps of all parts slide over the image as it is stored.
    axes: [Sliding; 2],
    shifted: Shifted,
    units: Units,
    /// Units of a chunk.
    per: usize,
    work: usize,
    /// The places in parts, along both axes, that see the same taps: one part if nothing is spread.
    spread: [usize; 2],
    parts: Vec<Part>,
    micro: &'static Micro<T>,
}

/// Places that see the same taps.
#[derive(Debug)]
struct Part {
    /// Rows and columns of places.
    rows: usize,
    width: usize,
    /// Where each term of a sum lies in the kernel and in scratch.
    weights: Vec<i32>,
    terms: Vec<i32>,
}

impl Part {
    /// Those at these phases.
    fn new(convolution: &Convolution, phases: &[Phases; 2], number: [usize; 2], shifted: &Shifted) -> Part {
        let Convolution { channels, axes, reversed, other, .. } = convolution;
        let (mut weights, mut terms) = (Vec::new(), Vec::new());
        let at = |axis: usize, index: usize| index as isize * other.strides[axis];
        for c in 0..*channels {
            for t in 0..axes[0].taps * axes[1].taps {
                let tap = [t / axes[1].taps, t % axes[1].taps];
                let seen = |i: usize| {
                    let position = if *reversed { axes[i].taps - 1 - tap[i] } else { tap[i] };
                    phases[i].tap(number[i], position)
                };
                if let Some((y, x)) = seen(0).zip(seen(1)) {
                    weights.push((at(2, c) + at(3, tap[0]) + at(4, tap[1])) as i32);
                    terms.push(shifted.term(c, [y, x]) as i32);
                }
            }
        }
        terms.extend([terms.first().copied().unwrap_or(0); AHEAD]);
        let [rows, width] = [0, 1].map(|i| phases[i].parts[number[i]].axis.places);
        Part { rows, width, weights, terms }
    }
}

impl<T: Element> Places<T> {
    pub fn new(convolution: &Convolution, isa: Isa) -> Places<T> {
        let Convolution { items, groups, channels, outputs, axes, image, other, .. } = convolution;
        let (items, groups, channels, outputs) = (*items, *groups, *channels, *outputs);
        let micro = T::micro(isa);
        let [down, across] = axes;
        let phases = [0, 1].map(|i| Phases::new(&axes[i]));
        let (spread, axes) = ([0, 1].map(|i| phases[i].parts.len()), [0, 1].map(|i| phases[i].axis));
        let work = convolution.work() / (spread[0] * spread[1]);
        let wanted = (work / CHUNK_WORK).min(CHUNKS).div_ceil((items * groups).max(1));
        let shifted = |rows: usize| Shifted::new(&axes, rows, micro.lanes, true);
        let (band, units) = match spread {
            [1, 1] => {
                let bytes = |rows| shifted(rows).elements(channels, micro.lanes) * size_of::<T>();
                let band = band(down.places, wanted, bytes);
                (band, Units::new(groups, down.places, band))
            }
            // The parts of an image are put together at its end.
            _ => (axes[0].places, Units::new(groups, down.places, down.places.max(1))),
        };
        let shifted = shifted(band);
        let count = items * groups * units.bands;
        let per = count.div_ceil(CHUNKS).max(CHUNK_WORK / (work / count.max(1)).max(1));
        let numbers = (0..spread[0] * spread[1]).map(|i| [i / spread[1], i % spread[1]]);
        Places {
            items,
            channels,
            outputs,
            places: down.places * across.places,
            width: across.places,
            image: Operand::new(image, [items, groups, channels, down.stored, across.stored]),
            kernel: Operand::new(other, [groups, outputs, channels, down.taps, across.taps]),
            parts: numbers.map(|number| Part::new(convolution, &phases, number, &shifted)).collect(),
            axes,
            shifted,
            units,
            per: per.max(1),
            work,
            spread,
            micro,
        }
    }

    /// All sums of a part's places whose image lies in scratch, to rows of `pitch`.
    ///
    /// # Safety
    /// As for `run_chunk`; `out` is the first output's first place, `count` how many there are.
    unsafe fn sums(
        &self,
        part: &Part,
        (image, kernel): (*const T, *const T),
        (out, pitch): (*mut T, usize),
        count: usize,
        ahead: &mut [(Ahead<T>, usize); 2],
    ) {
        let Micro { lanes, ref conv, .. } = *self.micro;
        let vectors = count.div_ceil(lanes);
        let panels = vectors.div_ceil(self.micro.vectors());
        let tiles = self.outputs.div_ceil(self.micro.height());
        let (k, row) = (part.weights.len(), self.kernel.stride(1));
        let pieces = ahead.each_ref().map(|(_, piece)| (*piece).min(k * LINE));
        let steps = pieces.map(|piece| piece.div_ceil(k.max(1)));
        let mut edge = [T::ZERO; EDGE];
        let mut j = 0;
        for panel in 0..panels {
            let vectors = even(vectors, panels, panel);
            let width = vectors * lanes;
            let cols = width.min(count - j);
            let place = |w: usize| image.wrapping_add(self.shifted.place(j + w * lanes));
            let b: [*const T; WIDEST] = std::array::from_fn(place);
            let mut o = 0;
            for tile in 0..tiles {
                let rows = even(self.outputs, tiles, tile);
                // SAFETY: as our caller promised; `edge` holds the largest tile.
                unsafe {
                    let c = out.add(o * pitch + j);
                    let a = kernel.offset(o as isize * row);
                    let next = (0..2).find_map(|i| Some((ahead[i].0.next(pieces[i])?, steps[i])));
                    let strip = Strip {
                        k,
                        a,
                        a_row: row,
                        a_at: part.weights.as_ptr(),
                        b,
                        b_at: part.terms.as_ptr(),
                        c,
                        pitch,
                        add: false,
                        result: (c.cast_const(), pitch),
                        next: next.unwrap_or((a, 0)),
                    };
                    let sums = conv.strips[vectors - 1][rows - 1];
                    if cols == width {
                        sums(&strip);
                    } else {
                        sums(&Strip { c: edge.as_mut_ptr(), pitch: width, ..strip });
                        for r in 0..rows {
                            let (from, to) = (edge.as_ptr().add(r * width), c.add(r * pitch));
                            (0..cols).for_each(|x| *to.add(x) = *from.add(x));
                        }
                    }
                }
                o += rows;
            }
            j += width;
        }
    }

    /// About how many cycles all of it takes, as measured: tiles of few vectors take more, and so do copies of rows.
    pub fn cycles(&self) -> usize {
        let lanes = self.micro.lanes;
        let vectors = |part: &Part| (part.rows * part.width).div_ceil(lanes);
        let products = self.parts.iter().map(|part| part.weights.len() * (10 * vectors(part) + 8)).sum::<usize>() / 20;
        self.items * self.units.groups * (self.outputs * products + 10 * self.channels * self.shifted.vectors(lanes))
    }

    /// Units in all.
    fn count(&self) -> usize {
        self.items * self.units.groups * self.units.bands
    }

    /// Parts that lie beside each other within a row; their sums wait in scratch. 0: sums go where they belong.
    fn beside(&self) -> usize {
        if self.spread == [1, 1] { 0 } else { self.spread[1] }
    }

    /// Places of a part, as many as the largest has.
    fn part_places(&self) -> usize {
        self.axes[0].places * self.axes[1].places
    }

    /// What is asked for while a unit is computed, and elements of a piece of each: the places that sums which wait
    /// will go to, and the image of the next unit.
    ///
    /// # Safety
    /// As for `run_chunk`; `out` is the image's first place.
    unsafe fn ahead(&self, args: &Args<'_>, out: *mut T, unit: usize) -> [(Ahead<T>, usize); 2] {
        let panels = self.part_places().min(self.units.band * self.width).div_ceil(self.micro.width());
        let turns = self.parts.len() * panels * self.outputs.div_ceil(self.micro.height());
        let out = match self.beside() {
            0 => Ahead::NONE,
            _ => Ahead { at: out.cast_const(), step: 0, runs: 1, run: self.outputs * self.places, done: 0 },
        };
        let mut next = Ahead::NONE;
        if unit + 1 < self.count() {
            let (item, group, first, rows) = self.units.of(unit + 1);
            let [down, across] = &self.axes;
            let (image, rows) = ((args.operands[1], [item, group]), (seen(down, (first, rows)), across.stored));
            // SAFETY: as our caller promised.
            next = unsafe { self.image.ahead(image, args, [1, self.channels], rows) };
        }
        [(out, out.piece(turns / 2)), (next, next.piece(if self.beside() == 0 { turns } else { turns / 2 }))]
    }
}

impl<T: Element> Executable for Places<T> {
    fn chunks(&self) -> usize {
        if self.outputs * self.places == 0 { 0 } else { self.count().div_ceil(self.per) }
    }

    fn scratch_bytes(&self) -> usize {
        let image = self.shifted.elements(self.channels, self.micro.lanes);
        let waiting = self.beside() * self.outputs * self.part_places();
        carved::<isize>(self.shifted.numbers()) + carved::<T>(image) + carved::<T>(waiting)
    }

    fn cost(&self) -> u64 {
        100 + (self.work / 20) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        for unit in chunk * self.per..((chunk + 1) * self.per).min(self.count()) {
            let (item, group, first, rows) = self.units.of(unit);
            // SAFETY: the layouts stay within the operands, the result is contiguous, and scratch is as large as asked.
            unsafe {
                let (numbers, rest) = carve::<isize>(scratch.as_mut_ptr(), self.shifted.numbers());
                let (image, rest) = carve::<T>(rest, self.shifted.elements(self.channels, self.micro.lanes));
                let waiting = rest.cast::<T>();
                let kernel = self.kernel.at(args.operands[0], args, [group, 0]);
                let before = (item * self.units.groups + group) * self.outputs * self.places;
                let out = args.operands[2].cast::<T>().add(before);
                let numbers = std::slice::from_raw_parts_mut(numbers, self.shifted.numbers());
                let at = (image, [item, group], first);
                (self.micro.conv.fill)(&mut self.image.fill(&self.shifted, args, self.channels, at, numbers));
                let (operands, mut ahead) = ((image.cast_const(), kernel), self.ahead(args, out, unit));
                if self.beside() == 0 {
                    let to = (out.add(first * self.width), self.places);
                    self.sums(&self.parts[0], operands, to, rows * self.width, &mut ahead);
                    continue;
                }
                let (pitch, apart) = (self.part_places(), self.outputs * self.part_places());
                for (number, part) in self.parts.iter().enumerate() {
                    let (y, x) = (number / self.spread[1], number % self.spread[1]);
                    self.sums(part, operands, (waiting.add(x * apart), pitch), pitch, &mut ahead);
                    if x + 1 < self.spread[1] {
                        continue;
                    }
                    // Parts of a row have as many rows; the first are as wide as the last or one place wider.
                    let widths = &self.parts[number + 1 - self.spread[1]..=number];
                    let (from, apart_rows) = (|x: usize| waiting.add(x * apart).cast_const(), self.axes[1].places);
                    let dst = out.add(y * self.width);
                    let (dst_steps, src_steps) = ([self.places, self.spread[0] * self.width], [pitch, apart_rows]);
                    let (planes, rows) = (self.outputs, part.rows);
                    if let [a, b] = widths {
                        let (cols, src) = ([a.width, b.width], [from(0), from(1)]);
                        (self.micro.conv.weave)(&Weave { planes, rows, cols, dst, dst_steps, src, src_steps });
                        continue;
                    }
                    for (o, row) in (0..planes).flat_map(|o| (0..rows).map(move |row| (o, row))) {
                        let dst = dst.add(o * dst_steps[0] + row * dst_steps[1]);
                        for (x, part) in widths.iter().enumerate() {
                            let from = from(x).add(o * src_steps[0] + row * src_steps[1]);
                            (0..part.width).for_each(|i| *dst.add(x + i * self.spread[1]) = *from.add(i));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
