//! The CPU device: kernels compiled to loops over vector primitives, for the best instruction set of the machine.
//! Knows neither the tape nor the pool; `compile` is its one entry.

mod along;
mod attention;
mod blocks;
mod code;
mod conv;
mod cost;
mod cut;
mod few;
mod fold;
mod fused;
mod group;
mod groups;
mod half;
mod index;
mod int8;
mod isa;
mod lower;
mod math;
mod matmul;
mod micro;
mod moves;
mod output;
mod pack;
mod pairs;
mod pieces;
mod pools;
mod prologue;
mod real;
mod runs;
mod scatter;
mod space;
mod step;
mod table;
#[cfg(test)]
mod tests;
mod thin;
mod tile;
mod tiny;
mod vector;
mod windows;

use std::sync::Arc;

use tapeflow_ir::DType;

use blocks::Wanted;
pub(crate) use fused::takes;
pub use isa::{Isa, IsaError};

use crate::program::kernel::{Executable, Kernel};

/// Why a kernel cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The instruction set is missing.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// An operation that does not exist for its dtype.
    #[error("{op} is not defined for {dtype}")]
    Undefined {
        /// The operation.
        op: String,
        /// The dtype it was asked for.
        dtype: DType,
    },
    /// A description that breaks its own rules.
    #[error("malformed kernel: {0}")]
    Malformed(&'static str),
}

/// Whether products read weights of this dtype faster in panels (see [`PANEL`](crate::program::kernel::PANEL)): where
/// they have their own instructions, so that pieces need not be brought to another dtype.
pub fn reads_panels(dtype: DType, inputs: usize) -> bool {
    match dtype {
        DType::F32 => true,
        DType::BF16 => inputs.is_multiple_of(2) && Isa::detect() == Ok(Isa::Avx512Bf16),
        _ => false,
    }
}

/// Compiles a kernel for this machine.
///
/// # Errors
/// If this machine lacks the instruction set, or the description is not one that the compiler may give.
pub fn compile(kernel: &Kernel, isa: Isa) -> Result<Arc<dyn Executable>, CompileError> {
    if !isa.is_available() {
        return Err(IsaError::Unavailable(isa).into());
    }
    Ok(match kernel {
        Kernel::Group(group) => match moves::MoveKernel::new(group) {
            Some(moves) => Arc::new(moves),
            None => Arc::new(group::compile(group, isa)?),
        },
        Kernel::Groups(groups) => Arc::new(groups::compile(groups, isa)?),
        Kernel::Matmul(matmul) => matmul::compile(matmul, Wanted::default(), isa)?,
        Kernel::LinearInt8(linear) => Arc::new(int8::Int8Kernel::new(linear, isa)),
        Kernel::Fused(fused) => Arc::new(fused::FusedKernel::new(fused, isa)?),
        Kernel::Convolution(convolution) => conv::compile(convolution, isa)?,
        Kernel::Attention(of) => Arc::new(attention::Forward::new(of, isa)?),
        Kernel::AttentionVjp(of) => Arc::new(attention::Backward::new(of, isa)?),
        Kernel::Windows(windows) => Arc::new(pools::PoolKernel::new(windows, isa)?),
        Kernel::Gather(gather) => Arc::new(index::GatherKernel::new(gather)?),
        Kernel::ScatterAdd(scatter) => Arc::new(scatter::ScatterAddKernel::new(&scatter.0, isa)?),
        Kernel::ArgReduce(reduce) => index::arg_reduce(reduce, isa)?,
        Kernel::ArgSort(sort) => along::arg_sort(sort)?,
        Kernel::CumSum(sum) => along::cum_sum(sum)?,
        Kernel::CheckIndex(check) => Arc::new(index::CheckIndexKernel::new(check)?),
    })
}
