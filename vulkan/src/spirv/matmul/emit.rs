//! The stages of a product: which workgroup computes which part, and the addition of the parts of a long sum.
//! Owns the numbering of workgroups; the forms are their own files.

use std::sync::Arc;

use rspirv::spirv::{GlslStd450Op as GLOp, Op};
use tapeflow_core::driver::{Layout, Matmul, Strides};
use tapeflow_ir::DType;

use super::super::Unsupported;
use super::super::asm::{Asm, Id, Ty};
use super::super::number::{indices, offset, plus, plus_constant, smaller};
use super::super::spread::Spread;
use super::product::{Product, Side};
use super::tiles::{Choice, Form, choose, groups};
use super::{block, dot, tile};
use crate::stage::{Lowering, Stage, Target};

/// What all workgroups have in common.
pub(super) struct Part {
    /// Addresses of the operands, with their offsets, and of the result.
    pub left: Id,
    pub right: Id,
    pub out: Id,
    /// What the operands are, and what the result is: parts of half precision are f32.
    pub read: DType,
    pub written: DType,
    fused: bool,
}

impl Part {
    /// `a · b + c`: fused where that is one instruction.
    pub fn multiply_add(&self, asm: &mut Asm, ty: Ty, a: Id, b: Id, c: Id) -> Id {
        if self.fused {
            return asm.glsl(GLOp::Fma, ty, &[a, b, c]);
        }
        let product = asm.rounded(Op::FMul, ty, &[a, b]);
        asm.rounded(Op::FAdd, ty, &[c, product])
    }
}

/// What a workgroup has for itself.
pub(super) struct Place {
    /// The number of its block of rows and of columns, u32.
    pub row: Id,
    pub col: Id,
    /// Offsets of its item and its part of the sum, in elements, u64.
    pub left: Id,
    pub right: Id,
    pub out: Id,
    /// Its part of the sum, u32.
    pub begin: Id,
    pub end: Id,
}

/// Translates a product.
///
/// # Errors
/// For dtypes that the device lacks, and for extents beyond 2³¹.
pub fn matmul(matmul: &Matmul, target: &Target) -> Result<Lowering, Unsupported> {
    match matmul.dtype {
        DType::F32 => {}
        DType::F64 if target.has_f64 => {}
        DType::F16 | DType::BF16 if target.has_halves => {}
        dtype => return Err(Unsupported(format!("this device has no matmul in {dtype}"))),
    }
    if !matmul.is_well_formed() {
        return Err(Unsupported("a matmul's layouts have its batch axes and those of two of m, n and k".into()));
    }
    let Some(product) = Product::new(matmul) else {
        return Err(Unsupported("a matmul over several axes is lowered as a group".into()));
    };
    if product.elements() == 0 {
        return Ok(Lowering::default());
    }
    let Choice { product, form, splits, chunk } = choose(product, target);
    let count = groups(&product, form) * splits;
    let longest = product.rows.max(product.cols).max(product.depth + chunk).max(product.items());
    if longest >= 1 << 31 || count >= 1 << 31 {
        return Err(Unsupported(format!("a matmul of {longest} lines is beyond this device")));
    }
    let choice = Choice { product, form, splits, chunk };
    let mut lowering = Lowering::default();
    lowering.stages.push(products(&choice, count, target));
    if splits > 1 {
        lowering.partial_bytes = (splits * choice.product.elements()) as usize * matmul.dtype.computed().size();
        lowering.stages.push(sums(&choice, target));
    }
    Ok(lowering)
}

/// The address of an operand's first element.
fn base(asm: &mut Asm, side: &Side, dtype: DType) -> Id {
    let layout = Layout { offset: side.offset as isize, shifts: side.shifts.clone(), strides: Strides::new() };
    asm.base(side.operand as usize, &layout, dtype)
}

