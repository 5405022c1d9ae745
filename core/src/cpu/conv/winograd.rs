//! The places of a convolution of three taps a row by minimal filtering: two thirds of the multiplications. Vectors run
//! along pairs of places, and each component's sum is one chain over channels, then rows of taps, in order.
//! Owns the cut and the order of the tiles; the image's copy and what becomes of the components are `paired`'s, the
//! sums `tile`'s.

use std::marker::PhantomData;

use tapeflow_ir::DType;

use super::paired::{COMPONENTS, Join, Pair, Paired};
use super::tile::{AHEAD, Strip, WIDEST};
use super::{Ahead, CHUNK_WORK, CHUNKS, Operand, Units, band, carve, carved, even, seen};
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Micro, Number};
use crate::cpu::vector::{Body, Call, Primitive, select};
use crate::program::kernel::{Args, Convolution, Executable, RunError, Sliding};

/// Rows of taps of all channels, and outputs, at least.
const LEAST_ROWS: usize = 24;
const LEAST_OUTPUTS: usize = 8;

/// Whether a convolution is computed so. Its rows of taps must be worth laying out pairs, and places must fill vectors
/// of pairs; how many images there are and how they lie in memory changes nothing, so that results do not depend on it.
pub fn suits(convolution: &Convolution, isa: Isa) -> bool {
    let Convolution { dtype, axes: [down, across], channels, outputs, is_minimal, .. } = convolution;
    let lanes = match isa.vectors() {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        _ => return false,
    };
    let vectors = (down.places * across.places).div_ceil(lanes);
    let of_pairs = (down.places * across.places.div_ceil(2)).div_ceil(lanes);
    let is_wide = of_pairs >= 2 && 5 * of_pairs <= 3 * vectors;
    *is_minimal && *dtype == DType::F32 && channels * down.taps >= LEAST_ROWS && *outputs >= LEAST_OUTPUTS && is_wide
}

/// A compiled convolution.
#[derive(Debug)]
pub struct Winograd<T: 'static> {
    items: usize,
    channels: usize,
    outputs: usize,
    /// Places of all rows, and of one.
    places: usize,
    width: usize,
    axes: [Sliding; 2],
    image: Operand,
    paired: Paired,
    units: Units,
    /// Units of a chunk.
    per: usize,
    work: usize,
    filters: Filters,
    /// Where each term of a sum lies in a component of the kernel and of the image.
    weights: Vec<i32>,
    terms: Vec<i32>,
    micro: &'static Micro<T>,
}

impl<T: Number> Winograd<T> {
    pub fn new(convolution: &Convolution, isa: Isa) -> Winograd<T> {
        let Convolution { items, groups, channels, outputs, axes, reversed, image, .. } = convolution;
        let (items, groups, channels, outputs) = (*items, *groups, *channels, *outputs);
        let micro = T::micro(isa);
        let [down, across] = axes;
        let work = convolution.work();
        let wanted = (work / CHUNK_WORK).min(CHUNKS).div_ceil((items * groups).max(1));
        let strides = [image.strides[3], image.strides[4]];
        let paired = |rows: usize| Paired::new(axes, rows, strides, micro.lanes);
        let band = band(down.places, wanted, |rows| paired(rows).elements(channels) * size_of::<T>());
        let (paired, units) = (paired(band), Units::new(groups, down.places, band));
        let count = items * groups * units.bands;
        let per = count.div_ceil(CHUNKS).max(CHUNK_WORK / (work / count.max(1)).max(1));
        let filters = Filters::new::<T>(convolution, isa);
        let rows = || (0..channels).flat_map(|c| (0..down.taps).map(move |t| (c, t)));
        let weights = rows().map(|(c, t)| (c * filters.steps[2] + t * filters.steps[3]) as i32).collect();
        let position = |t: usize| if *reversed { down.taps - 1 - t } else { t };
        let mut terms: Vec<i32> = rows().map(|(c, t)| paired.term(c, position(t)) as i32).collect();
        terms.extend([0; AHEAD]);
        Winograd {
            items,
            channels,
            outputs,
            places: down.places * across.places,
            width: across.places,
            axes: *axes,
            image: Operand::new(image, [items, groups, channels, down.stored, across.stored]),
            paired,
            units,
            per: per.max(1),
            work,
            filters,
            weights,
            terms,
            micro,
        }
    }

    /// Units in all.
    fn count(&self) -> usize {
        self.items * self.units.groups * self.units.bands
    }

