//! The schedule pass: turns drafts into compiled steps with their operands' places and dependencies.

use std::sync::Arc;

use super::dump::Dump;
use super::expr::ExprSource;
use super::fuse::{Draft, GroupDraft, Step as Drafted};
use super::plan::{self, Place};
use super::world::{Id, World};
use crate::cpu;
use crate::error::Problem;
use crate::program::kernel::{Executable, Group, Kernel, Output, Source};
use crate::program::{self, Program};

/// A kernel and the nodes its operands are.
pub(crate) fn kernel_of(draft: &Draft) -> (Kernel, Vec<Id>) {
    match draft {
        Draft::Kernel { kernel, reads, write } => (kernel.clone(), reads.iter().chain(write).copied().collect()),
        Draft::Group(g) => {
            let (group, operands) = group_of(g);
            (Kernel::Group(group), operands)
        }
        Draft::Groups(groups) => {
            let (groups, operands): (Vec<Group>, Vec<Vec<Id>>) = groups.iter().map(group_of).unzip();
            (Kernel::Groups(groups), operands.concat())
        }
    }
}

fn group_of(g: &GroupDraft) -> (Group, Vec<Id>) {
    let mut operands: Vec<Id> = Vec::new();
    let mut operand = |id: Id| {
        operands.iter().position(|&o| o == id).unwrap_or_else(|| {
            operands.push(id);
            operands.len() - 1
        })
    };
    let inputs = g.expr.sources.iter().map(|s| match s {
        ExprSource::Node { id, layout } => Source::Operand { operand: operand(*id), layout: layout.clone() },
        ExprSource::Scalar { slot } => Source::Scalar { slot: *slot },
        ExprSource::Iota(layout) => Source::Iota(layout.clone()),
        ExprSource::Random { slot, layout } => Source::Random { slot: *slot, ordinal: 0, layout: layout.clone() },
    });
    let inputs = inputs.collect();
    let outputs = g.outputs.iter().map(|(id, kind)| Output { operand: operand(*id), kind: kind.clone() }).collect();
    let group = Group { space: g.expr.space.clone(), function: g.expr.function.clone(), inputs, outputs };
    (group, operands)
}

/// Compiles, plans and orders `steps`.
pub(crate) fn schedule(
    world: &World,
    steps: &[Drafted],
    outputs: &[(Id, Option<u32>)],
    dump: &mut Dump,
) -> Result<Program, (Id, Problem)> {
    let first = steps.first().map_or(Id(0), |s| s.node);
    let isa = cpu::Isa::detect().map_err(|e| (first, Problem::Setting(e.to_string())))?;
    let mut kernels: Vec<(Arc<dyn Executable>, Vec<Id>)> = Vec::with_capacity(steps.len());
    for step in steps {
        let (kernel, operands) = kernel_of(&step.draft);
        let compiled = cpu::compile(&kernel, isa).map_err(|e| (step.node, Problem::Argument(e.to_string().into())))?;
        kernels.push((compiled, operands));
    }
    let partials: Vec<usize> = kernels.iter().map(|(k, _)| k.partial_bytes()).collect();
    let mut plan = plan::plan(world, steps, &partials, outputs);
    let mut waits = plan::dependencies(world, steps, &partials, &plan);
    let mut order = topological(&waits);
    if order.is_none() {
        // A check depends on an updated value: then nothing is updated in place, and the new values are simply dropped
        // if it fails.
        let apart: Vec<(Id, Option<u32>)> = outputs.iter().map(|&(id, _)| (id, None)).collect();
        plan = plan::plan(world, steps, &partials, &apart);
        waits = plan::dependencies(world, steps, &partials, &plan);
        order = topological(&waits);
    }
    dump.plan("plan", world, &plan);
    let mut order: Vec<usize> = order.ok_or_else(|| (Id(0), cyclic()))?;
    let mut program = Program::default();
    program.arena_bytes = plan.arena_bytes;
    let mut number = vec![0u32; steps.len()];
    for (new, &old) in order.iter().enumerate() {
        number[old] = new as u32;
    }
    for &old in &order {
        let (executable, operands) = &kernels[old];
        let start = program.operands.len();
        program.operands.extend(operands.iter().map(|id| plan.place[id]));
        program.scratch_bytes = program.scratch_bytes.max(executable.scratch_bytes());
        program.cost += executable.cost();
        let node = steps[old].node;
        program.steps.push(program::Step {
            executable: executable.clone(),
            operands: start..program.operands.len(),
            partial: plan.partial[old].0,
            dependents: Vec::new(),
            dependencies: waits[old].len() as u32,
            origin: world.origin[node.index()],
            name: world.op[node.index()].name().into_owned(),
        });
    }
    for old in order.drain(..) {
        for &w in &waits[old] {
            program.steps[number[w as usize] as usize].dependents.push(number[old]);
        }
    }
    program.outputs = outputs
        .iter()
        .map(|(id, _)| {
            let place = match plan.place[id] {
                Place::Arena(_) => unreachable!("invariant: outputs are placed before the arena"),
                place => place,
            };
            program::Output { place, bytes: world.ty[id.index()].bytes() }
        })
        .collect();
    Ok(program)
}

fn cyclic() -> Problem {
    Problem::Argument("invariant: steps wait for earlier steps only".into())
}

/// The steps in an order in which each comes after those it waits for, as close to the given order as can be.
fn topological(waits: &[Vec<u32>]) -> Option<Vec<usize>> {
    let mut left: Vec<usize> = waits.iter().map(Vec::len).collect();
    let mut dependents = vec![Vec::new(); waits.len()];
    for (i, ws) in waits.iter().enumerate() {
        for &w in ws {
            dependents[w as usize].push(i);
        }
    }
    let ready = left.iter().enumerate().filter(|(_, l)| **l == 0).map(|(i, _)| std::cmp::Reverse(i));
    let mut ready: std::collections::BinaryHeap<_> = ready.collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(std::cmp::Reverse(i)) = ready.pop() {
        order.push(i);
        for &d in &dependents[i] {
            left[d] -= 1;
            if left[d] == 0 {
                ready.push(std::cmp::Reverse(d));
            }
        }
    }
    (order.len() == waits.len()).then_some(order)
}
