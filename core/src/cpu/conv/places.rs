//! The places of a convolution: vectors run along them, and each sum is one chain over channels, then taps, in order.
//! Owns the cut and the order of the tiles; the image's copy is `shifted`'s, the arithmetic `tile`'s.

use super::shifted::{Fill, Shifted};
use super::tile::{AHEAD, Strip, WIDEST};
use super::{CHUNK_WORK, CHUNKS, Operand, Units, band, carve, carved, even};
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Element, Micro};
use crate::program::kernel::{Args, Convolution, Executable, RunError};

/// Elements of the largest tile of any instruction set.
const EDGE: usize = 8 * 48;

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
    shifted: Shifted,
    units: Units,
    /// Units of a chunk.
    per: usize,
    work: usize,
    /// Where each term of a sum lies in the kernel and in scratch.
    weights: Vec<i32>,
    terms: Vec<i32>,
    micro: &'static Micro<T>,
}

impl<T: Element> Places<T> {
    pub fn new(convolution: &Convolution, isa: Isa) -> Places<T> {
        let Convolution { items, groups, channels, outputs, axes, reversed, image, other, .. } = convolution;
        let (items, groups, channels, outputs) = (*items, *groups, *channels, *outputs);
        let micro = T::micro(isa);
        let [down, across] = axes;
        let work = convolution.work();
        let wanted = (work / CHUNK_WORK).min(CHUNKS).div_ceil((items * groups).max(1));
        let band = band(down.places, wanted, |rows| {
            Shifted::new(axes, rows, micro.lanes).elements(channels, micro.lanes) * size_of::<T>()
        });
        let shifted = Shifted::new(axes, band, micro.lanes);
        let units = Units::new(groups, down.places, band);
        let per =
            (items * groups * units.bands).div_ceil(CHUNKS).max(CHUNK_WORK / (work / units_of(items, &units)).max(1));
        let (mut weights, mut terms) = (Vec::new(), Vec::new());
        for c in 0..channels {
            for t in 0..down.taps * across.taps {
                let tap = [t / across.taps, t % across.taps];
                let at = |axis: usize, index: usize| index as isize * other.strides[axis];
                weights.push((at(2, c) + at(3, tap[0]) + at(4, tap[1])) as i32);
                let position = if *reversed { [down.taps - 1 - tap[0], across.taps - 1 - tap[1]] } else { tap };
                terms.push(shifted.term(c, position) as i32);
            }
        }
        terms.extend([terms[0]; AHEAD]);
        Places {
            items,
            channels,
            outputs,
            places: down.places * across.places,
            width: across.places,
            image: Operand::new(image, [items, groups, channels, down.stored, across.stored]),
            kernel: Operand::new(other, [groups, outputs, channels, down.taps, across.taps]),
            shifted,
            units,
            per: per.max(1),
            work,
            weights,
            terms,
            micro,
        }
    }

    /// All sums of a unit whose image lies in scratch.
    ///
    /// # Safety
    /// As for `run_chunk`; `out` is the first output's first place of the unit, `count` how many there are.
    unsafe fn sums(&self, image: *const T, kernel: *const T, out: *mut T, count: usize) {
        let Micro { lanes, ref conv, .. } = *self.micro;
        let vectors = count.div_ceil(lanes);
        let panels = vectors.div_ceil(self.micro.vectors());
        let tiles = self.outputs.div_ceil(self.micro.height());
        let row = self.kernel.stride(1);
        let mut edge = [T::ZERO; EDGE];
        let mut j = 0;
        for panel in 0..panels {
            let vectors = even(vectors, panels, panel);
            let width = vectors * lanes;
            let cols = width.min(count - j);
            let mut o = 0;
            for tile in 0..tiles {
                let rows = even(self.outputs, tiles, tile);
                // SAFETY: as our caller promised; `edge` holds the largest tile.
                unsafe {
                    let b: [*const T; WIDEST] = std::array::from_fn(|w| image.wrapping_add(j + w * lanes));
                    let c = out.add(o * self.places + j);
                    let strip = Strip {
                        k: self.weights.len(),
                        a: kernel.offset(o as isize * row),
                        a_row: row,
                        a_at: self.weights.as_ptr(),
                        b,
                        b_at: self.terms.as_ptr(),
                        c,
                        pitch: self.places,
                        add: false,
                    };
                    let sums = conv.strips[vectors - 1][rows - 1];
                    if cols == width {
                        sums(&strip);
                    } else {
                        sums(&Strip { c: edge.as_mut_ptr(), pitch: width, ..strip });
                        for r in 0..rows {
                            let (from, to) = (edge.as_ptr().add(r * width), c.add(r * self.places));
                            (0..cols).for_each(|x| *to.add(x) = *from.add(x));
                        }
                    }
                }
                o += rows;
            }
            j += width;
        }
    }

    fn count(&self) -> usize {
        units_of(self.items, &self.units)
    }
}

/// How many there are.
fn units_of(items: usize, units: &Units) -> usize {
    items * units.groups * units.bands
}

impl<T: Element> Executable for Places<T> {
    fn chunks(&self) -> usize {
        if self.outputs * self.places == 0 { 0 } else { self.count().div_ceil(self.per) }
    }

    fn scratch_bytes(&self) -> usize {
        carved::<isize>(self.shifted.numbers()) + carved::<T>(self.shifted.elements(self.channels, self.micro.lanes))
    }

    fn cost(&self) -> u64 {
        100 + (self.work / 20) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let stride = |axis| self.image.stride(axis);
        for unit in chunk * self.per..((chunk + 1) * self.per).min(self.count()) {
            let (item, group, first, rows) = self.units.of(unit);
            // SAFETY: the layouts stay within the operands, the result is contiguous, and scratch is as large as asked.
            unsafe {
                let (numbers, rest) = carve::<isize>(scratch.as_mut_ptr(), self.shifted.numbers());
                let image = rest.cast::<T>();
                (self.micro.conv.fill)(&mut Fill {
                    shifted: &self.shifted,
                    dst: image,
                    src: self.image.at(args.operands[1], args, [item, group]),
                    strides: [stride(2), stride(3), stride(4)],
                    channels: self.channels,
                    ends: self.image.ends(args.operands[1], args),
                    first,
                    numbers: std::slice::from_raw_parts_mut(numbers, self.shifted.numbers()),
                });
                let kernel = self.kernel.at(args.operands[0], args, [group, 0]);
                let before = (item * self.units.groups + group) * self.outputs * self.places + first * self.width;
                let out = args.operands[2].cast::<T>().add(before);
                self.sums(image, kernel, out, rows * self.width);
            }
        }
        Ok(())
    }
}