    /// All sums of pairs whose image lies in scratch.
    ///
    /// # Safety
    /// As for `run_chunk`; `out` is the first output's first place, `count` how many pairs there are.
    unsafe fn sums(
        &self,
        (image, filters): (*const T, *const T),
        sums: *mut T,
        (out, count): (*mut T, usize),
        mut ahead: (Ahead<T>, usize),
    ) {
        let Micro { lanes, ref conv, .. } = *self.micro;
        let vectors = count.div_ceil(lanes);
        let panels = vectors.div_ceil(self.micro.vectors());
        let tiles = self.outputs.div_ceil(self.micro.height());
        let (k, row) = (self.weights.len(), self.filters.steps[1]);
        let mut j = 0;
        for panel in 0..panels {
            let vectors = even(vectors, panels, panel);
            let width = vectors * lanes;
            let component = self.outputs * width;
            for m in 0..COMPONENTS {
                let first = image.wrapping_add(m * self.paired.component + j);
                let b: [*const T; WIDEST] = std::array::from_fn(|w| first.wrapping_add(w * lanes));
                let mut o = 0;
                for tile in 0..tiles {
                    let rows = even(self.outputs, tiles, tile);
                    // SAFETY: as our caller promised.
                    unsafe {
                        let a = filters.add(m * self.filters.rows + o * row);
                        let c = sums.add(m * component + o * width);
                        // The last two components ask for the places, a half each.
                        let places = out.wrapping_add(o * self.places + 2 * j);
                        let result = match m {
                            2 | 3 => (places.wrapping_add((m - 2) * width).cast_const(), self.places),
                            _ => (c.cast_const(), width),
                        };
                        let next = ahead.0.next(ahead.1).map(|at| (at, ahead.1.div_ceil(k)));
                        conv.strips[vectors - 1][rows - 1](&Strip {
                            k,
                            a,
                            a_row: row as isize,
                            a_at: self.weights.as_ptr(),
                            b,
                            b_at: self.terms.as_ptr(),
                            c,
                            pitch: width,
                            add: false,
                            result,
                            next: next.unwrap_or((a, 0)),
                        });
                    }
                    o += rows;
                }
            }
            // SAFETY: as our caller promised.
            unsafe {
                (conv.join)(&Join {
                    sums,
                    component,
                    pitch: width,
                    rows: self.outputs,
                    first: j,
                    pairs: width.min(count - j),
                    width: self.width,
                    dst: out,
                    dst_pitch: self.places,
                });
            }
            j += width;
        }
    }

    /// The image of the next unit, which is asked for while a unit is computed, and elements of a piece of it.
    ///
    /// # Safety
    /// As for `run_chunk`.
    unsafe fn ahead(&self, args: &Args<'_>, unit: usize) -> (Ahead<T>, usize) {
        if unit + 1 >= self.count() {
            return (Ahead::NONE, 0);
        }
        let (item, group, first, rows) = self.units.of(unit + 1);
        let [down, across] = &self.axes;
        let (image, rows) = ((args.operands[1], [item, group]), (seen(down, (first, rows)), across.stored));
        // SAFETY: as our caller promised.
        let next = unsafe { self.image.ahead(image, args, [1, self.channels], rows) };
        let panels = (self.units.band * self.paired.pairs).div_ceil(self.micro.width());
        (next, next.piece(panels * COMPONENTS * self.outputs.div_ceil(self.micro.height())))
    }
}

impl<T: Number> Executable for Winograd<T> {
    fn chunks(&self) -> usize {
        if self.outputs * self.places == 0 { 0 } else { self.count().div_ceil(self.per) }
    }

    fn scratch_bytes(&self) -> usize {
        let sums = COMPONENTS * self.outputs * self.micro.width();
        carved::<T>(self.paired.elements(self.channels)) + carved::<T>(sums)
    }

    fn partial_bytes(&self) -> usize {
        COMPONENTS * self.filters.rows * size_of::<T>()
    }

    fn cost(&self) -> u64 {
        100 + (self.work / 28) as u64
    }

    fn has_prepare(&self) -> bool {
        true
    }

    unsafe fn prepare(&self, args: &Args<'_>) {
        // SAFETY: the kernel is as the layout says, and there is room for its components.
        unsafe { self.filters.prepare::<T>(args) }
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        for unit in chunk * self.per..((chunk + 1) * self.per).min(self.count()) {
            let (item, group, first, rows) = self.units.of(unit);
            // SAFETY: the layouts stay within the operands, the result is contiguous, scratch is as large as asked, and
            // the kernel's components are there.
            unsafe {
                let (image, rest) = carve::<T>(scratch.as_mut_ptr(), self.paired.elements(self.channels));
                let filters = args.partial.cast::<T>().add(group * self.filters.steps[0]);
                let before = (item * self.units.groups + group) * self.outputs * self.places;
                let out = args.operands[2].cast::<T>().add(before + first * self.width);
                (self.micro.conv.pair)(&Pair {
                    paired: &self.paired,
                    dst: image,
                    src: self.image.at(args.operands[1], args, [item, group]),
                    strides: [2, 3, 4].map(|axis| self.image.stride(axis)),
                    channels: self.channels,
                    first,
                });
                let (pairs, ahead) = (rows * self.paired.pairs, self.ahead(args, unit));
                self.sums((image, filters), rest.cast(), (out, pairs), ahead);
            }
        }
        Ok(())
    }
}

