//! The device's side of scheduling: drafts become kernels, kernels are compiled for the host or translated by a driver,
//! and ordered steps become the body of a program. What differs between the host and a driver stands here.

use std::sync::Arc;

use super::expr::ExprSource;
use super::fuse::{Draft, GroupDraft, Step};
use super::label::Labels;
use super::plan::{Place, Plan};
use super::schedule::{Ordered, Part};
use super::world::{Id, World};
use crate::cpu;
use crate::device;
use crate::driver::{self, Driver, Lowered, PlannedStep};
use crate::error::Problem;
use crate::program::kernel::{Executable, Fused, Group, Kernel, Made, Output, Source};
use crate::program::work::{self, Described};
use crate::program::{Body, DrivenProgram, HostProgram, host};

/// A kernel and the nodes its operands are; `None` for a copy between devices.
fn kernel_of(draft: &Draft) -> Option<(Kernel, Vec<Id>)> {
    Some(match draft {
        Draft::Kernel { kernel, reads, write, prologue, epilogue } => {
            let is_given = |at: usize| prologue.iter().all(|(made, _)| *made != at);
            let given = reads.iter().enumerate().filter(|(at, _)| is_given(*at)).map(|(_, id)| id);
            let mut operands: Vec<Id> = given.chain(write).copied().collect();
            if prologue.is_empty() && epilogue.is_empty() {
                return Some((kernel.clone(), operands));
            }
            for (_, group) in prologue {
                let mut own = group_of(group).1;
                own.pop();
                operands.extend(own);
            }
            operands.extend(epilogue.iter().flat_map(|group| group_of(group).1));
            (Kernel::Fused(fused_of(kernel, prologue, epilogue)), operands)
        }
        Draft::Group(g) => {
            let (group, operands) = group_of(g);
            (Kernel::Group(group), operands)
        }
        Draft::Groups(groups) => {
            let (groups, operands): (Vec<Group>, Vec<Vec<Id>>) = groups.iter().map(group_of).unzip();
            (Kernel::Groups(groups), operands.concat())
        }
        Draft::Copy { .. } => return None,
    })
}

/// A product with what makes its operands and what goes on with its result.
pub(super) fn fused_of<'d>(
    product: &Kernel,
    prologue: &[(usize, GroupDraft)],
    epilogue: impl IntoIterator<Item = &'d GroupDraft>,
) -> Fused {
    let made = |(operand, group): &(usize, GroupDraft)| Made { operand: *operand, group: group_of(group).0 };
    Fused {
        prologue: prologue.iter().map(made).collect(),
        product: Box::new(product.clone()),
        epilogue: epilogue.into_iter().map(|group| group_of(group).0).collect(),
    }
}

/// A group, and the nodes its operands are: what it reads, then what it stores.
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
        ExprSource::Random { slot, ordinal, layout } => {
            Source::Random { slot: *slot, ordinal: *ordinal, layout: layout.clone() }
        }
    });
    let inputs = inputs.collect();
    let outputs = g.outputs.iter().map(|(id, kind)| Output { operand: operand(*id), kind: kind.clone() }).collect();
    let group = Group { space: g.expr.space.clone(), function: g.expr.function.clone(), inputs, outputs };
    (group, operands)
}

/// Bytes of a step's operands, as far as memory has to do with them: what an epilogue reads of what the step made
/// before is in the caches.
fn sizes(world: &World, step: &Step, operands: &[Id]) -> Vec<usize> {
    let made = step.writes();
    let bytes = |(at, id): (usize, &Id)| match made.contains(id) && operands[..at].contains(id) {
        true => 0,
        false => world.ty[id.index()].bytes(),
    };
    operands.iter().enumerate().map(bytes).collect()
}

/// The kernels of one device's steps.
pub(super) struct Compiled {
    kernels: Kernels,
    operands: Vec<Vec<Id>>,
    described: Vec<Described>,
    /// Whether a step can find a bad index.
    fallible: bool,
}

enum Kernels {
    Host(Vec<Arc<dyn Executable>>),
    Driven(Arc<dyn Driver>, Vec<Arc<dyn Lowered>>),
}

