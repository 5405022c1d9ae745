//! Convolutions of images: kernels that read their terms straight from a copy of the image in scratch, which a cache
//! holds, and no matrix of windows.
//!
//! Owns which kernel computes what, where the operands lie and how places are cut into bands; knows no arithmetic.

mod channels;
mod items;
pub mod lanes;
mod lines;
pub mod paired;
mod pairs;
pub mod phase;
pub mod pixels;
mod places;
pub mod shifted;
pub mod tile;
mod winograd;

use std::ops::Range;
use std::sync::Arc;

use tapeflow_ir::DType;

use super::CompileError;
use super::isa::Isa;
use super::micro::Number;
use crate::program::kernel::{Args, Convolution, ConvolutionPart, Executable, Layout, Sliding};
use channels::ByChannels;
use items::ByItems;
use lines::ByLines;
use pairs::ByPairs;
use places::Places;
use shifted::{Fill, Shifted};
use winograd::Winograd;

/// Bytes of the copy of an image in scratch, about, at most: part of a second-level cache.
const SCRATCH: usize = 384 << 10;
/// Multiplications that are worth a chunk of their own.
const CHUNK_WORK: usize = 1 << 20;
/// Chunks, about, at most.
const CHUNKS: usize = 32;

/// Compiles a convolution.
///
/// # Errors
/// [`CompileError::Undefined`] for other dtypes than f32 and f64, [`CompileError::Malformed`] for layouts of another
/// rank and windows beyond the frame.
pub fn compile(convolution: &Convolution, isa: Isa) -> Result<Arc<dyn Executable>, CompileError> {
    if !convolution.is_well_formed() {
        return Err(CompileError::Malformed("a convolution's layouts have five axes and its windows lie in the frame"));
    }
    match convolution.dtype {
        DType::F32 => Ok(of::<f32>(convolution, isa)),
        DType::F64 => Ok(of::<f64>(convolution, isa)),
        dtype => Err(CompileError::Undefined { op: "convolution".into(), dtype }),
    }
}

fn of<T: Number>(convolution: &Convolution, isa: Isa) -> Arc<dyn Executable> {
    let lanes = T::micro(isa).lanes;
    match convolution.part {
        ConvolutionPart::Places if winograd::suits(convolution, isa) => Arc::new(Winograd::<T>::new(convolution, isa)),
        ConvolutionPart::Places => {
            let by_places = Places::<T>::new(convolution, isa);
            match ByItems::<T>::new(convolution, isa) {
                Some(by_items) if by_items.cycles() < by_places.cycles() => Arc::new(by_items),
                _ => Arc::new(by_places),
            }
        }
        ConvolutionPart::Kernel if pairs::suits(convolution, isa) => Arc::new(ByPairs::<T>::new(convolution, isa)),
        ConvolutionPart::Kernel if channels::suits(convolution, lanes) => {
            Arc::new(ByChannels::<T>::new(convolution, isa))
        }
        ConvolutionPart::Kernel => Arc::new(ByLines::<T>::new(convolution, isa)),
    }
}

/// An operand's layout, with the elements between which all can be read.
#[derive(Debug)]
struct Operand {
    layout: Layout,
    low: isize,
    high: isize,
}

impl Operand {
    fn new(layout: &Layout, extents: [usize; 5]) -> Operand {
        let reach = |wanted: fn(isize) -> bool| {
            let steps = layout.strides.iter().zip(extents);
            steps.filter(|(stride, _)| wanted(**stride)).map(|(s, d)| s * (d.max(1) as isize - 1)).sum::<isize>()
        };
        Operand { layout: layout.clone(), low: reach(|s| s < 0), high: reach(|s| s > 0) }
    }

    fn stride(&self, axis: usize) -> isize {
        self.layout.strides[axis]
    }

    /// The first element at (outer, inner) of the first two axes.
    ///
    /// # Safety
    /// The operand has it.
    unsafe fn at<T>(&self, operand: *mut u8, args: &Args<'_>, [outer, inner]: [usize; 2]) -> *const T {
        let offset = self.layout.offset_with(args.scalars);
        let inner = inner as isize * self.stride(1);
        // SAFETY: as our caller promised.
        unsafe { operand.cast::<T>().cast_const().offset(offset + outer as isize * self.stride(0) + inner) }
    }

