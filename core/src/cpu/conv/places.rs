//! The places of a convolution: vectors run along them, and each sum is one chain over channels, then taps, in order.
//! Owns the cut and the order of the tiles; the image's copy is `shifted`'s, the arithmetic `tile`'s.
//!
//! An image whose elements are spread among zeros, as in the gradient of a convolution with a stride, is never laid out
//! so: places that lie a spread apart see the same taps, and each such part is a convolution of the image as it is.

use super::phase::{Weave, phase};
use super::shifted::Shifted;
use super::tile::{AHEAD, Strip, WIDEST};
use super::{CHUNK_WORK, CHUNKS, Operand, Units, band, carve, carved, even};
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Element, Micro};
use crate::cpu::vector::{Call, Primitive, select};
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
    units: Units,
    /// Units of a chunk.
    per: usize,
    work: usize,
    /// The places in parts, along both axes, that see the same taps: one part if nothing is spread.
    spread: [usize; 2],
    parts: Vec<Part>,
    weave: Primitive,
    micro: &'static Micro<T>,
}

/// Places that see the same taps.
#[derive(Debug)]
struct Part {
    shifted: Shifted,
    /// Rows and columns of places.
    rows: usize,
    width: usize,
    /// Where each term of a sum lies in the kernel and in scratch.
    weights: Vec<i32>,
    terms: Vec<i32>,
}

impl Part {
    /// Those at these phases, in bands of so many rows.
    fn new(convolution: &Convolution, phases: [usize; 2], rows: Option<usize>, lanes: usize) -> Part {
        let Convolution { channels, axes, reversed, other, .. } = convolution;
        let [down, across] = [0, 1].map(|i| phase(&axes[i], phases[i]));
        let sliding = [down.axis, across.axis];
        let shifted = Shifted::new(&sliding, rows.unwrap_or(sliding[0].places), lanes);
        let (mut weights, mut terms) = (Vec::new(), Vec::new());
        let at = |axis: usize, index: usize| index as isize * other.strides[axis];
        for c in 0..*channels {
            for t in 0..axes[0].taps * axes[1].taps {
                let tap = [t / axes[1].taps, t % axes[1].taps];
                let position = |i: usize| if *reversed { axes[i].taps - 1 - tap[i] } else { tap[i] };
                if let Some((y, x)) = down.tap(position(0)).zip(across.tap(position(1))) {
                    weights.push((at(2, c) + at(3, tap[0]) + at(4, tap[1])) as i32);
                    terms.push(shifted.term(c, [y, x]) as i32);
                }
            }
        }
        terms.extend([terms.first().copied().unwrap_or(0); AHEAD]);
        Part { shifted, rows: sliding[0].places, width: sliding[1].places, weights, terms }
    }
}

impl<T: Element> Places<T> {
    pub fn new(convolution: &Convolution, isa: Isa) -> Places<T> {
        let Convolution { items, groups, channels, outputs, axes, image, other, .. } = convolution;
        let (items, groups, channels, outputs) = (*items, *groups, *channels, *outputs);
        let micro = T::micro(isa);
        let [down, across] = axes;
        let spread = [0, 1].map(|i| if axes[i].stride == 1 { axes[i].spread } else { 1 });
        let in_phases = spread != [1, 1];
        let work = convolution.work() / (spread[0] * spread[1]);
        let wanted = (work / CHUNK_WORK).min(CHUNKS).div_ceil((items * groups).max(1));
        let band = match in_phases {
            true => down.places,
            false => band(down.places, wanted, |rows| {
                Shifted::new(axes, rows, micro.lanes).elements(channels, micro.lanes) * size_of::<T>()
            }),
        };
        let units = Units::new(groups, down.places, band);
        let count = items * groups * units.bands;
        let per = count.div_ceil(CHUNKS).max(CHUNK_WORK / (work / count.max(1)).max(1));
        let parts = match in_phases {
            true => (0..spread[0] * spread[1])
                .map(|i| Part::new(convolution, [i / spread[1], i % spread[1]], None, micro.lanes))
                .collect(),
            false => vec![Part::new(convolution, [0, 0], Some(band), micro.lanes)],
        };
        Places {
            items,
            channels,
            outputs,
            places: down.places * across.places,
            width: across.places,
            image: Operand::new(image, [items, groups, channels, down.stored, across.stored]),
            kernel: Operand::new(other, [groups, outputs, channels, down.taps, across.taps]),
            units,
            per: per.max(1),
            work,
            spread,
            parts,
            weave: select::<Weave<T>>(isa),
            micro,
        }
    }

