//! Products with prologues and epilogues: each chunk makes the lines of the operands that it needs, then a block of the
//! product's result, and the groups go on with that while it is in the caches. Where a result is so small that one
//! thread is through with it at once, they wait for all of it.
//!
//! Owns when that can be done so, and the order of what runs; the blocks are the product's, the loops the groups', the
//! operands' places `prologue`'s.

use std::sync::Arc;

use super::CompileError;
use super::blocks::{Blocked, Wanted};
use super::cut::Area;
use super::group::{self, GroupKernel, RUN_LEAST};
use super::int8::Int8Kernel;
use super::isa::Isa;
use super::matmul;
use super::output::LEADING_ROWS;
use super::prologue::{self, Strip};
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

/// Operands of a product, at most.
const PRODUCT_OPERANDS: usize = 4;

/// A compiled product with its prologue and its epilogue.
#[derive(Debug)]
pub struct FusedKernel {
    strips: Vec<Strip>,
    /// Bytes of scratch for the strips.
    places: usize,
    product: Arc<dyn Blocked>,
    groups: Vec<Part>,
    /// Operands of the product, and which of them are given.
    own: usize,
    given: usize,
    /// Bytes of the shared partial results, of the strips and of all.
    partial_bytes: usize,
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

/// Whether a product takes a prologue and an epilogue, the last group of which was added, and is better run so.
pub fn takes(fused: &Fused, isa: Isa) -> bool {
    let wanted = wanted(fused);
    let compiled = |wanted| blocked(&fused.product, wanted, isa);
    let (Ok(product), Ok(usual)) = (compiled(wanted), compiled(Wanted::default())) else { return false };
    takes_prologue(fused, &*product, &*usual, isa) && takes_epilogue(fused, wanted, &*product, &*usual)
}

/// Whether all operands that are made can be, and cost less than they save: a step, and their way to memory and back.
fn takes_prologue(fused: &Fused, product: &dyn Blocked, usual: &dyn Blocked, isa: Isa) -> bool {
    let pays = |made| {
        let strip = Strip::new(made, &fused.product, 0..0, isa);
        strip.is_ok_and(|strip| strip.fits(product) && strip.loss(product, usual) <= strip.gain(product))
    };
    let is_alike = || {
        let rows = |of: &dyn Blocked| of.block(0).map_or(0, |[rows, _]| rows.len());
        product.chunks() * 4 >= usual.chunks().min(16) && rows(product) >= rows(usual).min(TALL)
    };
    fused.prologue.is_empty() || is_alike() && fused.prologue.iter().all(pays)
}

/// Whether the last group of the epilogue can go on behind those before it, which can.
fn takes_epilogue(fused: &Fused, wanted: Wanted, product: &dyn Blocked, usual: &dyn Blocked) -> bool {
    let Some(group) = fused.epilogue.last() else { return true };
    let (lines, width) = product.lines();
    match lines * width {
        elements if elements == 0 || space_of(group) != elements => false,
        elements if elements <= FEW => true,
        elements => {
            let chunks = product.chunks();
            let most = if chunks == 1 { ALONE } else { BESIDE };
            elements <= most.saturating_mul(chunks)
                && has_fit_blocks(product, wanted, usual)
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
        _ => Err(CompileError::Malformed("only products have prologues and epilogues")),
    }
}

/// What the groups need of the product's blocks.
fn wanted(Fused { prologue, product, epilogue }: &Fused) -> Wanted {
    let leads = |group: &Group| group.outputs.iter().any(|o| matches!(o.kind, OutputKind::ReduceLeading(..)));
    let usual = Wanted::default();
    let whole = epilogue.iter().any(|group| is_row(&group.function));
    let grain = if epilogue.iter().any(leads) { LEADING_ROWS } else { usual.grain };
    prologue::wanted(prologue, product, Wanted { whole, grain, ..usual })
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
    /// Compiles a product with a prologue and an epilogue, which it [`takes`].
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(fused: &Fused, isa: Isa) -> Result<FusedKernel, CompileError> {
        let product = blocked(&fused.product, wanted(fused), isa)?;
        let (lines, width) = product.lines();
        let late = lines * width <= FEW;
        let own = if let Kernel::LinearInt8(_) = *fused.product { 4 } else { 3 };
        let given = own - fused.prologue.len();
        let (mut operand, mut partial, mut places) = (given, 0, 0);
        let mut strips: Vec<Strip> = Vec::with_capacity(fused.prologue.len());
        for made in &fused.prologue {
            let reads = operand..operand + made.group.operands() - 1;
            operand = reads.end;
            let mut strip = Strip::new(made, &fused.product, reads, isa)?;
            strip.lay_out(&*product, (&mut partial, &mut places));
            strips.push(strip);
        }
        let mut groups: Vec<Part> = Vec::with_capacity(fused.epilogue.len());
        for group in &fused.epilogue {
            let kernel = if late { group::compile(group, isa)? } else { group::compile_for_parts(group, isa)? };
            let (operands, here) = (operand..operand + group.operands(), partial);
            (operand, partial) = (operands.end, partial + kernel.partial_bytes().next_multiple_of(64));
            groups.push(Part { kernel, operands, partial: here });
        }
        Ok(FusedKernel { strips, places, product, groups, own, given, partial_bytes: partial, late })
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
        let strips = self.strips.iter().map(Strip::scratch_bytes);
        self.places + groups.chain(strips).fold(self.product.scratch_bytes(), usize::max)
    }

    fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    fn cost(&self) -> u64 {
        let strips: f64 = self.strips.iter().map(|strip| strip.cost(&*self.product)).sum();
        self.product.cost() + strips as u64 + self.groups.iter().map(|part| part.kernel.cost()).sum::<u64>()
    }

    fn has_prepare(&self) -> bool {
        self.strips.iter().any(Strip::is_early)
    }

    unsafe fn prepare(&self, args: &Args<'_>) {
        for strip in self.strips.iter().filter(|strip| strip.is_early()) {
            // SAFETY: as our caller promised.
            unsafe { strip.make_all(args) }
        }
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let mut given = args.operands[..self.given].iter();
        let mut operands = [std::ptr::null_mut(); PRODUCT_OPERANDS];
        let (places, scratch) = scratch.split_at_mut(self.places);
        let places = places.as_mut_ptr();
        // SAFETY: the product's operands come first and are as our caller promised, or are made here. No other chunk
        // makes this block, nor reads or writes the elements of the groups' operands at its indices; sums down columns
        // have partial results for the lines between multiples of `LEADING_ROWS`, where blocks begin.
        unsafe {
            for (number, operand) in operands[..self.own].iter_mut().enumerate() {
                *operand = match self.strips.iter().find(|strip| strip.operand == number) {
                    Some(strip) => strip.make(&*self.product, chunk, args, (places, scratch)),
                    None => *given.next().expect("invariant: an operand is given or made"),
                };
            }
            self.product.run_chunk(chunk, &Args { operands: &operands[..self.own], ..*args }, scratch)?;
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
