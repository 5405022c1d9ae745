//! The largest of windows that lie beside each other, and putting values back to where they came from, a plane at a
//! time, and what is added to elements before. Owns the loops; the description says what they mean.

use std::marker::PhantomData;
use std::ops::Add;

use tapeflow_ir::DType;

use super::CompileError;
use super::isa::Isa;
use super::vector::{Body, Call, Primitive, select};
use crate::program::kernel::{Args, Executable, RunError, WindowAxis, Windows, WindowsPart};

/// Elements of a chunk, about.
const CHUNK: usize = 64 << 10;

/// A compiled pool.
#[derive(Debug)]
pub struct PoolKernel {
    windows: Windows,
    /// Planes of a chunk.
    per: usize,
    /// What computes the largest of a plane's windows or their numbers, and what fills a plane.
    planes: [Primitive; 2],
}

impl PoolKernel {
    /// # Errors
    /// [`CompileError::Malformed`] for windows that overlap, [`CompileError::Undefined`] for other dtypes than f32 and
    /// f64.
    pub fn new(windows: &Windows, isa: Isa) -> Result<PoolKernel, CompileError> {
        if !windows.is_well_formed() {
            return Err(CompileError::Malformed("windows lie beside each other in their planes"));
        }
        let kernels = match windows.dtype {
            DType::F32 => of::<f32>(windows, isa),
            DType::F64 => of::<f64>(windows, isa),
            dtype => return Err(CompileError::Undefined { op: "window_max".into(), dtype }),
        };
        let per = (CHUNK / elements(windows).max(1)).clamp(1, windows.planes.max(1));
        Ok(PoolKernel { windows: windows.clone(), per, planes: kernels })
    }
}

/// Elements of a plane.
fn elements(windows: &Windows) -> usize {
    windows.axes.iter().map(|axis| axis.extent).product()
}

/// Places of a plane.
fn places(windows: &Windows) -> usize {
    windows.axes.iter().map(|axis| axis.places).product()
}

/// What computes a plane; of `Return` what numbers its windows and what fills it.
fn of<T: Float>(windows: &Windows, isa: Isa) -> [Primitive; 2] {
    let part = |part| of_part::<T>(part, windows, isa);
    match windows.part {
        WindowsPart::Return => [part(WindowsPart::Which), part(WindowsPart::Place)],
        other => [part(other); 2],
    }
}

fn of_part<T: Float>(part: WindowsPart, windows: &Windows, isa: Isa) -> Primitive {
    let [down, across] = windows.axes;
    match (part, windows.shifts > 0, across.stride) {
        (WindowsPart::Max, false, _) => largest_of::<T, false, false>(down, across, isa),
        (WindowsPart::Max, true, _) => largest_of::<T, false, true>(down, across, isa),
        (WindowsPart::Which, false, _) => largest_of::<T, true, false>(down, across, isa),
        (WindowsPart::Which, true, _) => largest_of::<T, true, true>(down, across, isa),
        (WindowsPart::Place, _, 2) => select::<Placed<T, 2>>(isa),
        (WindowsPart::Place | WindowsPart::Return, ..) => select::<Placed<T, 0>>(isa),
    }
}

fn largest_of<T: Float, const WHICH: bool, const SHIFTED: bool>(
    down: WindowAxis,
    across: WindowAxis,
    isa: Isa,
) -> Primitive {
    match (down.kernel, across.kernel, across.stride) {
        (2, 2, 2) => select::<Largest<T, WHICH, SHIFTED, 2, 2>>(isa),
        (1, 2, 2) => select::<Largest<T, WHICH, SHIFTED, 1, 2>>(isa),
        _ => select::<Largest<T, WHICH, SHIFTED, 0, 0>>(isa),
    }
}

/// What is compared.
trait Float: Copy + PartialOrd + Default + Add<Output = Self> {}
impl Float for f32 {}
impl Float for f64 {}

/// The largest of the windows of a plane, or the numbers of their taps; `src[1]` is the description, `src[2]` what is
/// added to the elements if they are `SHIFTED`. `KY`, `KX` are the window's extents, with columns that it takes all of;
/// 0: as described.
struct Largest<T, const WHICH: bool, const SHIFTED: bool, const KY: usize, const KX: usize>(PhantomData<T>);

