//! Products with epilogues: each chunk makes a block of the product's result, and the groups go on with that while it
//! is in the caches. Where a result is so small that one thread is through with it at once, they wait for all of it.
//!
//! Owns when a group can go on so, and the order of what runs; the blocks are the product's, the loops the groups'.

use std::sync::Arc;

use super::CompileError;
use super::blocks::{Blocked, Wanted};
use super::cut::Area;
use super::group::{self, GroupKernel, RUN_LEAST};
use super::int8::Int8Kernel;
use super::isa::Isa;
use super::matmul;
use super::output::LEADING_ROWS;
use super::space::product;
use crate::ops::kernel::is_row;
use crate::program::kernel::{Args, Executable, Fused, Group, Kernel, Layout, OutputKind, RunError, Source};

/// Elements of a result that one thread is through with sooner than others would have heard of them.
const FEW: usize = 4096;
/// Elements of a block that its thread may go on with, if it is the only one, and if it is one of several.
const ALONE: usize = 16 << 10;
const BESIDE: usize = 128 << 10;
/// Lines of a block that has them whole, at least: each block packs all of the right operand.
const TALL: usize = 64;

/// A compiled product with its epilogue.
#[derive(Debug)]
pub struct FusedKernel {
    product: Arc<dyn Blocked>,
    groups: Vec<Part>,
    /// Operands of the product.
    own: usize,
    /// Whether the groups wait for the whole of the result.
    late: bool,
}

#[derive(Debug)]
struct Part {
    kernel: GroupKernel,
    /// Its operands among those of all.
    operands: std::ops::Range<usize>,
    /// Offset of its shared partial results.
    partial: usize,
}

/// Whether the last group of the epilogue can go on behind those before it, which can, and is better run so.
pub fn takes(fused: &Fused, isa: Isa) -> bool {
    let Some(group) = fused.epilogue.last() else { return true };
    let wanted = wanted(&fused.epilogue);
    let compiled = |wanted| blocked(&fused.product, wanted, isa);
    let (Ok(product), Ok(usual)) = (compiled(wanted), compiled(Wanted::default())) else { return false };
    let (lines, width) = product.lines();
    match lines * width {
        elements if elements == 0 || space_of(group) != elements => false,
        elements if elements <= FEW => true,
        elements => {
            let chunks = product.chunks();
            let most = if chunks == 1 { ALONE } else { BESIDE };
            elements <= most.saturating_mul(chunks)
                && has_fit_blocks(&*product, wanted, &*usual)
                && fused.epilogue.iter().all(|group| fits(group, width))
        }
    }
}

fn space_of(group: &Group) -> usize {
    product(&group.space)
}

fn blocked(kernel: &Kernel, wanted: Wanted, isa: Isa) -> Result<Arc<dyn Blocked>, CompileError> {
    match kernel {
        Kernel::Matmul(matmul) => matmul::compile(matmul, wanted, isa),
        Kernel::LinearInt8(linear) => Ok(Arc::new(Int8Kernel::new(linear, isa))),
        _ => Err(CompileError::Malformed("only products have epilogues")),
    }
}

/// What the groups need of the product's blocks.
fn wanted(epilogue: &[Group]) -> Wanted {
    let leads = |group: &Group| group.outputs.iter().any(|o| matches!(o.kind, OutputKind::ReduceLeading(..)));
    let usual = Wanted::default();
    Wanted {
        whole: epilogue.iter().any(|group| is_row(&group.function)),
        grain: if epilogue.iter().any(leads) { LEADING_ROWS } else { usual.grain },
    }
}

/// Whether all blocks are as the groups need them, and not much worse for the product than its usual ones.
fn has_fit_blocks(product: &dyn Blocked, wanted: Wanted, usual: &dyn Blocked) -> bool {
    let (lines, width) = product.lines();
    let whole = |block: &[std::ops::Range<usize>; 2]| block[1].len() == width;
    let fits = |chunk: usize| {
        product.block(chunk).is_some_and(|block| {
            let [rows, _] = &block;
            let begins = rows.start.is_multiple_of(wanted.grain) || rows.len() == lines;
            let is_tall = rows.len() >= TALL || usual.block(0).is_some_and(|block| whole(&block));
            (begins || wanted.grain < LEADING_ROWS) && (!wanted.whole || whole(&block) && is_tall)
        })
    };
    (0..product.chunks()).all(fits) && product.chunks() * 4 >= usual.chunks().min(16)
}

