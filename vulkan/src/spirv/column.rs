//! Passes down columns: one invocation folds a chunk of rows of one column, in order, by the law of
//! `tapeflow_ir::reduce`. Owns how chunks and columns are shared out.

use rspirv::spirv::Op;
use tapeflow_ir::V;
use tapeflow_ir::reduce::LEADING_CHUNK;

use super::Unsupported;
use super::asm::{Asm, Id, Ty};
use super::frame::{Frame, Source, Store};
use super::function::{Fold, Level, iterations};
use super::map::{local, portion, share, workgroup};
use super::space::{Access, Cursor, Place, contiguous, product};
use crate::stage::{Shader, Target};

/// A fold down the columns and where the results go: contiguous over (chunk, column).
pub(super) type Fall = (V, Fold, Place);

/// Folds chunks of the first `split` axes for every index of the others, and stores elements along the way. Neither
/// rows nor columns are none.
///
/// # Errors
/// If the device cannot run such a loop.
pub(super) fn columns(
    target: &Target,
    source: Source,
    split: usize,
    chunk: usize,
    falls: &[Fall],
    along: &[Store],
) -> Result<(Shader, u64), Unsupported> {
    let wanted: Vec<V> = falls.iter().map(|(v, ..)| *v).chain(along.iter().map(|(v, _)| *v)).collect();
    let source = source.pruned(&wanted);
    let along: Vec<&Store> = along.iter().collect();
    // Columns are walked from outside, rows within: the outer axes of the frame are the columns.
    let (rows, cols) = source.dims.split_at(split);
    let (rows, cols) = (product(rows), product(cols));
    let source = turned(source, split);
    let along: Vec<Store> = along.iter().map(|(v, access)| (*v, turned_access(access, split))).collect();
    let along: Vec<&Store> = along.iter().collect();
    let space = source.space(source.dims.len() - split, &along);
    let chunks = rows.div_ceil(chunk);
    let (items, ty) = ((chunks * cols) as u64, space.index);
    let each = (chunk.min(rows) as u64) * (1 + iterations(&source.function)) + 2;
    let workgroup = workgroup(target);
    let share = share(target, items, workgroup.into(), each)?;
    let groups = items.div_ceil(share);

    let mut shader = Asm::new(target, workgroup, groups);
    let asm = &mut shader;
    let mut frame = Frame::open(asm, &source, &space, &along);
    frame.hoist(asm, &wanted, Level::Fixed, 0);
    let results: Vec<Cursor> = (falls.iter())
        .map(|(_, fold, place)| Cursor::open(asm, 0, &Access::memory(*place, fold.dtype, contiguous(&[]))))
        .collect();
    let initial: Vec<(Ty, Id)> = falls.iter().map(|(_, fold, _)| (Ty::of(fold.dtype), fold.identity(asm))).collect();
    let [first, end] = portion(asm, ty, items, share);
    let [local, step] = local(asm, ty);
    let start = asm.op(Op::IAdd, ty, &[first, local]);
    asm.count(ty, [start, end, step], &[], |asm, item, _| {
        let [cols, size, all, one] = [cols, chunk, rows, 1].map(|value| asm.int(ty, value as i64));
        let (number, col) = (asm.op(Op::UDiv, ty, &[item, cols]), asm.op(Op::UMod, ty, &[item, cols]));
        let first = asm.op(Op::IMul, ty, &[number, size]);
        let end = asm.op(Op::IAdd, ty, &[first, size]);
        let within = asm.op(Op::ULessThan, Ty::Bool, &[end, all]);
        let end = asm.select(ty, within, end, all);
        let mut frame = frame.outer(asm, col);
        frame.hoist(asm, &wanted, Level::Outer, 0);
        let totals = asm.count(ty, [first, end, one], &initial, |asm, row, sums| {
            let (frame, index) = frame.inner(asm, row, &wanted);
            along.iter().enumerate().for_each(|(number, (v, _))| frame.write(asm, number, *v, &index));
            let fall = |((v, fold, _), &sum): (&Fall, &Id)| {
                let value = frame.folded(asm, *v, *fold);
                fold.combine(asm, sum, value)
            };
            falls.iter().zip(sums).map(fall).collect()
        });
        results.iter().zip(totals).for_each(|(cursor, total)| cursor.write_at(asm, ty, item, total));
        vec![]
    });
    Ok((shader.finish(), groups))
}

/// Rows of a chunk as the law has it.
pub(super) const CHUNK: usize = LEADING_CHUNK;

/// The first `split` axes made the last.
fn turned(mut source: Source, split: usize) -> Source {
    source.dims.rotate_left(split);
    source.inputs.iter_mut().for_each(|input| *input = turned_access(input, split));
    source
}

fn turned_access(access: &Access, split: usize) -> Access {
    let mut access = access.clone();
    access.layout.strides.rotate_left(split);
    access
}
