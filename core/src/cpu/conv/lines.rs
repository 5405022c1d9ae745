//! The gradient of a kernel of few channels: vectors run along the places, one sum per lane, images in order within a
//! chunk; lanes are added as a tree, and the chunks, which are cut by shape, in order.
//! Owns the cut and the order of the sums; the image's copy is `shifted`'s, the arithmetic `tile`'s.

use super::shifted::Shifted;
use super::tile::{Blocks, Dots, WIDEST};
use super::{Ahead, CHUNK_WORK, CHUNKS, Operand, Units, band, carve, carved, even, seen};
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Element, Micro};
use crate::program::kernel::{Args, Convolution, Executable, RunError, Sliding};

/// A compiled gradient.
#[derive(Debug)]
pub struct ByLines<T: 'static> {
    groups: usize,
    outputs: usize,
    channels: usize,
    width: usize,
    axes: [Sliding; 2],
    image: Operand,
    places: Operand,
    /// Whether places of an image lie side by side.
    is_linear: bool,
    shifted: Shifted,
    units: Units,
    items: usize,
    blocks: usize,
    per: usize,
    work: usize,
    /// Where each channel's taps lie in scratch.
    terms: Vec<usize>,
    micro: &'static Micro<T>,
}

impl<T: Element> ByLines<T> {
    pub fn new(convolution: &Convolution, isa: Isa) -> ByLines<T> {
        let Convolution { items, groups, channels, outputs, axes, reversed, image, other, .. } = convolution;
        let (items, groups, channels, outputs) = (*items, *groups, *channels, *outputs);
        let micro = T::micro(isa);
        let [down, across] = axes;
        let work = convolution.work();
        let chunks = (work / CHUNK_WORK * 8).min(CHUNKS);
        let wanted = chunks.div_ceil((items * groups).max(1));
        let band = band(down.places, wanted, |rows| {
            Shifted::new(axes, rows, micro.lanes, false).elements(channels, micro.lanes) * size_of::<T>()
        });
        let shifted = Shifted::new(axes, band, micro.lanes, false);
        let units = Units::new(1, down.places, band);
        let count = items * units.bands;
        let wanted = chunks.div_ceil(groups.max(1)).clamp(1, count.max(1));
        let per = count.div_ceil(wanted).max(1);
        let mut terms = Vec::new();
        for c in 0..channels {
            for t in 0..down.taps * across.taps {
                let tap = [t / across.taps, t % across.taps];
                let position = if *reversed { [down.taps - 1 - tap[0], across.taps - 1 - tap[1]] } else { tap };
                terms.push(shifted.term(c, position));
            }
        }
        let is_linear = other.strides[4] == 1 && (down.places == 1 || other.strides[3] == across.places as isize);
        ByLines {
            groups,
            outputs,
            channels,
            width: across.places,
            axes: *axes,
            image: Operand::new(image, [items, groups, channels, down.stored, across.stored]),
            places: Operand::new(other, [items, groups, outputs, down.places, across.places]),
            is_linear,
            shifted,
            units,
            items,
            blocks: count.div_ceil(per),
            per,
            work,
            terms,
            micro,
        }
    }

    fn sums(&self) -> usize {
        self.outputs * self.terms.len()
    }

    /// Elements of scratch for places that do not lie side by side.
    fn gathered(&self) -> usize {
        if self.is_linear { 0 } else { self.outputs * self.shifted.band * self.width }
    }

    /// Adds the products of a unit whose image lies in scratch to a vector for each sum.
    ///
    /// # Safety
    /// As for `run_chunk`; `places` are those of the unit, from output to output, `count` how many there are.
    unsafe fn multiply(
        &self,
        image: *const T,
        (places, row): (*const T, isize),
        vectors: *mut T,
        count: usize,
        mut ahead: [Ahead<T>; 2],
    ) {
        let Micro { lanes, ref conv, .. } = *self.micro;
        let panels = self.terms.len().div_ceil(self.micro.vectors());
        let tiles = self.outputs.div_ceil(self.micro.height());
        let (steps, rest, pitch) = (count / lanes, count % lanes, self.terms.len() * lanes);
        let pieces = ahead.map(|ahead: Ahead<T>| ahead.piece(panels * tiles / 2));
        let mut o = 0;
        for tile in 0..tiles {
            let rows = even(self.outputs, tiles, tile);
            let a = places.wrapping_offset(o as isize * row);
            let mut first = 0;
            for panel in 0..panels {
                let terms = &self.terms[first..first + even(self.terms.len(), panels, panel)];
                let b: [*const T; WIDEST] = std::array::from_fn(|w| image.wrapping_add(terms[w.min(terms.len() - 1)]));
                let next = (0..2).find_map(|i| Some((ahead[i].next(pieces[i])?, pieces[i].div_ceil(steps.max(1)))));
                // SAFETY: as our caller promised; there is a vector for each sum.
                unsafe {
                    let at = vectors.add(o * pitch + first * lanes);
                    let next = next.unwrap_or((a, 0));
                    let dots = Dots { steps, rest, a, a_row: row, b, lanes: at, pitch, next };
                    conv.dots[terms.len() - 1][rows - 1](&dots);
                }
                first += terms.len();
            }
            o += rows;
        }
    }

