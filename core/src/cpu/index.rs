//! Kernels that read indices: rows picked (`Gather`), the check of a list of indices, and the index of an extreme.
//! Owns the meaning of an index (negative counts from the end); adding into rows stands in `scatter`.

use std::sync::Arc;

use tapeflow_ir::{DType, Reduce};

use super::CompileError;
use super::fold::folds;
use super::isa::Isa;
use super::vector::{Call, Primitive};
use crate::program::kernel::{ArgReduce, Args, CheckIndex, Executable, Gather, RunError};

/// Elements of a chunk.
const CHUNK: usize = 16 << 10;

/// Reads indices of one of the index dtypes.
#[derive(Clone, Copy, Debug)]
pub struct Indices {
    dtype: DType,
    extent: usize,
}

impl Indices {
    /// Of an axis of that extent.
    pub fn new(dtype: DType, extent: usize) -> Result<Indices, CompileError> {
        match dtype {
            DType::I32 | DType::U32 | DType::I64 => Ok(Indices { dtype, extent }),
            _ => Err(CompileError::Undefined { op: "index".into(), dtype }),
        }
    }

    /// Index `at` of the list, as it stands there.
    ///
    /// # Safety
    /// The list has more than `at` elements of the dtype.
    #[inline(always)]
    pub unsafe fn raw(&self, list: *const u8, at: usize) -> i64 {
        // SAFETY: as our caller promised.
        unsafe {
            match self.dtype {
                DType::I32 => i64::from(*list.cast::<i32>().add(at)),
                DType::U32 => i64::from(*list.cast::<u32>().add(at)),
                _ => *list.cast::<i64>().add(at),
            }
        }
    }

    /// Index `at` of the list, counted from the beginning of the axis.
    ///
    /// # Errors
    /// If it is outside `-extent..extent`.
    ///
    /// # Safety
    /// As for [`Indices::raw`].
    #[inline(always)]
    pub unsafe fn get(&self, list: *const u8, at: usize) -> Result<usize, RunError> {
        // SAFETY: as our caller promised.
        let index = unsafe { self.raw(list, at) };
        // Wrapping is harmless: what wraps is out of range on both sides.
        let place = if index < 0 { index.wrapping_add(self.extent as i64) } else { index };
        if (place as u64) < self.extent as u64 {
            Ok(place as usize)
        } else {
            Err(RunError::Index { index, extent: self.extent })
        }
    }
}

/// A compiled [`Gather`].
#[derive(Debug)]
pub struct GatherKernel {
    gather: Gather,
    indices: Indices,
    /// Rows of `inner` elements in a chunk.
    per: usize,
}

impl GatherKernel {
    /// Compiles.
    pub fn new(gather: &Gather) -> Result<GatherKernel, CompileError> {
        let indices = Indices::new(gather.index_dtype, gather.extent)?;
        Ok(GatherKernel { indices, per: (CHUNK / gather.inner.max(1)).max(1), gather: gather.clone() })
    }

    fn rows(&self) -> usize {
        if self.gather.inner == 0 { 0 } else { self.gather.outer * self.gather.picks }
    }

    unsafe fn run<T: Copy>(&self, rows: std::ops::Range<usize>, args: &Args<'_>) -> Result<(), RunError> {
        let Gather { extent, inner, picks, along, .. } = self.gather;
        let (data, out) = (args.operands[0].cast::<T>().cast_const(), args.operands[2].cast::<T>());
        let list = args.operands[1].cast_const();
        for row in rows {
            let (outer, pick) = (row / picks, row % picks);
            // SAFETY: `get` gives places within the axis; operands are contiguous as described.
            unsafe {
                let (data, out) = (data.add(outer * extent * inner), out.add(row * inner));
                if along {
                    for l in 0..inner {
                        *out.add(l) = *data.add(self.indices.get(list, row * inner + l)? * inner + l);
                    }
                } else {
                    let place = self.indices.get(list, pick)?;
                    std::ptr::copy_nonoverlapping(data.add(place * inner), out, inner);
                }
            }
        }
        Ok(())
    }
}

