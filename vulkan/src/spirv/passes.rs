//! The passes that a group needs: elementwise ones, passes by rows and down columns. Owns which, in which order, and
//! where their partial results lie; how each is emitted stands in `map`, `row` and `column`.
//!
//! Reductions come before stores: a store may overwrite what a reduction reads. If there is one kind of reduction only,
//! the stores ride along.

use std::sync::Arc;

use tapeflow_ir::reduce::PIECE;
use tapeflow_ir::{Builder, DType, Extent, Op, ScalarFn, Type, V};

use super::Unsupported;
use super::column::{CHUNK, columns};
use super::frame::{Source, Store};
use super::function::{Fold, needed, phases};
use super::map::{MOST_ITERATIONS, map};
use super::row::{Reduction, Rows, pieces, rows};
use super::space::{Access, Place, contiguous, product};
use crate::stage::{Lowering, Shader, Stage, Target};

/// The outputs of a group by kind; reductions with their number of axes.
#[derive(Default)]
pub(super) struct Outputs {
    pub(super) stores: Vec<Store>,
    pub(super) per_row: Vec<Store>,
    pub(super) trailing: Vec<(usize, V, Fold, Place)>,
    pub(super) leading: Vec<(usize, V, Fold, Place)>,
}

/// The passes so far.
pub(super) struct Passes<'t> {
    target: &'t Target,
    lowering: Lowering,
}

