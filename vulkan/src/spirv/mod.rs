//! The emitter: kernels become SPIR-V. `lower` is its one entry; it knows neither vulkano nor how shaders are run.

mod along;
mod angle;
mod arg_reduce;
mod arithmetic;
mod asm;
mod chain;
mod column;
mod control;
mod declare;
mod double;
mod ends;
mod exact;
mod frame;
mod function;
mod group;
mod half;
mod index;
mod logarithm;
mod map;
mod math;
mod matmul;
mod memory;
mod narrow;
mod number;
mod passes;
mod random;
mod row;
mod scatter;
mod space;
mod spread;
mod team;
mod wide;

use std::fmt;

use tapeflow_core::driver::Kernel;

use crate::stage::{Lowering, Target};

/// A kernel that the device cannot run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

/// Translates a kernel.
///
/// # Errors
/// If the kernel needs what the device lacks.
pub fn lower(kernel: &Kernel, target: &Target) -> Result<Lowering, Unsupported> {
    match kernel {
        Kernel::Group(one) => group::group(one, target, 0),
        Kernel::Groups(all) => group::groups(all, target),
        // Windows of a convolution are no operands of its products yet.
        Kernel::Matmul(matmul) if matmul.merged().extents().is_none() && matmul.dtype.is_half() => {
            Err(Unsupported(format!("this device has no products of windows in {}", matmul.dtype)))
        }
        Kernel::Matmul(matmul) if matmul.merged().extents().is_none() => {
            group::group(&matmul.merged().as_group(), target, 0)
        }
        Kernel::Matmul(matmul) => matmul::matmul(matmul, target),
        Kernel::Fused(_) => Err(Unsupported("on this device a product and what follows it are kernels each".into())),
        Kernel::LinearInt8(_) => Err(Unsupported("this device has no products with weights in eight bits".into())),
        Kernel::Windows(_) => Err(Unsupported("on this device windows are a fused loop nest".into())),
        Kernel::Convolution(_) => Err(Unsupported("on this device a convolution is a product of windows".into())),
        Kernel::Attention(_) | Kernel::AttentionVjp(_) => {
            Err(Unsupported("this device has no attention in one pass: products and a softmax stand for it".into()))
        }
        Kernel::Gather(gather) => index::gather(gather, target),
        Kernel::ScatterAdd(scatter) => scatter::scatter_add(scatter, target),
        Kernel::ArgReduce(reduce) => arg_reduce::arg_reduce(reduce, target),
        Kernel::ArgSort(sort) => along::arg_sort(sort, target),
        Kernel::CumSum(sum) => along::cum_sum(sum, target),
        Kernel::CheckIndex(check) => index::check_index(check, target),
    }
}
