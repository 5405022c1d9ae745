//! From recorded graphs to results. `realize` is the way in: it copies the reachable part of the tape, finds or
//! compiles the program, binds buffers and runs it. The passes stand in one list, in `compile`.

mod absorb;
mod accumulate;
mod assemble;
mod batch;
mod check;
pub(crate) mod differentiate;
pub(crate) mod dump;
mod epilogue;
mod expand;
pub(crate) mod expr;
pub(crate) mod fuse;
mod hazards;
pub(crate) mod key;
mod label;
pub(crate) mod layout;
mod merge;
mod place;
pub(crate) mod plan;
mod planned;
mod prologue;
mod ran;
mod recompute;
mod regions;
mod request;
mod schedule;
mod stages;
mod urgent;
mod waiting;
mod widen;
pub(crate) mod world;

pub(crate) use check::Checked;
pub use check::{check_nan, is_checking_nan};
pub use planned::planned_bytes;
pub(crate) use ran::Ran;
pub use waiting::mark;
pub(crate) use waiting::{compute_waiting, settle};

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::capture;
use crate::device::Kind;
use crate::error::{Error, Problem};
use crate::memory_report;
use crate::ops::scan::as_scan;
use crate::profile::{self, Phase, span};
use crate::program::kernel::RunError;
use crate::program::{Failure, Program};
use crate::tape::site::Site;
use crate::tape::{self, Locked, NodeId, TensorType};
use crate::tensor::Tensor;
use request::{Copied, Request, collect};
use world::{Id, World};

thread_local! {
    static FUSE: Cell<bool> = const { Cell::new(true) };
}

/// Runs what `f` realises on this thread with one kernel per operation: the bits are the same, which is what tests
/// check with it.
pub fn without_fusion<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            FUSE.set(self.0);
        }
    }
    let _restore = Restore(FUSE.replace(false));
    f()
}

/// Computes `asked` now. `replaces` names leaves whose memory the corresponding tensor may take over: nobody else uses
/// them, and on success they are gone.
pub(crate) fn realize(asked: &[&Tensor], replaces: &[Option<NodeId>]) -> Result<Option<Ran>, Error> {
    for tensor in asked {
        tensor.check()?;
    }
    let Some(first) = asked.first() else { return Ok(None) };
    if replaces.is_empty() {
        capture::check_computing(asked)?;
    }
    let device = first.ty().device.0;
    let asked_at = |what, problem| Error::new(what, problem, tape::lock().site[first.node().index()]);
    let checked = check::is_wanted().map_err(|problem| asked_at("check", problem))?;
    let recorder = profile::recorder().map_err(|problem| asked_at("profile", problem))?;
    let recorder = recorder.as_ref();
    let _span = span(recorder, Phase::Realize);
    let Some((request, copied)) = collect(asked, replaces, device, checked, recorder) else { return Ok(None) };
    let is_captured = !replaces.is_empty() && capture::is_capturing();
    let computed = || {
        if is_captured {
            ran::check_captured(&request)?;
        }
        let program = compiled(copied, &request)?;
        if is_captured {
            ran::check_program(&program)?;
        }
        Ok((run(&program, &request)?, program))
    };
    // Buffers are lent and others may wait for them: whatever happens, `finish` must be reached.
    let outcome = catch_unwind(AssertUnwindSafe(computed)).unwrap_or_else(|_| {
        let problem = RunError::Panic("the compiler of programs: this is a bug of tapeflow".into()).into();
        Err(Failure { origin: 0, problem })
    });
    let ran = match &outcome {
        Ok((outputs, program)) if is_captured => Some(Ran::new(&request, asked, replaces, outputs, program)),
        _ => None,
    };
    finish(request, outcome.map(|(outputs, _)| outputs))?;
    Ok(ran)
}

/// The program of what was copied: the one there is, or a new one that is kept.
fn compiled(copied: Copied, request: &Request) -> Result<Arc<Program>, Failure> {
    match copied {
        Copied::Program(program) => Ok(program),
        Copied::World(world, roots) => {
            let program = Arc::new(compile(*world, &roots, request)?);
            key::insert(request.key.clone(), program.clone());
            Ok(program)
        }
    }
}

/// The error of a failure, with the operation and its place.
fn located(tape: &Locked, order: &[NodeId], Failure { origin, problem }: Failure) -> Error {
    // The nodes of scans' bodies are numbered behind all others.
    let mut behind = (origin as usize).checked_sub(order.len());
    for scan in order.iter().filter_map(|n| as_scan(&tape.op[n.index()])) {
        if let Some(node) = behind.and_then(|number| scan.body.node(number)) {
            return Error::new(node.op.name(), problem, node.site);
        }
        behind = behind.and_then(|number| number.checked_sub(scan.body.size()));
    }
    match order.get(origin as usize).or(order.last()) {
        Some(&n) => Error::new(tape.op[n.index()].name(), problem, tape.site[n.index()]),
        None => Error::new("realize", problem, Site::here()),
    }
}