impl<'t> Passes<'t> {
    /// Partial results begin at byte `partial`.
    pub(super) fn new(target: &'t Target, partial: usize) -> Passes<'t> {
        Passes { target, lowering: Lowering { partial_bytes: partial, ..Lowering::default() } }
    }

    pub(super) fn finish(self) -> Lowering {
        self.lowering
    }

    /// Room for `count` partial results.
    fn partial(&mut self, count: usize, dtype: DType) -> Place {
        let at = self.lowering.partial_bytes;
        self.lowering.partial_bytes += (count * dtype.size()).next_multiple_of(64);
        Place::Partial(at)
    }

    fn push(&mut self, (shader, groups): (Shader, u64)) -> Result<(), Unsupported> {
        if u32::try_from(groups).is_err() {
            return Err(Unsupported(format!("{groups} workgroups are more than a Vulkan device numbers")));
        }
        let after_barrier = !self.lowering.stages.is_empty();
        self.lowering.stages.push(Stage { shader: Arc::new(shader), groups, operands: 0, after_barrier });
        Ok(())
    }

    /// A function without reductions along rows.
    pub(super) fn plain(&mut self, source: Source, mut outputs: Outputs) -> Result<(), Unsupported> {
        let (trailing, leading) = (std::mem::take(&mut outputs.trailing), std::mem::take(&mut outputs.leading));
        let trailing = by_axes(trailing);
        let leading = by_axes(leading);
        let rides = trailing.len() + leading.len() == 1 && outputs.per_row.is_empty() && product(&source.dims) > 0;
        let mut along = if rides { std::mem::take(&mut outputs.stores) } else { Vec::new() };
        for (axes, reductions) in trailing {
            self.trailing(&source, axes, &reductions, std::mem::take(&mut along))?;
        }
        for (axes, reductions) in leading {
            self.leading(&source, axes, &reductions, std::mem::take(&mut along))?;
        }
        self.stores(source, &outputs)
    }

    /// What is stored element by element and row by row.
    fn stores(&mut self, source: Source, outputs: &Outputs) -> Result<(), Unsupported> {
        if !outputs.stores.is_empty() && product(&source.dims) > 0 {
            self.push(map(self.target, source.clone(), &outputs.stores)?)?;
        }
        let rows = source.dims.len().saturating_sub(1);
        if !outputs.per_row.is_empty() && product(&source.dims[..rows]) > 0 {
            // The row axis is left out: nothing that there is one of per row moves along it.
            let without = |access: &Access| {
                let mut access = access.clone();
                access.layout.strides.truncate(rows);
                access
            };
            let stores: Vec<Store> = outputs.per_row.iter().map(|(v, access)| (*v, without(access))).collect();
            let inputs = source.inputs.iter().map(without).collect();
            let source = Source { inputs, dims: source.dims[..rows].to_vec(), ..source };
            self.push(map(self.target, source, &stores)?)?;
        }
        Ok(())
    }

    /// Fills results of nothing.
    fn fill(&mut self, count: usize, fold: Fold, place: Place) -> Result<(), Unsupported> {
        if count == 0 {
            return Ok(());
        }
        let mut builder = Builder::new();
        let value = builder.push(Op::Const(fold.empty()), Type::row(fold.dtype));
        let function = builder.finish(&[value]);
        let v = function.outputs[0];
        let source = Source { function, inputs: vec![], dims: vec![count], length: count };
        let store = (v, Access::memory(place, fold.dtype, contiguous(&[count])));
        self.push(map(self.target, source, &[store])?)
    }

    /// Reductions of the last `axes` axes.
    fn trailing(
        &mut self,
        source: &Source,
        axes: usize,
        reductions: &[(V, Fold, Place)],
        along: Vec<Store>,
    ) -> Result<(), Unsupported> {
        let split = source.dims.len() - axes;
        let (kept, length) = (product(&source.dims[..split]), product(&source.dims[split..]));
        if kept == 0 || length == 0 {
            return reductions.iter().try_for_each(|&(_, fold, place)| self.fill(kept, fold, place));
        }
        let count = pieces(length);
        let mut targets = Vec::new();
        for &(value, fold, place) in reductions {
            let to = if count > 1 { self.partial(kept * count, fold.dtype) } else { place };
            targets.push(Reduction { value, fold, result: None, to: Some(to) });
        }
        let pass = Rows {
            source: source.clone(),
            split,
            in_pieces: true,
            phases: vec![targets.clone()],
            along,
            after: vec![],
            per_row: vec![],
        };
        self.push(rows(self.target, &pass)?)?;
        if count > 1 {
            // The results of pieces are summed by the same law.
            for (from, &(_, fold, place)) in targets.iter().zip(reductions) {
                let from = from.to.unwrap_or(place);
                let (source, value) = identity(from, fold.dtype, &[kept, count]);
                self.trailing(&source, 1, &[(value, fold, place)], vec![])?;
            }
        }
        Ok(())
    }

    /// Reductions of the first `axes` axes.
    fn leading(
        &mut self,
        source: &Source,
        axes: usize,
        reductions: &[(V, Fold, Place)],
        along: Vec<Store>,
    ) -> Result<(), Unsupported> {
        let (count, cols) = (product(&source.dims[..axes]), product(&source.dims[axes..]));
        if count == 0 || cols == 0 {
            return reductions.iter().try_for_each(|&(_, fold, place)| self.fill(cols, fold, place));
        }
        let chunks = count.div_ceil(CHUNK);
        let mut falls = Vec::new();
        for &(v, fold, place) in reductions {
            let to = if chunks > 1 { self.partial(chunks * cols, fold.dtype) } else { place };
            falls.push((v, fold, to));
        }
        self.push(columns(self.target, source.clone(), axes, CHUNK, &falls, &along)?)?;
        if chunks > 1 {
            for (&(_, fold, from), &(_, _, place)) in falls.iter().zip(reductions) {
                self.chunks(fold, from, place, chunks, cols)?;
            }
        }
        Ok(())
    }

    /// Adds the results of chunks in order. Where one loop is too long, several follow each other: each begins with the
    /// sum of those before.
    fn chunks(&mut self, fold: Fold, from: Place, place: Place, chunks: usize, cols: usize) -> Result<(), Unsupported> {
        let most = if self.target.is_cpu { MOST_ITERATIONS as usize / 2 } else { chunks };
        let mut start = 0;
        while start < chunks {
            let end = chunks.min(start + most);
            // The sum so far takes the place of the last chunk that is in it.
            let first = start.saturating_sub(1);
            let (mut source, value) = identity(from, fold.dtype, &[end - first, cols]);
            source.inputs[0].layout.offset = (first * cols) as isize;
            let to = match from {
                Place::Partial(at) if end < chunks => Place::Partial(at + (end - 1) * cols * fold.dtype.size()),
                _ => place,
            };
            self.push(columns(self.target, source, 1, end - first, &[(value, fold, to)], &[])?)?;
            start = end;
        }
        Ok(())
    }

    /// A function with reductions along rows: the last axis.
    pub(super) fn by_rows(&mut self, mut source: Source, outputs: Outputs) -> Result<(), Unsupported> {
        let Some((&length, outer)) = source.dims.split_last() else {
            return Err(Unsupported("a reduction along the rows of a space without axes".into()));
        };
        if !outputs.trailing.is_empty() {
            return Err(Unsupported("a function with reductions along rows whose result is reduced along rows".into()));
        }
        let count = product(outer);
        if length == 0 {
            for (op, ty) in &mut source.function.values {
                if let Op::Reduce(reduce, _) = *op {
                    *op = Op::Const(Fold { op: reduce, dtype: ty.dtype }.empty());
                }
            }
            return self.plain(source, outputs);
        }
        if count == 0 {
            return by_axes(outputs.leading)
                .into_iter()
                .try_for_each(|(axes, r)| self.leading(&source, axes, &r, vec![]));
        }
        // What is folded down the columns is stored first.
        let mut stores = outputs.stores;
        let mut falls = Vec::new();
        for (axes, v, fold, place) in outputs.leading {
            let from = self.partial(count * length, fold.dtype);
            stores.push((v, Access::memory(from, fold.dtype, contiguous(&source.dims))));
            falls.push((axes, fold, from, place));
        }
        let dims = source.dims.clone();
        let outputs = Outputs { stores, per_row: outputs.per_row, ..Outputs::default() };
        if length > PIECE {
            self.long_rows(source, outputs)?
        } else {
            self.short_rows(source, outputs)?
        }
        for (axes, fold, from, place) in falls {
            let (source, value) = identity(from, fold.dtype, &dims);
            self.leading(&source, axes, &[(value, fold, place)], vec![])?;
        }
        Ok(())
    }

    /// A team per row does it all.
    fn short_rows(&mut self, source: Source, outputs: Outputs) -> Result<(), Unsupported> {
        let phases = reductions(&source.function);
        let phases = (phases.iter())
            .map(|phase| {
                let of =
                    |&(result, value, fold): &(V, V, Fold)| Reduction { value, fold, result: Some(result), to: None };
                phase.iter().map(of).collect()
            })
            .collect();
        let split = source.dims.len() - 1;
        let pass = Rows {
            source,
            split,
            in_pieces: false,
            phases,
            along: vec![],
            after: outputs.stores,
            per_row: outputs.per_row,
        };
        self.push(rows(self.target, &pass)?)
    }

    /// Rows longer than a piece: reductions that can be done at once are stages of their own, whose results the next
    /// ones read as parameters.
    fn long_rows(&mut self, mut source: Source, outputs: Outputs) -> Result<(), Unsupported> {
        let split = source.dims.len() - 1;
        let count = product(&source.dims[..split]);
        let mut row = contiguous(&source.dims[..split]);
        row.strides.push(0);
        for phase in reductions(&source.function) {
            let mut wanted = Vec::new();
            for &(_, value, fold) in &phase {
                wanted.push((value, fold, self.partial(count, fold.dtype)));
            }
            self.trailing(&source, 1, &wanted, vec![])?;
            for (&(result, ..), &(_, fold, place)) in phase.iter().zip(&wanted) {
                let input = Op::Input(source.inputs.len() as u32);
                source.function.values[result.0 as usize].0 = input;
                source.function.inputs.push(Type { dtype: fold.dtype, extent: Extent::Row });
                source.inputs.push(Access::memory(place, fold.dtype, row.clone()));
            }
        }
        self.stores(source, &outputs)
    }
}

/// The reductions that the outputs need, by how deep they lie: result, operand and fold.
fn reductions(function: &ScalarFn) -> Vec<Vec<(V, V, Fold)>> {
    let (needed, phases) = (needed(function, &function.outputs, |_| false), phases(function));
    let mut out: Vec<Vec<(V, V, Fold)>> = Vec::new();
    for (index, &(op, ty)) in function.values.iter().enumerate().filter(|(index, _)| needed[*index]) {
        if let Op::Reduce(op, value) = op {
            let phase = phases[index] - 1;
            out.resize(out.len().max(phase + 1), Vec::new());
            out[phase].push((V(index as u32), value, Fold { op, dtype: ty.dtype }));
        }
    }
    out
}

/// Values by number of axes, in order.
type ByAxes = Vec<(usize, Vec<(V, Fold, Place)>)>;

fn by_axes(reductions: Vec<(usize, V, Fold, Place)>) -> ByAxes {
    let mut out = ByAxes::new();
    for (axes, v, fold, place) in reductions {
        match out.iter_mut().find(|(other, _)| *other == axes) {
            Some((_, entries)) => entries.push((v, fold, place)),
            None => out.push((axes, vec![(v, fold, place)])),
        }
    }
    out
}

/// What lies contiguously at `place`, and the value that it is.
fn identity(place: Place, dtype: DType, dims: &[usize]) -> (Source, V) {
    let mut builder = Builder::new();
    let value = builder.input(Type::lane(dtype));
    let function = builder.finish(&[value]);
    let v = function.outputs[0];
    let inputs = vec![Access::memory(place, dtype, contiguous(dims))];
    (Source { function, inputs, dims: dims.to_vec(), length: dims.last().copied().unwrap_or(1) }, v)
}