    /// What lays out an image, operand 1, through this layout: where to, of which item and group, from which row of
    /// places on.
    ///
    /// # Safety
    /// The operand is as the layout says.
    unsafe fn fill<'s, T>(
        &self,
        shifted: &'s Shifted,
        args: &Args<'_>,
        channels: usize,
        (dst, of, first): (*mut T, [usize; 2], usize),
        numbers: &'s mut [isize],
    ) -> Fill<'s, T> {
        // SAFETY: as our caller promised.
        let (src, ends) = unsafe { (self.at(args.operands[1], args, of), self.ends(args.operands[1], args)) };
        let strides = [2, 3, 4].map(|axis| self.stride(axis));
        Fill { shifted, dst, src, strides, channels, ends, first, numbers }
    }

    /// Rows of items and channels that will be read; rows are of `width` elements.
    ///
    /// # Safety
    /// The operand is as the layout says, and has these rows.
    unsafe fn ahead<T>(
        &self,
        (operand, of): (*mut u8, [usize; 2]),
        args: &Args<'_>,
        [items, channels]: [usize; 2],
        (rows, width): (Range<usize>, usize),
    ) -> Ahead<T> {
        if self.stride(4) != 1 || self.stride(3) != width as isize {
            return Ahead::NONE;
        }
        // SAFETY: as our caller promised.
        let at = unsafe { self.at::<T>(operand, args, of) }.wrapping_add(rows.start * width);
        let all = rows.len() * width;
        let (channel, item) = (self.stride(2), self.stride(0));
        let is_whole = channel == all as isize && item == channel * channels as isize;
        let (runs, run) = if is_whole { (1, items * channels * all) } else { (channels, all) };
        Ahead { at, step: channel, runs, run, done: 0 }
    }

    /// The first and the last element.
    ///
    /// # Safety
    /// The operand is as the layout says.
    unsafe fn ends<T>(&self, operand: *mut u8, args: &Args<'_>) -> [*const T; 2] {
        let offset = self.layout.offset_with(args.scalars);
        // SAFETY: as our caller promised.
        [self.low, self.high].map(|reach| unsafe { operand.cast::<T>().cast_const().offset(offset + reach) })
    }
}

/// Rows of places that are computed together, so that what they see of the image fits into scratch: even bands, at
/// least `wanted` of them if there are as many rows.
fn band(rows: usize, wanted: usize, bytes: impl Fn(usize) -> usize) -> usize {
    let mut bands = wanted.clamp(1, rows.max(1));
    while bands < rows && bytes(rows.div_ceil(bands)) > SCRATCH {
        bands += 1;
    }
    rows.div_ceil(bands).max(1)
}

/// What will be read, in runs of elements side by side, to be asked for a piece at a time while there is something
/// else to do.
#[derive(Clone, Copy, Debug)]
struct Ahead<T> {
    /// The next run, from run to run, how many are left, and elements of each.
    at: *const T,
    step: isize,
    runs: usize,
    run: usize,
    /// Elements of the next run that have been asked for.
    done: usize,
}

impl<T> Ahead<T> {
    /// Nothing.
    const NONE: Ahead<T> = Ahead { at: std::ptr::null(), step: 0, runs: 0, run: 0, done: 0 };

    /// Elements of a piece, if there are so many pieces: of one run.
    fn piece(&self, pieces: usize) -> usize {
        self.run.div_ceil((pieces / self.runs.max(1)).max(1))
    }

    /// Where the next piece begins, of at most so many elements.
    #[inline(always)]
    fn next(&mut self, piece: usize) -> Option<*const T> {
        if self.runs == 0 {
            return None;
        }
        let from = self.at.wrapping_add(self.done);
        self.done += piece;
        if self.done >= self.run {
            (self.at, self.runs, self.done) = (self.at.wrapping_offset(self.step), self.runs - 1, 0);
        }
        Some(from)
    }
}

/// The rows of an image that some rows of places see, and perhaps some that they do not.
fn seen(down: &Sliding, (first, rows): (usize, usize)) -> Range<usize> {
    let element = |position: usize| {
        let element = (position as isize - down.before).div_euclid(down.spread as isize);
        element.clamp(0, down.stored as isize) as usize
    };
    element(first * down.stride)..element((first + rows) * down.stride + down.taps * down.dilation)
}

/// How a convolution's items, groups and bands of places are numbered.
#[derive(Debug)]
struct Units {
    groups: usize,
    rows: usize,
    band: usize,
    bands: usize,
}

impl Units {
    fn new(groups: usize, rows: usize, band: usize) -> Units {
        Units { groups, rows, band, bands: rows.div_ceil(band) }
    }

    /// (item, group, first row, rows) of a unit.
    fn of(&self, unit: usize) -> (usize, usize, usize, usize) {
        let (rest, band) = (unit / self.bands, unit % self.bands);
        let first = band * self.band;
        (rest / self.groups, rest % self.groups, first, self.band.min(self.rows - first))
    }
}

/// Even parts of `extent` that are at most `most`: the size of part `number` of `parts`.
fn even(extent: usize, parts: usize, number: usize) -> usize {
    (extent + number) / parts
}

/// The first `T`s of scratch, and what is left from an aligned address on.
///
/// # Safety
/// There are as many.
unsafe fn carve<T>(scratch: *mut u8, count: usize) -> (*mut T, *mut u8) {
    // SAFETY: as our caller promised.
    (scratch.cast(), unsafe { scratch.add((count * size_of::<T>()).next_multiple_of(64)) })
}

/// What `carve` takes.
fn carved<T>(count: usize) -> usize {
    (count * size_of::<T>()).next_multiple_of(64)
}
