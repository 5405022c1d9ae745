//! Kernels that take a row as a whole: its order (`ArgSort`), its running sums (`CumSum`). Rows are independent.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use tapeflow_ir::DType;

use super::CompileError;
use crate::program::kernel::{ArgSort, Args, CumSum, Executable, RunError};

/// Elements of a chunk.
const CHUNK: usize = 4 << 10;

/// What is done to one row: the data and where the result goes.
type OfRow<T, O> = fn(&[T], &mut [O]);

/// A function of rows, compiled.
struct RowKernel<T, O> {
    rows: usize,
    length: usize,
    per: usize,
    /// Nanoseconds of an element.
    price: u64,
    apply: OfRow<T, O>,
}

impl<T, O> RowKernel<T, O> {
    fn new(rows: usize, length: usize, price: u64, apply: OfRow<T, O>) -> RowKernel<T, O> {
        let rows = if length == 0 { 0 } else { rows };
        RowKernel { rows, length, per: (CHUNK / length.max(1)).max(1), price, apply }
    }
}

impl<T, O> fmt::Debug for RowKernel<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rows({}x{})", self.rows, self.length)
    }
}

impl<T: 'static, O: 'static> Executable for RowKernel<T, O> {
    fn chunks(&self) -> usize {
        self.rows.div_ceil(self.per)
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn cost(&self) -> u64 {
        50 + (self.rows * self.length) as u64 * self.price
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, _scratch: &mut [u8]) -> Result<(), RunError> {
        for row in chunk * self.per..((chunk + 1) * self.per).min(self.rows) {
            // SAFETY: data and result are contiguous `(rows, length)`; this chunk alone writes its rows.
            let (data, result) = unsafe {
                let at = row * self.length;
                let data = args.operands[0].cast::<T>().cast_const().add(at);
                let result = args.operands[1].cast::<O>().add(at);
                (std::slice::from_raw_parts(data, self.length), std::slice::from_raw_parts_mut(result, self.length))
            };
            (self.apply)(data, result);
        }
        Ok(())
    }
}

/// Compiles an [`ArgSort`].
///
/// # Errors
/// Of half precision.
pub fn arg_sort(sort: &ArgSort) -> Result<Arc<dyn Executable>, CompileError> {
    let &ArgSort { dtype, descending, rows, length } = sort;
    // About as many comparisons of an element as the length has bits.
    let price = 2 * u64::from(usize::BITS - length.leading_zeros());
    macro_rules! of {
        ($t:ty, $order:expr) => {
            match descending {
                false => Arc::new(RowKernel::new(rows, length, price, |x: &[$t], ranks: &mut [i64]| {
                    rank(ranks, |a, b| $order(&x[a], &x[b]));
                })),
                true => Arc::new(RowKernel::new(rows, length, price, |x: &[$t], ranks: &mut [i64]| {
                    rank(ranks, |a, b| $order(&x[b], &x[a]));
                })),
            }
        };
    }
    Ok(match dtype {
        DType::F16 | DType::BF16 => return Err(CompileError::Undefined { op: "argsort".into(), dtype }),
        // A bool is stored as a u8 of 0 or 1.
        DType::Bool | DType::U8 => of!(u8, u8::cmp),
        DType::I32 => of!(i32, i32::cmp),
        DType::U32 => of!(u32, u32::cmp),
        DType::I64 => of!(i64, i64::cmp),
        DType::F32 => of!(f32, |a: &f32, b: &f32| float_order(a.partial_cmp(b), a.is_nan(), b.is_nan())),
        DType::F64 => of!(f64, |a: &f64, b: &f64| float_order(a.partial_cmp(b), a.is_nan(), b.is_nan())),
    })
}

/// A NaN is larger than everything else, and equal to a NaN.
fn float_order(order: Option<Ordering>, a_is_nan: bool, b_is_nan: bool) -> Ordering {
    order.unwrap_or_else(|| a_is_nan.cmp(&b_is_nan))
}

/// Writes the indices in the order of `compare`. The index decides between equals, so that no memory is needed to keep
/// their order.
fn rank(ranks: &mut [i64], compare: impl Fn(usize, usize) -> Ordering) {
    ranks.iter_mut().enumerate().for_each(|(i, rank)| *rank = i as i64);
    ranks.sort_unstable_by(|&a, &b| compare(a as usize, b as usize).then(a.cmp(&b)));
}

/// Compiles a [`CumSum`].
///
/// # Errors
/// Of bools and half precision.
pub fn cum_sum(sum: &CumSum) -> Result<Arc<dyn Executable>, CompileError> {
    let &CumSum { dtype, rows, length } = sum;
    macro_rules! of {
        ($t:ty, $zero:expr, $add:expr) => {
            Arc::new(RowKernel::new(rows, length, 1, |x: &[$t], sums: &mut [$t]| {
                let mut total = $zero;
                for (x, sum) in x.iter().zip(sums) {
                    total = $add(total, *x);
                    *sum = total;
                }
            }))
        };
    }
    Ok(match dtype {
        DType::Bool | DType::F16 | DType::BF16 => {
            return Err(CompileError::Undefined { op: "cumsum".into(), dtype });
        }
        DType::U8 => of!(u8, 0, u8::wrapping_add),
        DType::I32 => of!(i32, 0, i32::wrapping_add),
        DType::U32 => of!(u32, 0, u32::wrapping_add),
        DType::I64 => of!(i64, 0, i64::wrapping_add),
        // From −0, which changes no value it is added to.
        DType::F32 => of!(f32, -0.0, |a: f32, b: f32| a + b),
        DType::F64 => of!(f64, -0.0, |a: f64, b: f64| a + b),
    })
}