impl<T: Float, const WHICH: bool, const SHIFTED: bool, const KY: usize, const KX: usize> Body
    for Largest<T, WHICH, SHIFTED, KY, KX>
{
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `run_chunk` gives the description and a plane; places and elements are as many as it says.
        unsafe {
            let [down, across] = *call.src[1].cast::<[WindowAxis; 2]>();
            let (ky, kx) = if KX == 0 { (down.kernel, across.kernel) } else { (KY, KX) };
            let stride = if KX == 0 { across.stride } else { KX };
            let shift = if SHIFTED { *call.src[2].cast::<T>() } else { T::default() };
            let taps = Taps { ky, kx, stride, row: across.extent, shift };
            let count = across.places;
            // Blocks of fixed size become vectors; the last of a row begins earlier, and some are written twice.
            let block = [16, 8, 4].into_iter().find(|&block| KX != 0 && count >= block).unwrap_or(1);
            for y in 0..down.places {
                let src = call.src[0].cast::<T>().add(y * down.stride * across.extent);
                for place in (0..count).step_by(block) {
                    let place = place.min(count - block);
                    let (src, place) = (src.add(place * stride), y * count + place);
                    match block {
                        16 => write::<T, WHICH, 16>(call.dst, place, largest::<T, SHIFTED, 16>(src, &taps)),
                        8 => write::<T, WHICH, 8>(call.dst, place, largest::<T, SHIFTED, 8>(src, &taps)),
                        4 => write::<T, WHICH, 4>(call.dst, place, largest::<T, SHIFTED, 4>(src, &taps)),
                        _ => write::<T, WHICH, 1>(call.dst, place, largest::<T, SHIFTED, 1>(src, &taps)),
                    }
                }
            }
        }
    }
}

/// A window's taps, from window to window, from row to row, and what is added to the elements.
struct Taps<T> {
    ky: usize,
    kx: usize,
    stride: usize,
    row: usize,
    shift: T,
}

/// The largest of `B` neighbouring windows, and the numbers of their taps.
///
/// # Safety
/// The windows can be read.
#[inline(always)]
unsafe fn largest<T: Float, const SHIFTED: bool, const B: usize>(src: *const T, taps: &Taps<T>) -> ([T; B], [i32; B]) {
    let &Taps { ky, kx, stride, row, shift } = taps;
    let (mut best, mut which) = ([T::default(); B], [0i32; B]);
    for tap in 0..ky * kx {
        let (y, x) = (tap / kx, tap % kx);
        for l in 0..B {
            // SAFETY: as our caller promised.
            let element = unsafe { *src.add(y * row + l * stride + x) };
            let value = if SHIFTED { element + shift } else { element };
            // A NaN is not equal to itself.
            #[allow(clippy::eq_op)]
            let better = value > best[l] || value != value || tap == 0;
            best[l] = if better { value } else { best[l] };
            which[l] = if better { (y * stride + x) as i32 } else { which[l] };
        }
    }
    (best, which)
}

/// Writes what is asked for.
///
/// # Safety
/// There is room at these places.
#[inline(always)]
unsafe fn write<T: Float, const WHICH: bool, const B: usize>(dst: *mut u8, place: usize, found: ([T; B], [i32; B])) {
    // SAFETY: as our caller promised.
    unsafe {
        match WHICH {
            true => *dst.cast::<i32>().add(place).cast::<[i32; B]>() = found.1,
            false => *dst.cast::<T>().add(place).cast::<[T; B]>() = found.0,
        }
    }
}

/// A plane of elements from the values and numbers of its places; `src[2]` is the description. `STRIDE` is that of the
/// columns; 0: as described.
struct Placed<T, const STRIDE: usize>(PhantomData<T>);