    /// The image and the places of a unit, which are asked for while the one before is computed.
    ///
    /// # Safety
    /// As for `run_chunk`.
    unsafe fn ahead(&self, args: &Args<'_>, group: usize, unit: usize) -> [Ahead<T>; 2] {
        if unit >= self.items * self.units.bands {
            return [Ahead::NONE; 2];
        }
        let (item, _, first, rows) = self.units.of(unit);
        let [down, across] = &self.axes;
        let [places, image] = [0, 1].map(|i| (args.operands[i], [item, group]));
        // SAFETY: as our caller promised.
        unsafe {
            let seen = (seen(down, (first, rows)), across.stored);
            let places = self.places.ahead(places, args, [1, self.outputs], (first..first + rows, self.width));
            [self.image.ahead(image, args, [1, self.channels], seen), places]
        }
    }
}

impl<T: Element> Executable for ByLines<T> {
    fn chunks(&self) -> usize {
        self.groups * self.blocks
    }

    fn scratch_bytes(&self) -> usize {
        let image = self.shifted.elements(self.channels, self.micro.lanes);
        let vectors = carved::<T>(self.sums() * self.micro.lanes);
        vectors + carved::<isize>(self.shifted.numbers()) + carved::<T>(image) + carved::<T>(self.gathered())
    }

    fn partial_bytes(&self) -> usize {
        self.chunks() * self.sums() * size_of::<T>()
    }

    fn cost(&self) -> u64 {
        100 + (self.work / 8) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let (group, block) = (chunk / self.blocks, chunk % self.blocks);
        // SAFETY: the layouts stay within the operands, the chunk's sums are its own, and scratch is as large as asked.
        unsafe {
            let sums = args.partial.cast::<T>().add(chunk * self.sums());
            let lanes = self.micro.lanes;
            let (vectors, scratch) = carve::<T>(scratch.as_mut_ptr(), self.sums() * lanes);
            (0..self.sums() * lanes).for_each(|i| *vectors.add(i) = T::ZERO);
            for unit in block * self.per..((block + 1) * self.per).min(self.items * self.units.bands) {
                let (item, _, first, rows) = self.units.of(unit);
                let (numbers, rest) = carve::<isize>(scratch, self.shifted.numbers());
                let (image, rest) = carve::<T>(rest, self.shifted.elements(self.channels, self.micro.lanes));
                let numbers = std::slice::from_raw_parts_mut(numbers, self.shifted.numbers());
                let at = (image, [item, group], first);
                (self.micro.conv.fill)(&mut self.image.fill(&self.shifted, args, self.channels, at, numbers));
                let places = self.places.at::<T>(args.operands[0], args, [item, group]);
                let places = places.offset(first as isize * self.places.stride(3));
                let lines = if self.is_linear {
                    (places, self.places.stride(2))
                } else {
                    let (gathered, count) = (rest.cast::<T>(), rows * self.width);
                    for i in 0..self.outputs * count {
                        let (o, y, x) = (i / count, i % count / self.width, i % self.width);
                        let at = |index: usize, axis: usize| index as isize * self.places.stride(axis);
                        *gathered.add(i) = *places.offset(at(o, 2) + at(y, 3) + at(x, 4));
                    }
                    (gathered.cast_const(), count as isize)
                };
                let ahead = self.ahead(args, group, unit + 1);
                self.multiply(image, lines, vectors, rows * self.width, ahead);
            }
            (self.micro.conv.totals)(vectors, self.sums(), sums);
        }
        Ok(())
    }

    fn has_finish(&self) -> bool {
        true
    }

    unsafe fn finish(&self, args: &Args<'_>, _: &mut [u8]) -> Result<(), RunError> {
        // SAFETY: the result is contiguous, and all chunks have written their sums.
        unsafe {
            let (sums, out) = (args.partial.cast::<T>(), args.operands[2].cast::<T>());
            let count = self.sums();
            for group in 0..self.groups {
                (self.micro.conv.blocks)(&Blocks {
                    dst: out.add(group * count),
                    src: sums.add(group * self.blocks * count),
                    step: count,
                    blocks: self.blocks,
                    count,
                });
            }
        }
        Ok(())
    }
}
