//! Convolutions by kernels of 3 × 3 in f32 with 2¼ times fewer multiplications: F(2 × 2, 3 × 3), Lavin & Gray 2016,
//! arXiv:1509.09308. Sixteen products of kernels' and tiles' elements, each sum a chain over channels in order.
//! Owns when that is taken, the cut and the order of the products; the transforms are `tiles`'.

use super::shifted::{Fill, Shifted};
use super::tile::{AHEAD, Strip, WIDEST};
use super::tiles::{Collect, Constants, Scatter, Spectrum, TILE};
use super::{Operand, carve, carved, even};
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Element, Micro};
use crate::program::kernel::{Args, Convolution, ConvolutionPart, Executable, RunError, Sliding};

/// Channels and outputs from which on the transforms pay off.
const FEWEST: usize = 16;
/// Transformed elements of the tiles of a unit, at most, of each of the sixteen: all lie in a second-level cache.
const MOST: usize = 4096;
/// Chunks, about, at most: each transforms the kernel for itself.
const CHUNKS: usize = 16;
/// −1 and ½.
const CONSTANTS: Constants<f32> = [-1.0, 0.5];

/// A compiled convolution.
#[derive(Debug)]
pub struct Winograd {
    items: usize,
    groups: usize,
    channels: usize,
    outputs: usize,
    rows: usize,
    width: usize,
    image: Operand,
    /// Elements of an image, if they lie in order and images lie side by side.
    beside: usize,
    kernel: Operand,
    /// Where the taps of a kernel lie, by position.
    taps: [isize; 9],
    shifted: Shifted,
    /// Where the elements of a tile lie in scratch.
    elements: [usize; TILE],
    /// Tiles of an item: down and across.
    tiles: [usize; 2],
    /// Items that are computed together, and units of a chunk.
    together: usize,
    per: usize,
    work: usize,
    /// Where each channel lies among the transformed.
    weights: Vec<i32>,
    terms: Vec<i32>,
    micro: &'static Micro<f32>,
}

/// Memory that is needed next: asked for, a part at a time, while products are computed from what is in a cache.
#[derive(Clone, Copy)]
struct Wanted {
    first: *const f32,
    len: usize,
}

impl Wanted {
    /// Asks for one of the parts.
    fn ask(&self, part: usize) {
        let of = |part: usize| self.len * part / TILE;
        (of(part)..of(part + 1)).step_by(LINE).for_each(|i| prefetch(self.first.wrapping_add(i)));
    }
}

/// Elements of a cache line.
const LINE: usize = 16;

/// Asks for the cache line at any address.
#[inline(always)]
fn prefetch(_at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is allowed, and every x86-64 has it.
    unsafe {
        use std::arch::x86_64::*;
        _mm_prefetch::<_MM_HINT_T1>(_at.cast());
    }
}