/// The stage that multiplies.
fn products(choice: &Choice, count: u64, target: &Target) -> Stage {
    let Choice { product, form, splits, .. } = choice;
    let workgroup = match form {
        Form::Block(block) => block.lanes,
        Form::Tile(tile) => tile.side * tile.side,
        Form::Dot(lanes) => *lanes,
    };
    let mut asm = Asm::new(target, workgroup, count);
    let asm_ref = &mut asm;
    let left = base(asm_ref, &product.left, product.dtype);
    let right = base(asm_ref, &product.right, product.dtype);
    let out = if *splits > 1 { asm_ref.partial() } else { asm_ref.operand(2) };
    let read = product.dtype;
    let written = if *splits > 1 { read.computed() } else { read };
    let part = Part { left, right, out, read, written, fused: !target.is_cpu };
    let place = place(asm_ref, choice);
    match form {
        Form::Block(form) => block::emit(asm_ref, product, form, &part, &place),
        Form::Tile(form) => tile::emit(asm_ref, product, form, &part, &place),
        Form::Dot(lanes) => dot::emit(asm_ref, product, *lanes, &part, &place),
    }
    Stage { shader: Arc::new(asm.finish()), groups: count, operands: 0, after_barrier: false }
}

/// What the workgroup's number means: blocks of rows run fastest, so that workgroups at work at the same time read the
/// same columns.
fn place(asm: &mut Asm, choice: &Choice) -> Place {
    let Choice { product, form, splits, chunk } = choice;
    let [height, width] = form.extents().map(u64::from);
    let mut extents = vec![*splits];
    extents.extend(product.batch.iter().rev().map(|axis| axis.extent));
    extents.extend([product.cols.div_ceil(width), product.rows.div_ceil(height)]);
    let group = asm.group;
    let numbers = indices(asm, Ty::U32, group, &extents);
    let [split, items @ .., col, row] = &numbers[..] else { unreachable!("invariant: a split and two blocks") };
    let (begin, end) = match splits {
        1 => (asm.u32(0), asm.u32(product.depth as u32)),
        _ => {
            let depth = asm.share(Ty::U32, *chunk);
            let begin = asm.op(Op::IMul, Ty::U32, &[*split, depth]);
            let end = plus(asm, Ty::U32, begin, depth);
            let depth = asm.u32(product.depth as u32);
            (begin, smaller(asm, Ty::U32, end, depth))
        }
    };
    let mut of = |strides: fn(&super::product::Axis) -> i64, last: (Id, i64)| {
        let mut terms: Vec<(Id, i64)> = items.iter().copied().zip(product.batch.iter().rev().map(strides)).collect();
        terms.push(last);
        offset(asm, Ty::U32, &terms)
    };
    let left = of(|axis| axis.left, (begin, product.left.depth));
    let right = of(|axis| axis.right, (begin, product.right.depth));
    let out = of(|axis| axis.out, (*split, if *splits > 1 { product.elements() as i64 } else { 0 }));
    Place { row: *row, col: *col, left, right, out, begin, end }
}

/// The stage that adds the parts, which lie one after the other, in order.
fn sums(choice: &Choice, target: &Target) -> Stage {
    let (elements, dtype) = (choice.product.elements(), choice.product.dtype);
    let ty = Ty::of(dtype.computed());
    let spread = Spread::new(target, elements, choice.splits);
    let number = spread.ty();
    let mut asm = spread.begin(target);
    let (partial, out) = (asm.partial(), asm.operand(2));
    spread.each(&mut asm, |asm, at| {
        let first = asm.element(partial, number, at, ty.size());
        let value = asm.load_as(ty, first);
        let [one, parts] = [1, choice.splits].map(|count| asm.u32(count as u32));
        let by = asm.u32(1);
        let last = asm.count(Ty::U32, [one, parts, by], &[(ty, value), (Ty::U64, first)], |asm, _, carried| {
            let address = plus_constant(asm, Ty::U64, carried[1], elements as i64 * i64::from(ty.size()));
            let value = asm.load_as(ty, address);
            vec![asm.rounded(Op::FAdd, ty, &[carried[0], value]), address]
        });
        let to = asm.element(out, number, at, dtype.size() as u32);
        asm.store_computed(dtype, to, last[0]);
    });
    spread.finish(asm, true)
}
