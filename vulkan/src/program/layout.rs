//! A plan as commands and a parameter block. Owns where each value stands in the block and where barriers are needed;
//! calls nothing of Vulkan.

use std::sync::Arc;

use tapeflow_core::driver::{Bindings, DriverError, Place, Plan};

use crate::context::Context;
use crate::pipeline::{Compiled, Pipeline};
use crate::stage::Push;

/// Bytes to which the parts of a parameter block are aligned.
const ALIGN: usize = 64;

/// One command of a command buffer.
pub(crate) enum Command {
    /// What follows sees what came before.
    Barrier,
    /// Workgroups of a pipeline.
    Dispatch {
        pipeline: Arc<Pipeline>,
        groups: [u32; 2],
        /// But for `table`, which each parameter block has of its own.
        push: Push,
    },
    /// What this step dispatches has been.
    End(u32),
}

/// A step that checks indices.
pub(crate) struct Check {
    pub step: u32,
    pub extent: usize,
    /// Its first word of the status block.
    pub status: usize,
}

/// A plan, translated.
pub(crate) struct Layout {
    pub commands: Vec<Command>,
    /// The first entries of the parameter block, in order: operands and partial results.
    pub places: Vec<Place>,
    pub checks: Vec<Check>,
    pub arena_bytes: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub scalars: usize,
}

impl Layout {
    pub(crate) fn new(context: &Arc<Context>, plan: &Plan<'_>) -> Result<Layout, DriverError> {
        let mut layout = Layout {
            commands: Vec::new(),
            places: Vec::new(),
            checks: Vec::new(),
            arena_bytes: plan.arena_bytes,
            inputs: plan.inputs,
            outputs: plan.outputs,
            scalars: plan.scalars,
        };
        let entries: usize = plan.steps.iter().map(|step| step.operands.len() + 1).sum();
        let (mut barriers, scalars) = (Barriers::default(), entries as u32);
        for (number, step) in plan.steps.iter().enumerate() {
            let any: &dyn std::any::Any = step.kernel.as_ref();
            let kernel = any.downcast_ref::<Compiled>().filter(|k| Arc::ptr_eq(&k.context, context));
            let kernel = kernel.ok_or_else(|| malformed(&step.name, "its kernel was made for another device"))?;
            let operands = layout.places.len() as u32;
            for place in step.operands.iter().chain([&Place::Arena(step.partial)]) {
                let is_known = match *place {
                    Place::Arena(offset) => offset <= plan.arena_bytes,
                    Place::Input(input) => (input as usize) < plan.inputs,
                    Place::Output(output) => (output as usize) < plan.outputs,
                };
                if !is_known {
                    return Err(malformed(&step.name, &format!("there is no place {place:?}")));
                }
                layout.places.push(*place);
            }
            if kernel.partial_bytes > 0 && step.partial + kernel.partial_bytes > plan.arena_bytes {
                return Err(malformed(&step.name, "its partial results do not lie in the arena"));
            }
            let status = 1 + 2 * layout.checks.len();
            if kernel.status_words > 0 {
                layout.checks.push(Check { step: number as u32, extent: kernel.extent, status });
            }
            let push = Push {
                table: 0,
                operands,
                scalars,
                partial: operands + step.operands.len() as u32,
                status_block: scalars + plan.scalars as u32,
                status: status as u32,
                guarded: u32::from(step.guarded),
            };
            let number = number as u32;
            let mut stages = kernel.stages.iter().filter(|(stage, _)| stage.groups > 0).peekable();
            match stages.peek() {
                None => barriers.empty_step(&step.waits),
                Some(_) => {
                    if barriers.before_step(number, &step.waits, step.guarded) {
                        layout.commands.push(Command::Barrier);
                    }
                }
            }
            let has_stages = stages.peek().is_some();
            for (i, (stage, pipeline)) in stages.enumerate() {
                if i > 0 && stage.after_barrier && barriers.put(number) {
                    layout.commands.push(Command::Barrier);
                }
                let (pipeline, groups) = (pipeline.clone(), context.grid(stage.groups));
                let push = Push { operands: push.operands + stage.operands, ..push };
                layout.commands.push(Command::Dispatch { pipeline, groups, push });
            }
            if has_stages {
                layout.commands.push(Command::End(number));
            }
            barriers.has_unseen_check |= kernel.status_words > 0;
        }
        Ok(layout)
    }

    /// The steps that dispatch something, in order.
    pub(crate) fn busy_steps(&self) -> Vec<u32> {
        let end = |command: &Command| if let Command::End(step) = command { Some(*step) } else { None };
        self.commands.iter().filter_map(end).collect()
    }

    /// Words of the status block.
    pub(crate) fn status_words(&self) -> usize {
        1 + 2 * self.checks.len()
    }