/// The passes, in order.
fn compile(world: World, roots: &[Id], request: &Request) -> Result<Program, Failure> {
    let recorder = request.recorder.as_ref();
    let _compile = span(recorder, Phase::Compile);
    let mut dump = dump::Dump::requested();
    let failed = |world: &World, (id, problem): (Id, Problem)| Failure {
        origin: world.origin.get(id.index()).copied().unwrap_or(0),
        problem,
    };
    dump.world("record", &world, roots);
    let (mut world, roots) = expand::expand(world, roots.to_vec(), request.order.len());
    debug_assert_eq!(world.verify(), Ok(()), "after expand");
    let recorded = world.len();
    let pass = span(recorder, Phase::Differentiate);
    let mut roots = differentiate::differentiate(&mut world, &roots).map_err(|e| failed(&world, e))?;
    drop(pass);
    dump.world("differentiate", &world, &roots);
    debug_assert_eq!(world.verify(), Ok(()), "after differentiate");
    let mut outputs: Vec<(Id, Option<u32>)> =
        roots.iter().zip(&request.wanted).map(|(&id, &(_, replaces))| (id, replaces)).collect();
    let mut checks = Vec::new();
    if request.checked {
        let kept;
        (checks, kept) = check::checked(&world, &roots, recorded);
        roots.extend(&kept);
        // What is bad is found only when all has run, so nothing may be overwritten before.
        outputs = roots.iter().map(|&id| (id, None)).collect();
    }
    if request.device == Kind::Reference {
        let graph = crate::reference::Graph::new(world, &roots);
        return Ok(Program { checks, ..Program::interpreted(graph) });
    }
    let (world, roots) = widen::widen(world, roots);
    outputs.iter_mut().zip(&roots).for_each(|((id, _), &root)| *id = root);
    debug_assert_eq!(world.verify(), Ok(()), "after widen");
    let (mut world, roots) = stages::stages(world, roots);
    outputs.iter_mut().zip(&roots).for_each(|((id, _), &root)| *id = root);
    debug_assert_eq!(world.verify(), Ok(()), "after stages");
    if FUSE.get() {
        absorb::absorb(&mut world);
        debug_assert_eq!(world.verify(), Ok(()), "after absorb");
    }
    let pass = span(recorder, Phase::Fuse);
    let steps = fuse::fuse(&world, &roots, FUSE.get()).map_err(|e| failed(&world, e))?;
    drop(pass);
    dump.steps("fuse", &world, &steps);
    debug_assert_eq!(fuse::verify(&world, &steps), Ok(()), "after fuse");
    let _pass = span(recorder, Phase::Place);
    let mut program =
        place::place(&world, steps, &outputs, request.device, &mut dump).map_err(|e| failed(&world, e))?;
    program.dump = dump.finish();
    program.checks = checks;
    Ok(program)
}

fn run(program: &Program, request: &Request) -> Result<Vec<Arc<Buffer>>, Failure> {
    let watch = request.recorder.as_ref().map(|recorder| recorder.watch(request.sites[..].into()));
    // SAFETY: the key fixes dtypes and shapes of the inputs; taken buffers were withdrawn from the tape under its lock.
    let mut outputs = unsafe { program.run(&request.inputs, &request.scalars, watch.as_ref())? };
    check::look(&program.checks, &request.inputs, &outputs)?;
    outputs.truncate(request.wanted.len());
    Ok(outputs)
}

/// Writes the results to the tape, or gives back what was taken.
fn finish(request: Request, outcome: Result<Vec<Arc<Buffer>>, Failure>) -> Result<(), Error> {
    let Request { order, wanted, mut inputs, bound, taken, kept, ending, .. } = request;
    let mut tape = tape::lock();
    let result = match outcome {
        Ok(outputs) => {
            if !taken.is_empty() {
                memory_report::note_kept(kept.iter().map(|&number| {
                    let i = order[number as usize].index();
                    (tape.op[i].clone(), tape.ty[i].clone(), tape.site[i])
                }));
            }
            for (&(number, _), buffer) in wanted.iter().zip(outputs) {
                let node = order[number as usize];
                let i = node.index();
                if tape.buffer[i].is_none() {
                    tape.buffer[i] = Some(buffer);
                }
                // What backward may still need keeps its graph.
                if !tape.flags[i].grad {
                    tape.drop_inputs(node);
                }
            }
            // The values that these graphs begin with are gone.
            for &node in &ending {
                tape.drop_inputs(node);
            }
            Ok(())
        }
        Err(failure) => {
            for &node in &taken {
                let number = order.iter().position(|&n| n == node);
                let input = number.and_then(|n| bound.binary_search(&(n as u32)).ok());
                if let Some(input) = input {
                    tape.buffer[node.index()] = Some(inputs[input].clone());
                }
            }
            Err(located(&tape, &order, failure))
        }
    };
    inputs.clear();
    for &node in &taken {
        tape.flags[node.index()].taken = false;
        tape.lent -= 1;
    }
    for node in wanted.iter().map(|w| order[w.0 as usize]).chain(taken.iter().copied()).chain(ending) {
        tape.unpin(node);
    }
    if !taken.is_empty() {
        tape.notify();
    }
    result
}

/// How many programs were compiled since the start, and how many are kept.
pub fn program_cache() -> (u64, usize) {
    key::counts()
}

/// A value's type, for a program's printed form.
pub(crate) fn describe(ty: &TensorType) -> String {
    format!("{} {}", ty.dtype, ty.shape)
}