impl Compiled {
    /// Compiles every step of a part.
    pub fn all(world: &World, part: &Part<'_>) -> Result<Compiled, (Id, Problem)> {
        let first = part.steps.first().map_or(Id(0), |s| s.node);
        let mut drafts = Vec::with_capacity(part.steps.len());
        for step in part.steps {
            let misplaced = || (step.node, Problem::Argument("invariant: copies stand between the parts".into()));
            drafts.push((step.node, kernel_of(&step.draft).ok_or_else(misplaced)?));
        }
        let fallible = drafts.iter().any(|(_, (kernel, _))| kernel.is_fallible());
        let kernels = match device::driver(part.on) {
            None => {
                let isa = cpu::Isa::detect().map_err(|e| (first, Problem::Setting(e.to_string())))?;
                let compile = |(node, (kernel, _)): &(Id, (Kernel, _))| {
                    cpu::compile(kernel, isa).map_err(|e| (*node, Problem::Argument(e.to_string().into())))
                };
                Kernels::Host(drafts.iter().map(compile).collect::<Result<_, _>>()?)
            }
            Some(driver) => {
                let lower = |(node, (kernel, _)): &(Id, (Kernel, _))| {
                    driver.lower(kernel).map_err(|e| (*node, device::problem(part.on, e)))
                };
                let kernels = drafts.iter().map(lower).collect::<Result<_, _>>()?;
                Kernels::Driven(driver, kernels)
            }
        };
        let labels = Labels::new(world);
        let described = part.steps.iter().zip(&drafts).map(|(step, (_, (kernel, operands)))| {
            let (name, origins) = labels.of(step);
            let bytes = sizes(world, step, operands);
            let (dtype, work) = (work::dtype(kernel), work::work(kernel, &bytes));
            Described { name, dtype, work, origins, chunks: 0, finishes: false }
        });
        let described = described.collect();
        let operands = drafts.into_iter().map(|(_, (_, operands))| operands).collect();
        Ok(Compiled { kernels, operands, described, fallible })
    }

    /// What each step needs for itself.
    pub fn partial_bytes(&self) -> Vec<usize> {
        match &self.kernels {
            Kernels::Host(kernels) => kernels.iter().map(|k| k.partial_bytes()).collect(),
            Kernels::Driven(_, kernels) => kernels.iter().map(|k| k.partial_bytes()).collect(),
        }
    }

    /// The nodes that a step's operands are.
    pub fn operands(&self, draft: usize) -> &[Id] {
        &self.operands[draft]
    }

    /// The program of the ordered steps.
    pub fn assemble(
        mut self,
        world: &World,
        part: &Part<'_>,
        plan: &Plan,
        ordered: &[Ordered],
    ) -> Result<Body, (Id, Problem)> {
        let origin = |step: &Ordered| world.origin[part.steps[step.draft].node.index()];
        let mut described: Vec<Option<Described>> = self.described.drain(..).map(Some).collect();
        let described: Vec<Described> = ordered.iter().filter_map(|step| described[step.draft].take()).collect();
        match self.kernels {
            Kernels::Host(kernels) => {
                let mut program = HostProgram::default();
                let mut described = described;
                for (step, described) in ordered.iter().zip(&mut described) {
                    let executable = kernels[step.draft].clone();
                    (described.chunks, described.finishes) = (executable.chunks(), executable.has_finish());
                    let start = program.operands.len();
                    program.operands.extend(&step.operands);
                    program.scratch_bytes = program.scratch_bytes.max(executable.scratch_bytes());
                    program.cost += executable.cost();
                    program.steps.push(host::Step {
                        executable,
                        operands: start..program.operands.len(),
                        partial: plan.partial[step.draft].0,
                        dependents: step.dependents.clone(),
                        dependencies: step.waits.len() as u32,
                        origin: origin(step),
                    });
                }
                program.described = described.into();
                Ok(Body::Host(program))
            }
            Kernels::Driven(driver, kernels) => {
                let updates = |step: &Ordered| {
                    let written = part.steps[step.draft].writes();
                    written.iter().any(|id| matches!(plan.place[id], Place::Input(_)))
                };
                let planned = ordered.iter().map(|step| PlannedStep {
                    kernel: kernels[step.draft].clone(),
                    operands: step.operands.clone(),
                    partial: plan.partial[step.draft].0,
                    waits: step.waits.clone(),
                    guarded: self.fallible && updates(step),
                    name: step.name.clone(),
                });
                let steps: Vec<PlannedStep> = planned.collect();
                let recorded = driver.record(&driver::Plan {
                    steps: &steps,
                    arena_bytes: plan.arena_bytes,
                    inputs: part.inputs,
                    outputs: part.outputs.len(),
                    scalars: world.scalars,
                });
                let failed = |e| (part.steps.first().map_or(Id(0), |s| s.node), device::problem(part.on, e));
                let recorded = recorded.map_err(failed)?;
                let origins = ordered.iter().map(origin).collect();
                Ok(Body::Driven(DrivenProgram { on: part.on, recorded, origins, described: described.into() }))
            }
        }
    }
}
