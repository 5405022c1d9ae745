//! Groups seen as functions of rows: where what is summed, or what an operand repeats, is one run of neighbouring
//! elements (the pixels of a channel), such a run is a row. Then what is the same for all of a run is computed once for
//! each, many runs are taken at a time, and sums go to their places without partial results.
//!
//! Owns when that is done, and the same group over rows; the bits are the same. Knows no instructions.

use smallvec::SmallVec;
use tapeflow_ir::{Op, Type, V};

use super::fold::PIECE;
use super::space::{collapse, is_linear, product};
use super::vector::BLOCK;
use crate::program::kernel::{Dims, Group, Layout, Output, OutputKind, Shifts, Source};

/// The group over rows of at most `most` elements, if it is better run so.
pub fn as_rows(group: &Group, most: usize) -> Option<Group> {
    if product(&group.space) == 0 || group.function.values.iter().any(|(op, _)| matches!(op, Op::Reduce(..))) {
        return None;
    }
    let kept = kept(group)?;
    let layouts: Vec<&Layout> = group.inputs.iter().filter_map(layout).chain(stores(group)).collect();
    let (dims, layouts) = merged(&group.space, &layouts, kept)?;
    let (outer, length) = (&dims[..dims.len() - 1], dims[dims.len() - 1]);
    let sums = kept < group.space.len();
    if length < BLOCK || sums && length > most.min(PIECE) {
        return None;
    }
    let (dims, layouts) = if length > most { cut(&dims, layouts, most)? } else { (dims.clone(), layouts) };
    let last = |layout: &Layout| layout.strides.last().copied().unwrap_or(0);
    let repeats = |layout: &Layout| last(layout) == 0 && layout.strides.iter().any(|&stride| stride != 0);
    let in_order = |layout: &Layout| last(layout) == 0 || is_linear(&dims, &layout.strides);
    let stored = &layouts[layouts.len() - stores(group).count()..];
    if !layouts.iter().all(in_order) || stored.iter().any(|layout| last(layout) == 0) {
        return None;
    }
    // Without anything that a run has once, elements may as well be cut anywhere.
    if product(outer) < 2 || !(sums || layouts.iter().any(repeats)) {
        return None;
    }
    Some(over(group, dims, layouts))
}

/// How many leading axes are not summed; `None` for sums of other kinds, or of different axes.
fn kept(group: &Group) -> Option<usize> {
    let mut kept = None;
    for output in &group.outputs {
        match output.kind {
            OutputKind::Store(_) => {}
            OutputKind::ReduceLeading(..) => return None,
            OutputKind::ReduceTrailing(_, axes) => {
                let of_output = group.space.len().checked_sub(axes)?;
                if kept.is_some_and(|kept| kept != of_output) {
                    return None;
                }
                kept = Some(of_output);
            }
        }
    }
    Some(kept.unwrap_or(group.space.len()))
}

fn layout(source: &Source) -> Option<&Layout> {
    match source {
        Source::Operand { layout, .. } | Source::Iota(layout) | Source::Random { layout, .. } => Some(layout),
        Source::Scalar { .. } => None,
    }
}

fn stores(group: &Group) -> impl Iterator<Item = &Layout> {
    group.outputs.iter().filter_map(|output| match &output.kind {
        OutputKind::Store(layout) => Some(layout),
        _ => None,
    })
}

/// The space with axes merged, but not across `kept`; what is after it must become one axis.
fn merged(space: &[usize], layouts: &[&Layout], kept: usize) -> Option<(Dims, Vec<Layout>)> {
    let part = |range: std::ops::Range<usize>| {
        let layouts: Vec<Layout> = layouts.iter().map(|layout| axes_of(layout, range.clone())).collect();
        collapse(&space[range], &layouts.iter().collect::<Vec<_>>(), false)
    };
    let (mut dims, mut out) = part(0..kept);
    if kept < space.len() {
        let (length, inner) = part(kept..space.len());
        let &[length] = &length[..] else { return None };
        dims.push(length);
        out.iter_mut().zip(inner).for_each(|(out, inner)| out.strides.extend(inner.strides));
    }
    Some((dims, out))
}

fn axes_of(layout: &Layout, axes: std::ops::Range<usize>) -> Layout {
    Layout { strides: layout.strides[axes].iter().copied().collect(), ..layout.clone() }
}

/// Runs cut into equal rows, if their length has a factor that is not too small.
fn cut(dims: &[usize], layouts: Vec<Layout>, most: usize) -> Option<(Dims, Vec<Layout>)> {
    let (&length, outer) = dims.split_last()?;
    let part = (most / 4..=most).rev().find(|part| length.is_multiple_of(*part))?;
    let dims: Dims = outer.iter().copied().chain([length / part, part]).collect();
    let cut = |mut layout: Layout| {
        let last = layout.strides.pop().unwrap_or(0);
        layout.strides.extend([last * part as isize, last]);
        layout
    };
    Some((dims, layouts.into_iter().map(cut).collect()))
}

/// The group over this space, with what is summed as reductions of rows.
fn over(group: &Group, space: Dims, layouts: Vec<Layout>) -> Group {
    let mut layouts = layouts.into_iter();
    let mut next = || layouts.next().unwrap_or(Layout { offset: 0, shifts: Shifts::new(), strides: SmallVec::new() });
    let inputs = group.inputs.iter().map(|source| match source {
        Source::Operand { operand, .. } => Source::Operand { operand: *operand, layout: next() },
        Source::Iota(_) => Source::Iota(next()),
        &Source::Random { slot, ordinal, .. } => Source::Random { slot, ordinal, layout: next() },
        Source::Scalar { slot } => Source::Scalar { slot: *slot },
    });
    let inputs = inputs.collect();
    let mut function = group.function.clone();
    let mut outputs = Vec::with_capacity(group.outputs.len());
    for (index, output) in group.outputs.iter().enumerate() {
        let layout = match output.kind {
            OutputKind::Store(_) => next(),
            OutputKind::ReduceTrailing(reduce, _) | OutputKind::ReduceLeading(reduce, _) => {
                let of = function.outputs[index];
                let dtype = function.values[of.0 as usize].1.dtype;
                function.values.push((Op::Reduce(reduce, of), Type::row(dtype)));
                function.outputs[index] = V(function.values.len() as u32 - 1);
                one_per_row(&space)
            }
        };
        outputs.push(Output { operand: output.operand, kind: OutputKind::Store(layout) });
    }
    Group { space, function, inputs, outputs }
}

/// Results of rows, one after another.
fn one_per_row(space: &[usize]) -> Layout {
    let mut layout = Layout::contiguous(&space[..space.len() - 1]);
    layout.strides.push(0);
    layout
}