/// Whether a group can be run on some of the columns of some lines of `width` elements, or on whole lines if it is a
/// function of rows, and reads and writes neighbours there.
fn fits(group: &Group, width: usize) -> bool {
    let by_row = is_row(&group.function);
    if group.space.last() != Some(&width) {
        return false;
    }
    let mut layouts: Vec<&Layout> = Vec::new();
    for source in &group.inputs {
        match source {
            Source::Operand { layout, .. } | Source::Iota(layout) | Source::Random { layout, .. } => {
                layouts.push(layout)
            }
            Source::Scalar { .. } => {}
        }
    }
    for output in &group.outputs {
        match &output.kind {
            OutputKind::Store(layout) if layout.is_contiguous(&group.space) => layouts.push(layout),
            OutputKind::Store(layout) if by_row && layout.strides.last() == Some(&0) => {}
            OutputKind::ReduceLeading(_, axes) if product(&group.space[*axes..]) == width => {}
            _ => return false,
        }
    }
    width >= RUN_LEAST && layouts.iter().all(|layout| matches!(layout.strides.last(), Some(0 | 1)))
}

impl FusedKernel {
    /// Compiles a product and its epilogue, which it [`takes`].
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(fused: &Fused, isa: Isa) -> Result<FusedKernel, CompileError> {
        let product = blocked(&fused.product, wanted(&fused.epilogue), isa)?;
        let (lines, width) = product.lines();
        let late = lines * width <= FEW;
        let own = if let Kernel::LinearInt8(_) = *fused.product { 4 } else { 3 };
        let mut groups: Vec<Part> = Vec::with_capacity(fused.epilogue.len());
        let (mut operand, mut partial) = (own, 0);
        for group in &fused.epilogue {
            let kernel = if late { group::compile(group, isa)? } else { group::compile_for_parts(group, isa)? };
            let (operands, here) = (operand..operand + group.operands(), partial);
            (operand, partial) = (operands.end, partial + kernel.partial_bytes().next_multiple_of(64));
            groups.push(Part { kernel, operands, partial: here });
        }
        Ok(FusedKernel { product, groups, own, late })
    }
}

impl Part {
    fn args<'a>(&self, args: &Args<'a>) -> Args<'a> {
        Args {
            operands: &args.operands[self.operands.clone()],
            partial: args.partial.wrapping_add(self.partial),
            ..*args
        }
    }
}

impl Executable for FusedKernel {
    fn chunks(&self) -> usize {
        self.product.chunks()
    }

    fn scratch_bytes(&self) -> usize {
        let groups = self.groups.iter().map(|part| part.kernel.scratch_bytes());
        groups.fold(self.product.scratch_bytes(), usize::max)
    }

    fn partial_bytes(&self) -> usize {
        self.groups.last().map_or(0, |part| part.partial + part.kernel.partial_bytes())
    }

    fn cost(&self) -> u64 {
        self.product.cost() + self.groups.iter().map(|part| part.kernel.cost()).sum::<u64>()
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        // SAFETY: the product's operands come first and are as our caller promised. No other chunk makes this block,
        // nor reads or writes the elements of the groups' operands at its indices; sums down columns have partial
        // results for the lines between multiples of `LEADING_ROWS`, where blocks begin.
        unsafe {
            self.product.run_chunk(chunk, &Args { operands: &args.operands[..self.own], ..*args }, scratch)?;
            if self.late {
                return Ok(());
            }
            let width = self.product.lines().1;
            if let Some([lines, columns]) = self.product.block(chunk) {
                for part in &self.groups {
                    let by_row = part.kernel.is_by_row();
                    let area = Area::of_lines(lines.clone(), columns.clone(), width, by_row);
                    part.kernel.run_area(&area, &part.args(args), scratch);
                }
            }
        }
        Ok(())
    }

    fn has_finish(&self) -> bool {
        self.late || self.groups.iter().any(|part| part.kernel.has_finish())
    }

    unsafe fn finish(&self, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        for part in &self.groups {
            let (kernel, args) = (&part.kernel, part.args(args));
            let chunks = if self.late { kernel.chunks() } else { 0 };
            // SAFETY: the operands are as our caller promised, and all of the product is there.
            unsafe {
                (0..chunks).try_for_each(|chunk| kernel.run_chunk(chunk, &args, scratch))?;
                kernel.finish(&args, scratch)?;
            }
        }
        Ok(())
    }
}
