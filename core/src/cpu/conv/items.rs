//! The places of a convolution of many small images: vectors run along images, so that neither the number of places
//! nor their order matters; each sum is one chain over channels, then taps, in order.
//! Owns the cut and the order of the tiles; how images become lanes is `lanes`', the arithmetic `tile`'s.

use super::lanes::{Enter, Frame, Leave};
use super::phase::Phases;
use super::tile::{AHEAD, Strip, WIDEST};
use super::{Ahead, CHUNK_WORK, CHUNKS, Operand, carve, carved, even};
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Element, Micro};
use crate::program::kernel::{Args, Convolution, Executable, RunError};

/// Bytes of images and sums in scratch, at most: they stay in the second-level cache.
const SCRATCH: usize = 640 << 10;

/// A compiled convolution.
#[derive(Debug)]
pub struct ByItems<T: 'static> {
    items: usize,
    groups: usize,
    channels: usize,
    outputs: usize,
    /// Places of an image.
    places: usize,
    image: Operand,
    kernel: Operand,
    frame: Frame,
    /// Of the image as it is stored.
    stored: [usize; 2],
    /// Parts of a block's outputs that are units of their own.
    cuts: usize,
    /// Units of a chunk.
    per: usize,
    work: usize,
    parts: Vec<Part>,
    /// Where each output's place lies among a block's sums, in elements.
    leaves: Vec<i32>,
    micro: &'static Micro<T>,
}

/// Places that see the same taps.
#[derive(Debug)]
struct Part {
    /// Where each place begins in scratch.
    places: Vec<i32>,
    /// Where each term of a sum lies in the kernel and in scratch.
    weights: Vec<i32>,
    terms: Vec<i32>,
}

impl<T: Element> ByItems<T> {
    /// `None` if there are too few images for a vector, or too much of each for a cache.
    pub fn new(convolution: &Convolution, isa: Isa) -> Option<ByItems<T>> {
        let Convolution { items, groups, channels, outputs, axes, reversed, image, other, .. } = convolution;
        let (items, groups, channels, outputs) = (*items, *groups, *channels, *outputs);
        let micro = T::micro(isa);
        let lanes = micro.lanes;
        let [down, across] = axes;
        let stored = [down.stored, across.stored];
        let places = down.places * across.places;
        let blocks = items.div_ceil(lanes);
        let phases = [0, 1].map(|i| Phases::new(&axes[i]));
        let whole = [0, 1].map(|i| phases[i].axis);
        let frame_of = [0, 1].map(|i| whole[i].framed);
        let bytes = (channels * frame_of[0] * frame_of[1] + outputs * places) * lanes * size_of::<T>();
        if 4 * items < 3 * blocks * lanes || bytes > SCRATCH || places == 0 {
            return None;
        }
        let frame = Frame::new(&whole, channels, lanes);
        let counts = [0, 1].map(|i| phases[i].parts.len());
        let at = |axis: usize, index: usize| index as isize * other.strides[axis];
        let mut sums = vec![0; places];
        let (mut parts, mut count) = (Vec::new(), 0);
        for number in (0..counts[0] * counts[1]).map(|i| [i / counts[1], i % counts[1]]) {
            let part = [0, 1].map(|i| &phases[i].parts[number[i]]);
            let (mut weights, mut terms, mut begins) = (Vec::new(), Vec::new(), Vec::new());
            for (c, t) in (0..channels).flat_map(|c| (0..down.taps * across.taps).map(move |t| (c, t))) {
                let tap = [t / across.taps, t % across.taps];
                let seen = |i: usize| {
                    let position = if *reversed { axes[i].taps - 1 - tap[i] } else { tap[i] };
                    phases[i].tap(number[i], position).map(|tap| tap * whole[i].dilation)
                };
                if let Some((y, x)) = seen(0).zip(seen(1)) {
                    weights.push((at(2, c) + at(3, tap[0]) + at(4, tap[1])) as i32);
                    terms.push(frame.at(c, [y, x]) as i32);
                }
            }
            terms.extend([terms.first().copied().unwrap_or(0); AHEAD]);
            let [rows, width] = part.map(|phase| phase.axis.places);
            for (y, x) in (0..rows).flat_map(|y| (0..width).map(move |x| (y, x))) {
                begins.push(frame.at(0, [y * whole[0].stride, x * whole[1].stride]) as i32);
                sums[(y * counts[0] + number[0]) * across.places + x * counts[1] + number[1]] = count;
                count += 1;
            }
            parts.push(Part { places: begins, weights, terms });
        }
        let leaves = (0..outputs * places).map(|i| ((i / places * places + sums[i % places]) * lanes) as i32);
        let work = convolution.work() / (counts[0] * counts[1]);
        let wanted = (work / CHUNK_WORK).min(CHUNKS / 2).div_ceil((blocks * groups).max(1));
        let cuts = wanted.clamp(1, outputs.div_ceil(micro.height()).max(1));
        Some(ByItems {
            items,
            groups,
            channels,
            outputs,
            places,
            image: Operand::new(image, [items, groups, channels, down.stored, across.stored]),
            kernel: Operand::new(other, [groups, outputs, channels, down.taps, across.taps]),
            frame,
            stored,
            cuts,
            per: (blocks * groups * cuts).div_ceil(CHUNKS).max(1),
            work,
            parts,
            leaves: leaves.collect(),
            micro,
        })
    }