impl Winograd {
    /// The kernel for a convolution that it is made for.
    pub fn new(convolution: &Convolution, isa: Isa) -> Option<Winograd> {
        let Convolution { items, groups, channels, outputs, axes, reversed, image, other, .. } = convolution;
        let (items, groups, channels, outputs) = (*items, *groups, *channels, *outputs);
        let plain = |axis: &Sliding| [axis.taps, axis.stride, axis.spread, axis.dilation] == [3, 1, 1, 1];
        let tiles = [0, 1].map(|i| axes[i].places.div_ceil(2));
        let count = tiles[0] * tiles[1];
        let suits = convolution.part == ConvolutionPart::Places
            && axes.iter().all(plain)
            && channels >= FEWEST
            && outputs >= FEWEST
            && image.strides[4] == 1;
        if !suits || count < 4 || count * channels > 2 * MOST {
            return None;
        }
        let stored = [channels, axes[0].stored, axes[1].stored];
        let beside = stored.iter().product();
        let in_order = image.strides[..] == [beside, beside, stored[1] * stored[2], stored[2], 1].map(|s| s as isize);
        let micro = f32::micro(isa);
        let most = (MOST / channels / count).max(1);
        let units = items.div_ceil(most).next_multiple_of(2).min(items);
        let together = items.div_ceil(units);
        let units = items.div_ceil(together);
        // A tile is a window of 4 × 4 that steps by 2.
        let windows = [0, 1].map(|i| Sliding { taps: 4, places: tiles[i], stride: 2, ..axes[i] });
        let shifted = Shifted::new(&windows, tiles[0], micro.lanes);
        let elements = std::array::from_fn(|e| shifted.term(0, [e / 4, e % 4]));
        let taps = std::array::from_fn(|p| {
            let tap = [p / 3, p % 3].map(|position| if *reversed { 2 - position } else { position });
            tap[0] as isize * other.strides[3] + tap[1] as isize * other.strides[4]
        });
        let pitch = (together * count).next_multiple_of(micro.lanes) + micro.lanes;
        let mut terms: Vec<i32> = (0..channels).map(|c| (c * pitch) as i32).collect();
        terms.extend([0; AHEAD]);
        Some(Winograd {
            items,
            groups,
            channels,
            outputs,
            rows: axes[0].places,
            width: axes[1].places,
            image: Operand::new(image, [items, groups, channels, axes[0].stored, axes[1].stored]),
            beside: if in_order { beside } else { 0 },
            kernel: Operand::new(other, [groups, outputs, channels, 3, 3]),
            taps,
            shifted,
            elements,
            tiles,
            together,
            per: units.div_ceil(CHUNKS.div_ceil(groups)),
            work: convolution.work(),
            weights: (0..channels as i32).collect(),
            terms,
            micro,
        })
    }

    /// Tiles of an item.
    fn count(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// From channel to channel of the transformed.
    fn pitch(&self) -> usize {
        (self.together * self.count()).next_multiple_of(self.micro.lanes) + self.micro.lanes
    }

    /// From element to element of transformed tiles: a line more than there are, so that they do not compete for the
    /// same places of a cache.
    fn plane(&self) -> usize {
        self.channels * self.pitch() + self.micro.lanes
    }

    /// The same of products.
    fn product(&self) -> usize {
        self.micro.height() * self.pitch() + self.micro.lanes
    }

    /// Chunks of a group.
    fn blocks(&self) -> usize {
        self.items.div_ceil(self.together).div_ceil(self.per)
    }

    /// The parts of scratch, in elements: a laid out image, kernel, tiles and products of some outputs.
    fn parts(&self) -> [usize; 4] {
        let lanes = self.micro.lanes;
        [
            self.shifted.elements(self.channels, lanes) + lanes,
            TILE * self.outputs * self.channels + lanes,
            TILE * self.plane(),
            TILE * self.product(),
        ]
    }

    /// The products of some outputs of all tiles in scratch.
    ///
    /// # Safety
    /// As for `run_chunk`.
    unsafe fn products(
        &self,
        (first, rows): (usize, usize),
        (kernel, tiles): (*const f32, *const f32),
        products: *mut f32,
        count: usize,
        wanted: [Wanted; 2],
    ) {
        let Micro { lanes, ref conv, .. } = *self.micro;
        let pitch = self.pitch();
        let vectors = count.div_ceil(lanes);
        let panels = vectors.div_ceil(self.micro.vectors());
        for element in 0..TILE {
            wanted.iter().for_each(|wanted| wanted.ask(element));
            let mut j = 0;
            for panel in 0..panels {
                let vectors = even(vectors, panels, panel);
                // SAFETY: as our caller promised; rows of tiles are longer than there are vectors.
                unsafe {
                    let tiles = tiles.add(element * self.plane() + j);
                    let b: [*const f32; WIDEST] = std::array::from_fn(|w| tiles.wrapping_add(w * lanes));
                    conv.strips[vectors - 1][rows - 1](&Strip {
                        k: self.channels,
                        a: kernel.add((element * self.outputs + first) * self.channels),
                        a_row: self.channels as isize,
                        a_at: self.weights.as_ptr(),
                        b,
                        b_at: self.terms.as_ptr(),
                        c: products.add(element * self.product() + j),
                        pitch,
                        add: false,
                    });
                }
                j += vectors * lanes;
            }
        }
    }
}

impl Executable for Winograd {
    fn chunks(&self) -> usize {
        self.groups * self.blocks()
    }

