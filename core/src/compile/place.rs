//! The place pass: cuts the steps of a graph over several devices into levels. What one device can do without waiting
//! for another is one part of a level; copies stand between levels. A graph on one device is one part.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::dump::Dump;
use super::fuse::{Draft, Step};
use super::plan::Bound;
use super::schedule::{Part, schedule};
use super::world::{Id, World};
use crate::device::Kind;
use crate::error::Problem;
use crate::program::mixed::{Copy, Level, MixedProgram, Segment, Value};
use crate::program::{Body, Output, Program};

/// Schedules steps that may be on several devices. `outputs`: what survives, with the input it would replace.
pub(super) fn place(
    world: &World,
    steps: Vec<Step>,
    outputs: &[(Id, Option<u32>)],
    on: Kind,
    dump: &mut Dump,
) -> Result<Program, (Id, Problem)> {
    let device = |step: &Step| world.ty[step.node.index()].device.0;
    let on = steps.first().map_or(on, device);
    let bound = || (0..world.len() as u32).map(Id).filter_map(|id| Some((id, world.bound[id.index()]?)));
    if steps.iter().all(|s| device(s) == on && !matches!(s.draft, Draft::Copy { .. })) {
        let part = Part { on, steps: &steps, bound: &bound().collect(), inputs: world.given, outputs };
        return schedule(world, &part, dump);
    }
    let mut values: HashMap<Id, Value> = bound().map(|(id, input)| (id, input as usize)).collect();
    let mut count = world.given;
    for id in steps.iter().flat_map(Step::writes) {
        values.entry(id).or_insert_with(|| {
            count += 1;
            count - 1
        });
    }
    let mut levels = Vec::new();
    let cuts = cut(world, &steps);
    dump.places("place", &cuts);
    for (parts, copies) in cuts {
        let mut level = Level::default();
        for (on, part) in parts {
            level.segments.push(segment(world, on, &part, &steps, outputs, &values, dump)?);
        }
        level.copies = copies
            .into_iter()
            .map(|(from, to)| Copy {
                from: values[&from],
                to: values[&to],
                on: world.ty[to.index()].device.0,
                origin: world.origin[to.index()],
            })
            .collect();
        levels.push(level);
    }
    let body =
        Body::Mixed(MixedProgram { levels, values: count, outputs: outputs.iter().map(|o| values[&o.0]).collect() });
    let outputs = outputs.iter().enumerate().map(|(k, (id, _))| Output {
        place: super::plan::Place::Output(k as u32),
        bytes: world.ty[id.index()].bytes(),
    });
    Ok(Program { body, outputs: outputs.collect(), ..Program::default() })
}

/// The steps of one level by device, then the copies of their results.
pub(super) type Cut = (BTreeMap<Kind, Vec<Step>>, Vec<(Id, Id)>);

/// A step is one level above the copies that it reads, directly or through other steps.
fn cut(world: &World, steps: &[Step]) -> Vec<Cut> {
    let mut levels: Vec<Cut> = Vec::new();
    let mut there: HashMap<Id, usize> = HashMap::new();
    for step in steps {
        let level =
            step.reads().iter().chain(&step.writes()).filter_map(|id| there.get(id)).max().copied().unwrap_or(0);
        levels.resize_with(levels.len().max(level + 1), Cut::default);
        match step.draft {
            Draft::Copy { from, to } => {
                levels[level].1.push((from, to));
                there.insert(to, level + 1);
            }
            _ => {
                there.extend(step.writes().into_iter().map(|id| (id, level)));
                levels[level].0.entry(world.ty[step.node.index()].device.0).or_default().push(step.clone());
            }
        }
    }
    levels
}

/// The program of one part: what it reads from elsewhere is bound to it, what is read elsewhere survives it.
fn segment(
    world: &World,
    on: Kind,
    part: &[Step],
    all: &[Step],
    outputs: &[(Id, Option<u32>)],
    values: &HashMap<Id, Value>,
    dump: &mut Dump,
) -> Result<Segment, (Id, Problem)> {
    let written: BTreeSet<Id> = part.iter().flat_map(Step::writes).collect();
    let reads: BTreeSet<Id> = part.iter().flat_map(Step::reads).filter(|id| !written.contains(id)).collect();
    let bound: Bound = reads.iter().enumerate().map(|(k, &id)| (id, k as u32)).collect();
    let is_mine = |step: &Step| step.writes().iter().any(|id| written.contains(id));
    let elsewhere: BTreeSet<Id> = all.iter().filter(|s| !is_mine(s)).flat_map(Step::reads).collect();
    let survives = |id: &Id| elsewhere.contains(id) || outputs.iter().any(|(o, _)| o == id);
    let kept: Vec<(Id, Option<u32>)> = written.iter().filter(|id| survives(id)).map(|&id| (id, None)).collect();
    let program = schedule(world, &Part { on, steps: part, bound: &bound, inputs: bound.len(), outputs: &kept }, dump)?;
    Ok(Segment {
        program,
        inputs: reads.iter().map(|id| values[id]).collect(),
        outputs: kept.iter().map(|(id, _)| values[id]).collect(),
    })
}