    /// Units in all: blocks of as many images as a vector has lanes, groups, parts of the outputs.
    fn count(&self) -> usize {
        self.items.div_ceil(self.micro.lanes) * self.groups * self.cuts
    }

    /// First item and how many, group, first output and how many.
    fn unit(&self, unit: usize) -> ([usize; 2], usize, [usize; 2]) {
        let (rest, cut) = (unit / self.cuts, unit % self.cuts);
        let (block, group) = (rest / self.groups, rest % self.groups);
        let first = block * self.micro.lanes;
        let outputs = (0..cut).map(|cut| even(self.outputs, self.cuts, cut)).sum();
        let items = self.micro.lanes.min(self.items - first);
        ([first, items], group, [outputs, even(self.outputs, self.cuts, cut)])
    }

    /// What is asked for while a unit is computed, and elements of a piece of each: where its results will go, and the
    /// images of the next unit that has others.
    ///
    /// # Safety
    /// As for `run_chunk`; `out` is the first result.
    unsafe fn ahead(&self, args: &Args<'_>, unit: usize, out: *const T) -> [(Ahead<T>, usize); 2] {
        let (_, _, [_, outputs]) = self.unit(unit);
        let panels = |part: &Part| part.places.len().div_ceil(self.micro.vectors());
        let turns = self.parts.iter().map(panels).sum::<usize>() * outputs.div_ceil(self.micro.height());
        let out = Ahead {
            at: out,
            step: self.pitch() as isize,
            runs: self.unit(unit).0[1],
            run: outputs * self.places,
            done: 0,
        };
        let next = (unit / self.cuts + 1) * self.cuts;
        let mut images = Ahead::NONE;
        if next < self.count() {
            let ([item, items], group, _) = self.unit(next);
            let (image, [rows, width]) = ((args.operands[1], [item, group]), self.stored);
            // SAFETY: as our caller promised.
            images = unsafe { self.image.ahead(image, args, [items, self.channels], (0..rows, width)) };
        }
        [out, images].map(|ahead| (ahead, ahead.piece(turns / 2)))
    }

    /// Results of an image.
    fn pitch(&self) -> usize {
        self.groups * self.outputs * self.places
    }

    /// About how many cycles all of it takes, as measured.
    pub fn cycles(&self) -> usize {
        let lanes = self.micro.lanes;
        let products = self.parts.iter().map(|part| part.weights.len() * part.places.len()).sum::<usize>() / 2;
        let moved = self.channels * self.stored[0] * self.stored[1] + self.outputs * self.places;
        self.items.div_ceil(lanes) * self.groups * (self.outputs * products + 10 * moved)
    }