impl<T: Float, const STRIDE: usize> Body for Placed<T, STRIDE> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        // SAFETY: `run_chunk` gives the description and planes that are as large as it says.
        unsafe {
            let [down, across] = *call.src[2].cast::<[WindowAxis; 2]>();
            let stride = if STRIDE == 0 { across.stride } else { STRIDE };
            let whole = across.extent / stride;
            let block = [16, 8, 4].into_iter().find(|&block| STRIDE == 2 && whole >= block).unwrap_or(1);
            let (mut first, mut tap) = (0, 0);
            for y in 0..down.extent {
                let (values, which) = (call.src[0].cast::<T>().add(first), call.src[1].cast::<i32>().add(first));
                let (dst, number) = (call.dst.cast::<T>().add(y * across.extent), (tap * stride) as i32);
                for place in (0..whole).step_by(block) {
                    let place = place.min(whole - block);
                    let (dst, values, which) = (dst.add(place * stride), values.add(place), which.add(place));
                    match block {
                        16 => pairs::<T, 16>(dst, values, which, number),
                        8 => pairs::<T, 8>(dst, values, which, number),
                        4 => pairs::<T, 4>(dst, values, which, number),
                        _ => (0..stride).for_each(|x| {
                            *dst.add(x) = if *which == number + x as i32 { *values } else { T::default() };
                        }),
                    }
                }
                for x in whole * stride..across.extent {
                    let hit = *which.add(whole) == number + (x - whole * stride) as i32;
                    *dst.add(x) = if hit { *values.add(whole) } else { T::default() };
                }
                tap += 1;
                if tap == down.stride {
                    (first, tap) = (first + across.places, 0);
                }
            }
        }
    }
}

/// Puts `B` neighbouring values to one of the two elements of their windows that have this number and the next.
///
/// # Safety
/// There are as many.
#[inline(always)]
unsafe fn pairs<T: Float, const B: usize>(dst: *mut T, values: *const T, which: *const i32, number: i32) {
    // SAFETY: as our caller promised.
    unsafe {
        let (values, which) = (*values.cast::<[T; B]>(), *which.cast::<[i32; B]>());
        let mut out = [[T::default(); 2]; B];
        for l in 0..B {
            out[l][0] = if which[l] == number { values[l] } else { T::default() };
            out[l][1] = if which[l] == number + 1 { values[l] } else { T::default() };
        }
        *dst.cast::<[[T; 2]; B]>() = out;
    }
}

impl Executable for PoolKernel {
    fn chunks(&self) -> usize {
        if elements(&self.windows) == 0 { 0 } else { self.windows.planes.div_ceil(self.per) }
    }

    fn scratch_bytes(&self) -> usize {
        // The numbers of a plane.
        if self.windows.part == WindowsPart::Return { places(&self.windows) * DType::I32.size() } else { 0 }
    }

    fn cost(&self) -> u64 {
        50 + (self.windows.planes * elements(&self.windows)) as u64 / 8
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let Windows { dtype, part, planes, shifts, axes } = &self.windows;
        let (elements, places) = (elements(&self.windows), places(&self.windows));
        let described = (&raw const *axes).cast::<u8>();
        let (size, number) = (dtype.size(), DType::I32.size());
        let (step, rows, cols) = ([0; 3], 0, 0);
        for plane in chunk * self.per..((chunk + 1) * self.per).min(*planes) {
            // SAFETY: operands are contiguous and as large as the description says; planes are written once.
            unsafe {
                let whole = |operand: usize| args.operands[operand].add(plane * elements * size);
                let of_places = |operand: usize, size: usize| args.operands[operand].add(plane * places * size);
                let which = scratch.as_mut_ptr();
                // What is added comes behind the elements.
                let shift = |operand: usize| match shifts {
                    0 => described,
                    shifts => args.operands[operand].add(plane % shifts * size).cast_const(),
                };
                let shifted = usize::from(*shifts > 0);
                let largest = match part {
                    WindowsPart::Max => Some((of_places(1 + shifted, size), whole(0), shift(1))),
                    WindowsPart::Which => Some((of_places(1 + shifted, number), whole(0), shift(1))),
                    WindowsPart::Return => Some((which, whole(1), shift(2))),
                    WindowsPart::Place => None,
                };
                if let Some((dst, src, shift)) = largest {
                    let src = [src.cast_const(), described, shift];
                    (self.planes[0])(&Call { dst, src, step, rows, cols });
                }
                let which = match part {
                    WindowsPart::Return => which,
                    WindowsPart::Place => of_places(1, number),
                    WindowsPart::Max | WindowsPart::Which => continue,
                };
                let src = [of_places(0, size).cast_const(), which.cast_const(), described];
                (self.planes[1])(&Call { dst: whole(2 + shifted), src, step, rows, cols });
            }
        }
        Ok(())
    }
}