    /// Entries of the parameter block.
    pub(crate) fn entries(&self) -> usize {
        self.places.len() + self.scalars + 1
    }

    /// Where the status block begins in a parameter block, in bytes.
    pub(crate) fn status_offset(&self) -> usize {
        (self.entries() * 8).next_multiple_of(ALIGN)
    }

    /// Bytes of a parameter block with its status block.
    pub(crate) fn bytes(&self) -> usize {
        self.status_offset() + (self.status_words() * 4).next_multiple_of(ALIGN)
    }

    /// What the status block holds before a run.
    pub(crate) fn status(&self) -> impl Iterator<Item = i32> {
        std::iter::once(0).chain(self.checks.iter().flat_map(|_| [i32::MAX, i32::MIN]))
    }

    /// Refuses bindings that are not those of the plan: a wrong address would end the process.
    pub(crate) fn check(&self, bindings: &Bindings<'_>, arena_bytes: usize) -> Result<(), DriverError> {
        let counts = [
            ("inputs", bindings.inputs.len(), self.inputs),
            ("outputs", bindings.outputs.len(), self.outputs),
            ("scalars", bindings.scalars.len(), self.scalars),
        ];
        for (what, given, needed) in counts {
            if given != needed {
                return Err(malformed("a run", &format!("{given} {what} are given, {needed} are needed")));
            }
        }
        if arena_bytes < self.arena_bytes {
            let needed = self.arena_bytes;
            return Err(malformed("a run", &format!("the arena has {arena_bytes} bytes, {needed} are needed")));
        }
        Ok(())
    }
}

fn malformed(what: &str, why: &str) -> DriverError {
    DriverError::Unsupported(format!("{what} cannot run: {why}"))
}

/// Where the last barrier stands, and so where the next one must.
#[derive(Default)]
struct Barriers {
    /// Steps from this one on have dispatches after the last barrier.
    since: u32,
    /// Whether a check was dispatched after the last barrier.
    has_unseen_check: bool,
    /// Per step the last one with dispatches that waiting for it means: itself, or what it waits for if it has none.
    means: Vec<Option<u32>>,
}

impl Barriers {
    /// Whether a barrier comes before the first dispatch of a step. Steps come here or to `empty_step` in their order.
    fn before_step(&mut self, number: u32, waits: &[u32], is_guarded: bool) -> bool {
        let waits = self.last(waits).is_some_and(|earlier| earlier >= self.since);
        self.means.push(Some(number));
        if waits || (is_guarded && self.has_unseen_check) { self.put(number) } else { false }
    }

    /// A step without dispatches: who waits for it waits for what it waits for.
    fn empty_step(&mut self, waits: &[u32]) {
        let last = self.last(waits);
        self.means.push(last);
    }

    fn last(&self, waits: &[u32]) -> Option<u32> {
        waits.iter().filter_map(|&wait| *self.means.get(wait as usize)?).max()
    }

    /// A barrier among the dispatches of a step.
    fn put(&mut self, number: u32) -> bool {
        (self.since, self.has_unseen_check) = (number, false);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Barriers;

    /// A plan of steps with some numbers of dispatches, some with barriers between: what a step waits for is always
    /// behind a barrier, and no barrier stands where none is needed.
    #[test]
    fn a_barrier_lies_between_a_step_and_what_it_waits_for() {
        let mut state = 1_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..500 {
            let mut barriers = Barriers::default();
            // The number of barriers before each step's first and last dispatch, and before each check; of a step
            // without dispatches, before the last dispatch that it waits for.
            let (mut firsts, mut lasts, mut checks) = (Vec::new(), Vec::<Option<u32>>::new(), Vec::new());
            let mut count = 0;
            for number in 0..20_u32 {
                let waits: Vec<u32> = (0..number).filter(|_| random(8) == 0).collect();
                let waited = waits.iter().filter_map(|&w| lasts[w as usize]).max();
                if random(5) == 0 {
                    barriers.empty_step(&waits);
                    firsts.push(None);
                    lasts.push(waited);
                    continue;
                }
                let is_guarded = random(6) == 0;
                let needed = waited == Some(count) || (is_guarded && checks.contains(&count));
                let put = barriers.before_step(number, &waits, is_guarded);
                assert_eq!(put, needed, "step {number} waits for {waits:?}");
                count += u32::from(put);
                firsts.push(Some(count));
                if random(4) == 0 {
                    barriers.put(number);
                    count += 1;
                }
                lasts.push(Some(count));
                if random(5) == 0 {
                    barriers.has_unseen_check = true;
                    checks.push(count);
                }
                assert!(waits.iter().all(|&w| lasts[w as usize] < firsts[number as usize]));
            }
        }
    }
}