    /// All sums of so many outputs, of images in scratch.
    ///
    /// # Safety
    /// As for `run_chunk`; `kernel` is that of the first output.
    unsafe fn sums(
        &self,
        (image, kernel): (*const T, *const T),
        (sums, outputs): (*mut T, usize),
        ahead: &mut [(Ahead<T>, usize); 2],
    ) {
        let Micro { lanes, ref conv, .. } = *self.micro;
        let (tiles, row) = (outputs.div_ceil(self.micro.height()), self.kernel.stride(1));
        let mut first = 0;
        for part in &self.parts {
            let (k, panels) = (part.weights.len(), part.places.len().div_ceil(self.micro.vectors()));
            let mut j = 0;
            for panel in 0..panels {
                let vectors = even(part.places.len(), panels, panel);
                let begin = |w: usize| image.wrapping_add(part.places[(j + w).min(part.places.len() - 1)] as usize);
                let b: [*const T; WIDEST] = std::array::from_fn(begin);
                let mut o = 0;
                for tile in 0..tiles {
                    let rows = even(outputs, tiles, tile);
                    let piece =
                        |(ahead, piece): &mut (Ahead<T>, usize)| Some((ahead.next(*piece)?, piece.div_ceil(k.max(1))));
                    let next = ahead.iter_mut().find_map(piece);
                    // SAFETY: as our caller promised.
                    unsafe {
                        let a = kernel.offset(o as isize * row);
                        let c = sums.add((o * self.places + first + j) * lanes);
                        conv.strips[vectors - 1][rows - 1](&Strip {
                            k,
                            a,
                            a_row: row,
                            a_at: part.weights.as_ptr(),
                            b,
                            b_at: part.terms.as_ptr(),
                            c,
                            pitch: self.places * lanes,
                            add: false,
                            result: (c.cast_const(), self.places * lanes),
                            next: next.unwrap_or((a, 0)),
                        });
                    }
                    o += rows;
                }
                j += vectors;
            }
            first += part.places.len();
        }
    }
}

impl<T: Element> Executable for ByItems<T> {
    fn chunks(&self) -> usize {
        if self.outputs == 0 { 0 } else { self.count().div_ceil(self.per) }
    }

    fn scratch_bytes(&self) -> usize {
        let lanes = self.micro.lanes;
        let sums = self.outputs.div_ceil(self.cuts) * self.places * lanes;
        carved::<T>(self.frame.elements()) + carved::<T>(lanes * lanes) + carved::<T>(sums)
    }

    fn cost(&self) -> u64 {
        100 + (self.work / 20) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let lanes = self.micro.lanes;
        let units = chunk * self.per..((chunk + 1) * self.per).min(self.count());
        for unit in units.clone() {
            let ([item, items], group, [first, outputs]) = self.unit(unit);
            // SAFETY: the layouts stay within the operands, the result is contiguous, and scratch is as large as asked.
            unsafe {
                let (image, rest) = carve::<T>(scratch.as_mut_ptr(), self.frame.elements());
                let (square, rest) = carve::<T>(rest, lanes * lanes);
                let sums = rest.cast::<T>();
                if unit == units.start || unit.is_multiple_of(self.cuts) {
                    (self.micro.conv.enter)(&Enter {
                        frame: &self.frame,
                        dst: image,
                        square,
                        framed: unit > units.start,
                        src: self.image.at(args.operands[1], args, [item, group]),
                        strides: [0, 2, 3, 4].map(|axis| self.image.stride(axis)),
                        items,
                    });
                }
                let kernel = self.kernel.at::<T>(args.operands[0], args, [group, first]);
                let (pitch, before) = (self.pitch(), (group * self.outputs + first) * self.places);
                let out = args.operands[2].cast::<T>().add(item * pitch + before);
                self.sums((image, kernel), (sums, outputs), &mut self.ahead(args, unit, out));
                (self.micro.conv.leave)(&Leave {
                    src: sums,
                    at: &self.leaves[..outputs * self.places],
                    square,
                    dst: out,
                    pitch,
                    items,
                });
            }
        }
        Ok(())
    }
}
