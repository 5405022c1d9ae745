//! What computing something will take, before it runs.

use super::request::collect;
use super::{compiled, located};
use crate::error::Error;
use crate::tape;
use crate::tensor::Tensor;

/// Bytes of new memory that computing `tensors` takes at its peak, intermediate values and results: the program is
/// compiled and not run, and is at hand when they are asked for.
///
/// # Errors
/// A mistake in one of them; what compiling reports.
///
/// # Example
/// ```
/// # use tapeflow_core::{DType, Tensor, planned_bytes};
/// let x = Tensor::ones([256, 256], DType::F32);
/// x.realize()?;
/// let y = x.matmul(&x).matmul(&x);
/// assert_eq!(planned_bytes(&[&y])?, 2 * 256 * 256 * 4);
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
pub fn planned_bytes(tensors: &[&Tensor]) -> Result<usize, Error> {
    for tensor in tensors {
        tensor.check()?;
    }
    let Some(first) = tensors.first() else { return Ok(0) };
    let Some((request, copied)) = collect(tensors, &[], first.ty().device.0, false, None) else { return Ok(0) };
    let program = compiled(copied, &request);
    // Nothing was computed: nodes are let go as they are.
    let mut tape = tape::lock();
    for &(number, _) in &request.wanted {
        tape.unpin(request.order[number as usize]);
    }
    match program {
        Ok(program) => Ok(program.peak_bytes()),
        Err(failure) => Err(located(&tape, &request.order, failure)),
    }
}