    fn scratch_bytes(&self) -> usize {
        carved::<isize>(self.shifted.numbers()) + self.parts().map(carved::<f32>).iter().sum::<usize>()
    }

    fn cost(&self) -> u64 {
        100 + (self.work / 30) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let (group, block) = (chunk / self.blocks(), chunk % self.blocks());
        let stride = |axis| self.image.stride(axis);
        let (conv, pitch, count) = (&self.micro.conv, self.pitch(), self.count());
        let blocks = self.outputs.div_ceil(self.micro.height());
        // SAFETY: the layouts stay within the operands, the result is contiguous, and scratch is as large as asked.
        unsafe {
            let (numbers, rest) = carve::<isize>(scratch.as_mut_ptr(), self.shifted.numbers());
            let [image_size, kernel_size, tiles_size, _] = self.parts();
            let (image, rest) = carve::<f32>(rest, image_size);
            let (kernel, rest) = carve::<f32>(rest, kernel_size);
            let (tiles, rest) = carve::<f32>(rest, tiles_size);
            let products = rest.cast::<f32>();
            (conv.spectrum)(&Spectrum {
                dst: kernel,
                outputs: self.outputs,
                channels: self.channels,
                src: self.kernel.at(args.operands[0], args, [group, 0]),
                steps: (self.kernel.stride(1), self.kernel.stride(2)),
                at: &self.taps,
                constants: &CONSTANTS,
            });
            let first = block * self.per * self.together;
            let last = (first + self.per * self.together).min(self.items);
            for item in (first..last).step_by(self.together) {
                let items = self.together.min(last - item);
                for i in 0..items {
                    (conv.fill)(&mut Fill {
                        shifted: &self.shifted,
                        dst: image,
                        src: self.image.at(args.operands[1], args, [item + i, group]),
                        strides: [stride(2), stride(3), stride(4)],
                        channels: self.channels,
                        ends: self.image.ends(args.operands[1], args),
                        first: 0,
                        numbers: std::slice::from_raw_parts_mut(numbers, self.shifted.numbers()),
                    });
                    (conv.scatter)(&Scatter {
                        dst: tiles.add(i * count),
                        pitch,
                        plane: self.plane(),
                        src: image,
                        channel: self.shifted.term(1, [0, 0]),
                        at: &self.elements,
                        channels: self.channels,
                        tiles: count,
                        constants: &CONSTANTS,
                    });
                }
                let mut o = 0;
                for number in 0..blocks {
                    let rows = even(self.outputs, blocks, number);
                    let places = self.rows * self.width;
                    let out = (item * self.groups + group) * self.outputs + o;
                    let result = Wanted {
                        first: args.operands[2].cast::<f32>().add(out * places),
                        len: if items == 1 { rows * places } else { 0 },
                    };
                    // The next images, if they lie in order: a part for each block of outputs.
                    let next = self.together.min(last - item - items) * self.beside;
                    let from = self.image.at::<f32>(args.operands[1], args, [item, group]);
                    let from = from.wrapping_offset(items as isize * stride(0)).wrapping_add(next * number / blocks);
                    let image = Wanted { first: from, len: next / blocks };
                    self.products((o, rows), (kernel, tiles), products, items * count, [result, image]);
                    for i in 0..items {
                        let places = self.rows * self.width;
                        let before = (((item + i) * self.groups + group) * self.outputs + o) * places;
                        (conv.collect)(&Collect {
                            dst: args.operands[2].cast::<f32>().add(before),
                            output: places,
                            rows: self.rows,
                            width: self.width,
                            src: products.add(i * count),
                            product: self.product(),
                            pitch,
                            outputs: rows,
                            across: self.tiles[1],
                            tiles: count,
                            constants: &CONSTANTS,
                        });
                    }
                    o += rows;
                }
            }
        }
        Ok(())
    }
}