    /// All sums of a part's places whose image lies in scratch, to rows of `pitch`.
    ///
    /// # Safety
    /// As for `run_chunk`; `out` is the first output's first place, `count` how many there are.
    unsafe fn sums(&self, part: &Part, (image, kernel): (*const T, *const T), out: *mut T, pitch: usize, count: usize) {
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
                    let c = out.add(o * pitch + j);
                    let strip = Strip {
                        k: part.weights.len(),
                        a: kernel.offset(o as isize * row),
                        a_row: row,
                        a_at: part.weights.as_ptr(),
                        b,
                        b_at: part.terms.as_ptr(),
                        c,
                        pitch,
                        add: false,
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

    /// Units in all.
    fn count(&self) -> usize {
        self.items * self.units.groups * self.units.bands
    }

    /// The largest of what each part needs.
    fn most(&self, of: impl Fn(&Part) -> usize) -> usize {
        self.parts.iter().map(of).max().unwrap_or(0)
    }

    fn numbers(&self) -> usize {
        self.most(|part| part.shifted.numbers())
    }

    fn elements(&self) -> usize {
        self.most(|part| part.shifted.elements(self.channels, self.micro.lanes))
    }

    /// Places of a part, at most.
    fn part_places(&self) -> usize {
        self.most(|part| part.rows * part.width)
    }

    /// Parts that lie beside each other within a row; their sums wait in scratch. 0: sums go where they belong.
    fn beside(&self) -> usize {
        if self.spread == [1, 1] { 0 } else { self.spread[1] }
    }
}

impl<T: Element> Executable for Places<T> {
    fn chunks(&self) -> usize {
        if self.outputs * self.places == 0 { 0 } else { self.count().div_ceil(self.per) }
    }

    fn scratch_bytes(&self) -> usize {
        let waiting = self.beside() * self.outputs * self.part_places();
        carved::<isize>(self.numbers()) + carved::<T>(self.elements()) + carved::<T>(waiting)
    }

    fn cost(&self) -> u64 {
        100 + (self.work / 20) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        for unit in chunk * self.per..((chunk + 1) * self.per).min(self.count()) {
            let (item, group, first, rows) = self.units.of(unit);
            // SAFETY: the layouts stay within the operands, the result is contiguous, and scratch is as large as asked.
            unsafe {
                let (numbers, rest) = carve::<isize>(scratch.as_mut_ptr(), self.numbers());
                let (image, rest) = carve::<T>(rest, self.elements());
                let waiting = rest.cast::<T>();
                let kernel = self.kernel.at(args.operands[0], args, [group, 0]);
                let before = (item * self.units.groups + group) * self.outputs * self.places;
                let out = args.operands[2].cast::<T>().add(before);
                for (number, part) in self.parts.iter().enumerate() {
                    let numbers = std::slice::from_raw_parts_mut(numbers, part.shifted.numbers());
                    let at = (image, [item, group], first);
                    (self.micro.conv.fill)(&mut self.image.fill(&part.shifted, args, self.channels, at, numbers));
                    let operands = (image.cast_const(), kernel);
                    if self.beside() == 0 {
                        self.sums(part, operands, out.add(first * self.width), self.places, rows * self.width);
                        continue;
                    }
                    let (y, x) = (number / self.spread[1], number % self.spread[1]);
                    let pitch = part.rows * part.width;
                    let apart = self.outputs * self.part_places();
                    self.sums(part, operands, waiting.add(x * apart), pitch, pitch);
                    if x + 1 < self.spread[1] {
                        continue;
                    }
                    for (o, row) in (0..self.outputs).flat_map(|o| (0..part.rows).map(move |row| (o, row))) {
                        let dst = out.add(o * self.places + (y + row * self.spread[0]) * self.width);
                        // Parts of a row have as many rows; the first are as wide as the last or one place wider.
                        let widths = &self.parts[number + 1 - self.spread[1]..=number];
                        let row_of = |x: usize| waiting.add(x * apart + (o * part.rows + row) * widths[x].width);
                        if let [a, b] = widths {
                            let src = [row_of(0).cast::<u8>().cast_const(), row_of(1).cast(), std::ptr::null()];
                            let call = Call { dst: dst.cast(), src, step: [0; 3], rows: a.width, cols: b.width };
                            (self.weave)(&call);
                            continue;
                        }
                        for (x, part) in widths.iter().enumerate() {
                            let from = row_of(x);
                            (0..part.width).for_each(|i| *dst.add(x + i * self.spread[1]) = *from.add(i));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