impl Executable for GatherKernel {
    fn chunks(&self) -> usize {
        self.rows().div_ceil(self.per)
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn cost(&self) -> u64 {
        let each = if self.gather.along { 1.0 } else { 0.1 };
        (50.0 + self.rows() as f64 * (3.0 + self.gather.inner as f64 * each)) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, _scratch: &mut [u8]) -> Result<(), RunError> {
        let rows = chunk * self.per..((chunk + 1) * self.per).min(self.rows());
        // SAFETY: operands are as described.
        unsafe {
            match self.gather.dtype.size() {
                1 => self.run::<u8>(rows, args),
                2 => self.run::<u16>(rows, args),
                4 => self.run::<u32>(rows, args),
                _ => self.run::<u64>(rows, args),
            }
        }
    }
}

/// A compiled [`CheckIndex`].
#[derive(Debug)]
pub struct CheckIndexKernel {
    indices: Indices,
    count: usize,
}

impl CheckIndexKernel {
    /// Compiles.
    pub fn new(check: &CheckIndex) -> Result<CheckIndexKernel, CompileError> {
        Ok(CheckIndexKernel { indices: Indices::new(check.dtype, check.extent)?, count: check.count })
    }
}

impl Executable for CheckIndexKernel {
    fn chunks(&self) -> usize {
        self.count.div_ceil(CHUNK)
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn cost(&self) -> u64 {
        50 + self.count as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, _scratch: &mut [u8]) -> Result<(), RunError> {
        for at in chunk * CHUNK..((chunk + 1) * CHUNK).min(self.count) {
            // SAFETY: operand 0 has `count` indices.
            unsafe { self.indices.get(args.operands[0].cast_const(), at)? };
        }
        Ok(())
    }
}

/// A compiled [`ArgReduce`]: finds the extreme of a row, then where it first stands.
struct ArgReduceKernel<T> {
    rows: usize,
    length: usize,
    per: usize,
    extreme: Primitive,
    element: std::marker::PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for ArgReduceKernel<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ArgReduce({}x{})", self.rows, self.length)
    }
}

/// Compiles an [`ArgReduce`].
///
/// # Errors
/// [`CompileError::Malformed`] for rows of no elements.
pub fn arg_reduce(reduce: &ArgReduce, isa: Isa) -> Result<Arc<dyn Executable>, CompileError> {
    let &ArgReduce { dtype, max, rows, length } = reduce;
    if length == 0 && rows > 0 {
        return Err(CompileError::Malformed("the index of an extreme of no elements"));
    }
    // A bool is stored as a u8 of 0 or 1.
    let dtype = if dtype == DType::Bool { DType::U8 } else { dtype };
    let op = if max { Reduce::Max } else { Reduce::Min };
    let undefined = || CompileError::Undefined { op: format!("arg{op:?}"), dtype };
    let extreme = folds(isa, op, dtype).ok_or_else(undefined)?.rows;
    let per = (CHUNK / length.max(1)).max(1);
    macro_rules! of {
        ($t:ty) => {
            Arc::new(ArgReduceKernel::<$t> { rows, length, per, extreme, element: std::marker::PhantomData })
        };
    }
    Ok(match dtype {
        DType::Bool | DType::U8 => of!(u8),
        DType::I32 => of!(i32),
        DType::U32 => of!(u32),
        DType::I64 => of!(i64),
        DType::F32 => of!(f32),
        DType::F64 => of!(f64),
        DType::F16 | DType::BF16 => return Err(undefined()),
    })
}

impl<T: Copy + PartialEq + Default + 'static> Executable for ArgReduceKernel<T> {
    fn chunks(&self) -> usize {
        self.rows.div_ceil(self.per)
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn cost(&self) -> u64 {
        50 + (self.rows * self.length) as u64 / 4
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, _scratch: &mut [u8]) -> Result<(), RunError> {
        for row in chunk * self.per..((chunk + 1) * self.per).min(self.rows) {
            // SAFETY: the data is contiguous `(rows, length)`, the result has one i64 per row.
            unsafe {
                let data = args.operands[0].cast::<T>().cast_const().add(row * self.length);
                let mut extreme = T::default();
                (self.extreme)(&Call {
                    dst: (&raw mut extreme).cast(),
                    src: [data.cast(); 3],
                    step: [0; 3],
                    rows: 1,
                    cols: self.length,
                });
                let values = std::slice::from_raw_parts(data, self.length);
                // Only a NaN differs from itself; if there is one, the extreme is one.
                #[allow(clippy::eq_op)]
                let is_nan = |value: T| value != value;
                let at = values.iter().position(|&value| value == extreme || (is_nan(extreme) && is_nan(value)));
                *args.operands[1].cast::<i64>().add(row) = at.unwrap_or(0) as i64;
            }
        }
        Ok(())
    }
}
