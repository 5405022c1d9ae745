//! The schedule pass: the steps of one device in an order, each with its operands' places and what it waits for.
//! Knows no device; what becomes of a step on one stands in `assemble`.

use super::assemble::Compiled;
use super::dump::Dump;
use super::fuse::Step as Drafted;
use super::hazards::dependencies;
use super::plan::{self, Bound, Place, Plan};
use super::world::{Id, World};
use crate::device::Kind;
use crate::error::Problem;
use crate::program::{self, Program};

/// A step in its place in the program, for whichever device.
pub(super) struct Ordered {
    /// Its number among the drafts.
    pub draft: usize,
    pub name: String,
    pub operands: Vec<Place>,
    /// Numbers of the steps it waits for, and of those that wait for it.
    pub waits: Vec<u32>,
    pub dependents: Vec<u32>,
}

/// What is scheduled together: the steps of one device that wait for no other device.
pub(super) struct Part<'p> {
    pub on: Kind,
    pub steps: &'p [Drafted],
    /// The values that are there already, and the inputs they are bound to.
    pub bound: &'p Bound,
    /// How many inputs there are.
    pub inputs: usize,
    /// What survives, and the input that it may take over.
    pub outputs: &'p [(Id, Option<u32>)],
}

/// Compiles, plans and orders one device's steps.
pub(super) fn schedule(world: &World, part: &Part<'_>, dump: &mut Dump) -> Result<Program, (Id, Problem)> {
    let Part { steps, bound, outputs, .. } = *part;
    let compiled = Compiled::all(world, part)?;
    let partials = compiled.partial_bytes();
    let mut plan = plan::plan(world, steps, bound, &partials, outputs);
    let mut waits = dependencies(world, steps, &partials, &plan);
    let mut order = topological(&waits);
    if order.is_none() {
        // A check depends on an updated value: then nothing is updated in place, and the new values are simply dropped
        // if it fails.
        let apart: Vec<(Id, Option<u32>)> = outputs.iter().map(|&(id, _)| (id, None)).collect();
        plan = plan::plan(world, steps, bound, &partials, &apart);
        waits = dependencies(world, steps, &partials, &plan);
        order = topological(&waits);
    }
    dump.plan("plan", world, &plan);
    let mut order: Vec<usize> = order.ok_or_else(|| (Id(0), cyclic()))?;
    order.retain(|&step| !plan.idle[step]);
    let ordered = in_order(world, steps, &order, &waits, &compiled, &plan);
    dump.program("schedule", plan.arena_bytes, &ordered);
    let body = compiled.assemble(world, part, &plan, &ordered)?;
    let place = |id: &Id| match plan.place[id] {
        Place::Arena(_) => unreachable!("invariant: outputs are placed before the arena"),
        place => place,
    };
    let output = |(id, _): &(Id, _)| program::Output { place: place(id), bytes: world.ty[id.index()].bytes() };
    let outputs = outputs.iter().map(output).collect();
    Ok(Program { body, outputs, arena_bytes: plan.arena_bytes, ..Program::default() })
}

fn in_order(
    world: &World,
    steps: &[Drafted],
    order: &[usize],
    waits: &[Vec<u32>],
    compiled: &Compiled,
    plan: &Plan,
) -> Vec<Ordered> {
    let mut number = vec![0u32; steps.len()];
    for (new, &old) in order.iter().enumerate() {
        number[old] = new as u32;
    }
    let mut dependents = vec![Vec::new(); steps.len()];
    for (new, &old) in order.iter().enumerate() {
        waits[old].iter().for_each(|&w| dependents[number[w as usize] as usize].push(new as u32));
    }
    let ordered = order.iter().zip(dependents).map(|(&draft, dependents)| Ordered {
        draft,
        name: world.op[steps[draft].node.index()].name().into_owned(),
        operands: compiled.operands(draft).iter().map(|id| plan.place[id]).collect(),
        waits: waits[draft].iter().map(|&w| number[w as usize]).collect(),
        dependents,
    });
    ordered.collect()
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
