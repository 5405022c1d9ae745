//! Elementwise passes: every element of a space is computed and stored. Owns how elements are shared out.

use rspirv::spirv::Op;
use tapeflow_ir::V;

use super::Unsupported;
use super::asm::{Asm, Id, Ty};
use super::frame::{Frame, Source, Store};
use super::function::{Level, iterations};
use super::space::product;
use crate::stage::{Shader, Target};

/// Loop iterations that one invocation may run on a processor: lavapipe ends loops after 65,535 in all.
pub(super) const MOST_ITERATIONS: u64 = 60_000;
/// Workgroups wanted on a processor, if there is little to do: each costs about a microsecond.
pub(super) const FEW_GROUPS: u64 = 64;
/// Iterations that are not worth a workgroup of their own there.
const FEW_ITERATIONS: u64 = 32;

/// Invocations of a workgroup.
pub(super) fn workgroup(target: &Target) -> u32 {
    if target.is_cpu { target.subgroup } else { target.workgroup.min(256) }.max(1)
}

/// How many of `items` a workgroup takes that can do `at_once` of them at once, if each costs so many iterations.
///
/// # Errors
/// If a single item has too many iterations.
pub(super) fn share(target: &Target, items: u64, at_once: u64, each: u64) -> Result<u64, Unsupported> {
    if !target.is_cpu {
        return Ok(at_once);
    }
    if each > MOST_ITERATIONS {
        return Err(Unsupported(format!("a loop of {each} iterations is longer than this Vulkan device runs")));
    }
    let rounds = items.div_ceil(FEW_GROUPS * at_once).max(FEW_ITERATIONS / each.max(1));
    Ok(at_once * rounds.min(4096).min(MOST_ITERATIONS / each.max(1)).max(1))
}

/// The part of `0..items` that this workgroup takes, `share` each: first and end, of type `ty`.
pub(super) fn portion(asm: &mut Asm, ty: Ty, items: u64, share: u64) -> [Id; 2] {
    let group = if ty == Ty::U64 { asm.op(Op::UConvert, ty, &[asm.group]) } else { asm.group };
    let (size, all) = (asm.share(ty, share), asm.int(ty, items as i64));
    let first = asm.op(Op::IMul, ty, &[group, size]);
    let end = asm.op(Op::IAdd, ty, &[first, size]);
    let within = asm.op(Op::ULessThan, Ty::Bool, &[end, all]);
    [first, asm.select(ty, within, end, all)]
}

/// The invocation's number in its workgroup and the workgroup's size, of type `ty`.
pub(super) fn local(asm: &mut Asm, ty: Ty) -> [Id; 2] {
    [asm.local, asm.workgroup_size()].map(|id| if ty == Ty::U64 { asm.op(Op::UConvert, ty, &[id]) } else { id })
}

/// Computes and stores every element.
///
/// # Errors
/// If the device cannot run such a loop.
pub(super) fn map(target: &Target, source: Source, stores: &[Store]) -> Result<(Shader, u64), Unsupported> {
    let wanted: Vec<V> = stores.iter().map(|(v, _)| *v).collect();
    let source = source.pruned(&wanted);
    let stores: Vec<&Store> = stores.iter().collect();
    let total = product(&source.dims) as u64;
    let workgroup = workgroup(target);
    let each = 1 + iterations(&source.function);
    let mut space = source.space(0, &stores);
    let run = space.inner.last().copied().unwrap_or(1) as u64;
    let by_runs = space.inner.len() > 1 && run >= 8 * u64::from(if target.is_cpu { workgroup } else { 64 });
    if by_runs {
        space = space.by_runs();
    }
    let ty = space.index;
    // Elements of a workgroup.
    let share = if target.is_cpu {
        share(target, total, workgroup.into(), each)?
    } else {
        u64::from(workgroup) * if total < 1 << 22 { 4 } else { 8 }
    };
    if !by_runs {
        let groups = total.div_ceil(share);
        let mut asm = Asm::new(target, workgroup, groups);
        let mut frame = Frame::open(&mut asm, &source, &space, &stores);
        frame.hoist(&mut asm, &wanted, Level::Outer, 0);
        let [first, end] = portion(&mut asm, ty, total, share);
        elements(&mut asm, &frame, ty, [first, end], &stores, &wanted);
        return Ok((asm.finish(), groups));
    }
    // Runs are cut into blocks, or several of them are taken together.
    let block = share.min(run);
    let (blocks, rows) = (run.div_ceil(block), product(&space.outer) as u64);
    let together = if blocks > 1 { 1 } else { (share / run).max(1) };
    let together = if target.is_cpu {
        together.min(MOST_ITERATIONS / (1 + run.div_ceil(workgroup.into()) * each)).max(1)
    } else {
        together
    };
    let groups = rows.div_ceil(together) * blocks;
    let mut asm = Asm::new(target, workgroup, groups);
    let mut frame = Frame::open(&mut asm, &source, &space, &stores);
    frame.hoist(&mut asm, &wanted, Level::Fixed, 0);
    let row_elements = |asm: &mut Asm, row: Id, first: Id, end: Id| {
        let mut frame = frame.outer(asm, row);
        frame.hoist(asm, &wanted, Level::Outer, 0);
        elements(asm, &frame, ty, [first, end], &stores, &wanted);
    };
    if blocks > 1 {
        let group = if ty == Ty::U64 { asm.op(Op::UConvert, ty, &[asm.group]) } else { asm.group };
        let [count, size, all] = [blocks, block, run].map(|value| asm.int(ty, value as i64));
        let row = asm.op(Op::UDiv, ty, &[group, count]);
        let number = asm.op(Op::UMod, ty, &[group, count]);
        let first = asm.op(Op::IMul, ty, &[number, size]);
        let end = asm.op(Op::IAdd, ty, &[first, size]);
        let within = asm.op(Op::ULessThan, Ty::Bool, &[end, all]);
        let end = asm.select(ty, within, end, all);
        row_elements(&mut asm, row, first, end);
    } else {
        let [first, end] = portion(&mut asm, ty, rows, together);
        let [zero, one, all] = [0, 1, run].map(|value| asm.int(ty, value as i64));
        asm.count(ty, [first, end, one], &[], |asm, row, _| {
            row_elements(asm, row, zero, all);
            vec![]
        });
    }
    Ok((asm.finish(), groups))
}

/// Stores elements `first..end` of the inner axes, shared out among the workgroup.
fn elements(asm: &mut Asm, frame: &Frame<'_>, ty: Ty, [first, end]: [Id; 2], stores: &[&Store], wanted: &[V]) {
    let [local, step] = local(asm, ty);
    let start = asm.op(Op::IAdd, ty, &[first, local]);
    asm.count(ty, [start, end, step], &[], |asm, at, _| {
        let (frame, index) = frame.inner(asm, at, wanted);
        stores.iter().enumerate().for_each(|(number, (v, _))| frame.write(asm, number, *v, &index));
        vec![]
    });
}