/// How the components of a kernel's rows of taps are made and where they lie.
#[derive(Debug)]
struct Filters {
    kernel: Operand,
    /// Rows of taps, and along the four axes how many there are.
    rows: usize,
    extents: [usize; 4],
    /// From row to row of a component along these axes. As in memory where rows lie there one behind the other.
    steps: [usize; 4],
    /// Whether they do, and how such rows are taken.
    is_dense: bool,
    make: Primitive,
}

impl Filters {
    fn new<T: Number>(convolution: &Convolution, isa: Isa) -> Filters {
        let Convolution { groups, outputs, channels, axes: [down, across], reversed, other, .. } = convolution;
        let extents = [*groups, *outputs, *channels, down.taps];
        let step = |axis: usize| if extents[axis] == 1 { 0 } else { other.strides[axis] };
        let mut order = [0, 1, 2, 3];
        order.sort_unstable_by_key(|&axis| step(axis));
        let mut behind = across.taps as isize;
        let mut is_dense = other.strides[4] == 1;
        for axis in order.into_iter().filter(|&axis| extents[axis] > 1) {
            is_dense &= step(axis) == behind;
            behind *= extents[axis] as isize;
        }
        let steps = match is_dense {
            true => std::array::from_fn(|axis| step(axis) as usize / across.taps),
            false => std::array::from_fn(|axis| extents[axis + 1..].iter().product()),
        };
        Filters {
            kernel: Operand::new(other, [*groups, *outputs, *channels, down.taps, across.taps]),
            rows: extents.iter().product(),
            extents,
            steps,
            is_dense,
            make: if *reversed { select::<Make<T, true>>(isa) } else { select::<Make<T, false>>(isa) },
        }
    }

    /// Makes the components.
    ///
    /// # Safety
    /// The kernel is as the layout says, and there is room for them.
    unsafe fn prepare<T: Number>(&self, args: &Args<'_>) {
        // SAFETY: as our caller promised.
        unsafe {
            let first = self.kernel.at::<T>(args.operands[0], args, [0; 2]);
            let call = |dst: *mut T, src: [*const T; 3], cols: usize| Call {
                dst: dst.cast(),
                src: src.map(<*const T>::cast),
                step: [0, self.rows, 0],
                rows: 1,
                cols,
            };
            let dst = args.partial.cast::<T>();
            if self.is_dense {
                return (self.make)(&call(dst, [0, 1, 2].map(|tap| first.add(tap)), self.rows));
            }
            for row in 0..self.rows {
                let (mut at, mut left) = (first, row);
                for (axis, extent) in self.extents.into_iter().enumerate().rev() {
                    at = at.offset((left % extent) as isize * self.kernel.stride(axis));
                    left /= extent;
                }
                let taps = [0, 1, 2].map(|tap| at.offset(tap * self.kernel.stride(4)));
                (self.make)(&call(dst.add(row), taps, 1));
            }
        }
    }
}

/// Makes the components of `cols` rows of taps that lie one behind the other: `src` are the first row's taps, `step[1]`
/// is from component to component.
struct Make<T, const REVERSED: bool>(PhantomData<T>);

impl<T: Number, const REVERSED: bool> Body for Make<T, REVERSED> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        let (dst, src, [_, pitch, _]) = (call.dst.cast::<T>(), call.src.map(|src| src.cast::<T>()), call.step);
        let (first, last) = if REVERSED { (src[2], src[0]) } else { (src[0], src[2]) };
        for i in 0..call.cols {
            // SAFETY: as our caller promised; rows lie three elements apart.
            unsafe {
                let (a, b, c) = (*first.add(3 * i), *src[1].add(3 * i), *last.add(3 * i));
                let (sum, b) = (a.plus(c).times(T::HALF), b.times(T::HALF));
                *dst.add(i) = a;
                *dst.add(pitch + i) = sum.plus(b);
                *dst.add(2 * pitch + i) = sum.minus(b);
                *dst.add(3 * pitch + i) = c;
            }
        }
    }
}
