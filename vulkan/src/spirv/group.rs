//! Groups: what a group's sources and outputs are to the passes, and several groups as one kernel. Which passes there
//! are stands in `passes`.

use std::collections::HashSet;
use std::sync::Arc;

use tapeflow_core::driver::{Group, OutputKind, Source as Input};
use tapeflow_ir::Op;

use super::Unsupported;
use super::frame::Source;
use super::function::{Fold, check, needed, per_row};
use super::passes::{Outputs, Passes};
use super::space::{Access, Place};
use crate::stage::{Lowering, Shader, Stage, Target};

/// Translates one group. Its partial results begin at byte `partial`.
///
/// # Errors
/// If it needs what the device lacks.
pub(super) fn group(group: &Group, target: &Target, partial: usize) -> Result<Lowering, Unsupported> {
    check(&group.function, target)?;
    let rank = group.space.len();
    let accesses = group.inputs.iter().zip(&group.function.inputs);
    let source = Source {
        function: group.function.clone(),
        inputs: accesses.map(|(source, ty)| Access::of(source, ty.dtype, rank)).collect(),
        dims: group.space.to_vec(),
        length: group.space.last().copied().unwrap_or(1),
    };
    let mut outputs = Outputs::default();
    for (index, output) in group.outputs.iter().enumerate() {
        let (v, ty) = (group.function.outputs[index], group.function.output_type(index));
        let place = Place::Operand(output.operand);
        match &output.kind {
            OutputKind::Store(layout) => {
                let store = (v, Access::memory(place, ty.dtype, layout.clone()));
                match per_row(ty.extent, &layout.strides) {
                    true => outputs.per_row.push(store),
                    false => outputs.stores.push(store),
                }
            }
            &OutputKind::ReduceTrailing(op, axes) => {
                outputs.trailing.push((axes, v, Fold { op, dtype: ty.dtype }, place));
            }
            &OutputKind::ReduceLeading(op, axes) => {
                outputs.leading.push((axes, v, Fold { op, dtype: ty.dtype }, place));
            }
        }
    }
    let mut passes = Passes::new(target, partial);
    let reduces = needed(&source.function, &source.function.outputs, |_| false)
        .into_iter()
        .zip(&source.function.values)
        .any(|(needed, (op, _))| needed && matches!(op, Op::Reduce(..)));
    if reduces {
        passes.by_rows(source, outputs)?
    } else {
        passes.plain(source, outputs)?
    }
    Ok(passes.finish())
}

/// Translates groups that neither read nor write each other's results.
///
/// # Errors
/// As for [`group`].
pub(super) fn groups(groups: &[Group], target: &Target) -> Result<Lowering, Unsupported> {
    let mut all = Lowering::default();
    let mut shaders: HashSet<Arc<Shader>> = HashSet::new();
    let mut operands = 0;
    // By how many stages of their own group come before them: one barrier then serves all groups.
    let mut ranks: Vec<Vec<Stage>> = Vec::new();
    for one in groups {
        let lowering = group(one, target, all.partial_bytes)?;
        all.partial_bytes = lowering.partial_bytes;
        let mut rank = 0;
        for mut stage in lowering.stages {
            if !shaders.insert(stage.shader.clone())
                && let Some(same) = shaders.get(&stage.shader)
            {
                stage.shader = same.clone();
            }
            rank += usize::from(stage.after_barrier);
            stage.operands = operands;
            ranks.resize_with(ranks.len().max(rank + 1), Vec::new);
            ranks[rank].push(Stage { after_barrier: false, ..stage });
        }
        operands += operands_of(one);
    }
    for (rank, mut stages) in ranks.into_iter().enumerate() {
        if let Some(first) = stages.first_mut() {
            first.after_barrier = rank > 0;
        }
        all.stages.append(&mut stages);
    }
    Ok(all)
}

/// How many operands a group has.
fn operands_of(group: &Group) -> u32 {
    let reads = group.inputs.iter().filter_map(|source| match source {
        Input::Operand { operand, .. } => Some(*operand),
        _ => None,
    });
    let all = reads.chain(group.outputs.iter().map(|output| output.operand));
    all.max().map_or(0, |last| last as u32 + 1)
}
