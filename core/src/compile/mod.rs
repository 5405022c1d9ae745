//! From recorded graphs to results. `realize` is the way in: it copies the reachable part of the tape, finds or
//! compiles the program, binds buffers and runs it. The passes stand in one list, in `compile`.

mod assemble;
mod batch;
mod check;
mod differentiate;
pub(crate) mod dump;
pub(crate) mod expr;
pub(crate) mod fuse;
pub(crate) mod key;
mod label;
pub(crate) mod layout;
mod merge;
mod place;
pub(crate) mod plan;
mod planned;
mod ran;
mod recompute;
mod regions;
mod schedule;
mod waiting;
mod widen;
pub(crate) mod world;

pub(crate) use check::Checked;
pub use check::check_nan;
pub use planned::planned_bytes;
pub(crate) use ran::Ran;
pub use waiting::mark;
pub(crate) use waiting::{compute_waiting, settle};

use std::cell::Cell;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::capture;
use crate::device::Kind;
use crate::error::{Error, Problem};
use crate::memory_report;
use crate::ops::Op;
use crate::ops::detach::Detach;
use crate::profile::{self, Phase, Recorder, span};
use crate::program::kernel::RunError;
use crate::program::{Failure, Program};
use crate::tape::site::Site;
use crate::tape::{self, Locked, NodeId, TensorType};
use crate::tensor::Tensor;
use key::{Key, KeyWriter};
use regions::Regions;
use world::{Id, Ids, World};

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

/// What is copied of the tape for one request.
struct Request {
    key: Key,
    /// The nodes in canonical order: each after its inputs.
    order: Vec<NodeId>,
    regions: Regions,
    /// Those whose values are wanted, as canonical numbers, and for each the bound input it replaces.
    wanted: Vec<(u32, Option<u32>)>,
    inputs: Vec<Arc<Buffer>>,
    /// Canonical numbers of the bound nodes.
    bound: Vec<u32>,
    scalars: Vec<u64>,
    /// Nodes that lent their buffers.
    taken: Vec<NodeId>,
    /// Canonical numbers of the nodes that are computed only because an update overwrites what they depend on.
    kept: Vec<u32>,
    /// Realised nodes whose graphs end with the buffers that are taken.
    ending: Vec<NodeId>,
    device: Kind,
    /// Whether every value is kept and looked at.
    checked: bool,
    /// The recording that is going on, and where each node was recorded.
    recorder: Option<Recorder>,
    sites: Vec<Site>,
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
    let checked = check::is_wanted().map_err(|problem| Error::new("check", problem, Site::here()))?;
    let recorder = profile::recorder().map_err(|problem| Error::new("profile", problem, Site::here()))?;
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

enum Copied {
    Program(Arc<Program>),
    World(Box<World>, Vec<Id>),
}

/// Walks the graph under the lock; `None` if everything is there already.
fn collect(
    asked: &[&Tensor],
    replaces: &[Option<NodeId>],
    device: Kind,
    checked: bool,
    recorder: Option<&Recorder>,
) -> Option<(Request, Copied)> {
    let _span = span(recorder, Phase::LookUp);
    let mut tape = tape::lock();
    let (order, donated) = loop {
        let roots: Vec<NodeId> = asked.iter().map(|t| t.node()).filter(|n| tape.buffer[n.index()].is_none()).collect();
        if roots.is_empty() && replaces.iter().all(Option::is_none) {
            return None;
        }
        // Only memory that nobody else names can be taken over.
        let sole = |n: &NodeId| tape.buffer[n.index()].as_ref().is_some_and(|b| Arc::strong_count(b) == 1);
        let donated: Vec<Option<NodeId>> = replaces.iter().map(|r| r.filter(sole)).collect();
        match walk(&mut tape, &roots, &donated) {
            Some(order) => break (order, donated),
            None => tape = tape.wait(),
        }
    };
    let mut request = Request {
        key: Key::default(),
        regions: Regions::of(&tape, &order),
        order,
        wanted: Vec::new(),
        inputs: Vec::new(),
        bound: Vec::new(),
        scalars: Vec::new(),
        taken: Vec::new(),
        kept: Vec::new(),
        ending: Vec::new(),
        device,
        checked,
        recorder: recorder.cloned(),
        sites: Vec::new(),
    };
    if recorder.is_some() {
        request.sites = request.order.iter().map(|n| tape.site[n.index()]).collect();
    }
    write_key(&tape, &mut request, asked, replaces, &donated);
    let found = key::find(&request.key);
    let copied = match found {
        Some(program) => Copied::Program(program),
        None => {
            let (world, roots) = copy(&tape, &request);
            Copied::World(Box::new(world), roots)
        }
    };
    // From here on the nodes must outlive their handles, and taken buffers must not be read by anybody else.
    for &(number, _) in &request.wanted {
        tape.pin(request.order[number as usize]);
    }
    for &node in donated.iter().flatten() {
        let replaced = tape.marked(node).and_then(|n| request.bound.binary_search(&n).ok());
        if replaced.is_some() {
            tape.flags[node.index()].taken = true;
            tape.lent += 1;
            tape.buffer[node.index()] = None;
            request.taken.push(node);
            tape.pin(node);
        }
    }
    if !request.taken.is_empty() {
        request.ending = depending_on(&mut tape, &request.taken, |tape, n| {
            tape.buffer[n.index()].is_some() || tape.flags[n.index()].handle
        });
        for &node in &request.ending {
            tape.pin(node);
        }
    }
    Some((request, copied))
}

/// The nodes reachable from `roots`, inputs first, and from every live tensor that depends on a donated leaf: those
/// must be computed before the leaf is gone. `None`: another thread's program has taken a buffer that is needed.
fn walk(tape: &mut Locked, roots: &[NodeId], donated: &[Option<NodeId>]) -> Option<Vec<NodeId>> {
    let donated: Vec<NodeId> = donated.iter().flatten().copied().collect();
    let mut roots = roots.to_vec();
    if !donated.is_empty() {
        let live = |tape: &Locked, n: NodeId| tape.flags[n.index()].handle && tape.buffer[n.index()].is_none();
        roots.extend(depending_on(tape, &donated, live));
    }
    tape.begin_walk();
    const OPEN: u32 = u32::MAX;
    let mut order: Vec<NodeId> = Vec::new();
    let mut stack: Vec<NodeId> = roots.into_iter().rev().chain(donated).collect();
    while let Some(&node) = stack.last() {
        match tape.marked(node) {
            None => {
                if tape.flags[node.index()].taken {
                    return None;
                }
                tape.set_mark(node, OPEN);
                let inputs = tape.inputs[node.index()].clone();
                stack.extend(inputs.iter().rev().filter(|i| tape.marked(**i).is_none()));
            }
            Some(OPEN) => {
                tape.set_mark(node, order.len() as u32);
                order.push(node);
                stack.pop();
            }
            Some(_) => {
                stack.pop();
            }
        }
    }
    Some(order)
}

/// The recorded nodes that depend on one of `leaves` and satisfy `is_wanted`, in order of recording.
fn depending_on(tape: &mut Locked, leaves: &[NodeId], is_wanted: impl Fn(&Locked, NodeId) -> bool) -> Vec<NodeId> {
    tape.begin_walk();
    for &leaf in leaves {
        tape.set_mark(leaf, 0);
    }
    let recorded: Vec<NodeId> = tape.recorded().collect();
    let mut found = Vec::new();
    for node in recorded {
        if tape.inputs[node.index()].iter().any(|i| tape.marked(*i).is_some()) {
            tape.set_mark(node, 0);
            if is_wanted(tape, node) {
                found.push(node);
            }
        }
    }
    found
}

fn write_key(
    tape: &Locked,
    request: &mut Request,
    asked: &[&Tensor],
    replaces: &[Option<NodeId>],
    donated: &[Option<NodeId>],
) {
    let mut is_asked = vec![false; request.order.len()];
    for number in asked.iter().filter_map(|t| tape.marked(t.node())) {
        is_asked[number as usize] = true;
    }
    let keep_graphs = donated.iter().all(Option::is_none);
    let mut words = Vec::with_capacity(request.order.len() * 16);
    words.push(u64::from(FUSE.get()) | u64::from(request.checked) << 1);
    request.device.hash(&mut KeyWriter(&mut words));
    words.push(request.regions.outer.len() as u64);
    words.extend(request.regions.outer.iter().map(|&r| u64::from(r)));
    let kept_for_backward = request.regions.kept(tape, &request.order);
    for (number, &node) in request.order.iter().enumerate() {
        let i = node.index();
        let op = &tape.op[i];
        let arguments = op.arguments();
        op.hash(&mut KeyWriter(&mut words));
        request.scalars.extend(arguments);
        tape.ty[i].hash(&mut KeyWriter(&mut words));
        let region = u64::from(request.regions.at(number)) << 32;
        words.push(region | (tape.inputs[i].len() as u64) << 1 | u64::from(tape.flags[i].cut));
        words.extend(tape.inputs[i].iter().map(|&input| u64::from(tape.marked(input).unwrap_or(u32::MAX))));
        if let Some(buffer) = &tape.buffer[i] {
            request.bound.push(number as u32);
            request.inputs.push(buffer.clone());
            words.push(1);
            continue;
        }
        let flags = tape.flags[i];
        let primitive = op.primitive();
        let is_view = primitive.is_some_and(|p| p.is_view());
        let saved = keep_graphs && flags.grad && kept_for_backward[number] && primitive.is_some_and(|p| p.is_saved());
        let is_gradient = matches!(op, Op::Gradient(_));
        if !is_gradient && (is_asked[number] || (flags.handle && (!is_view || !keep_graphs)) || saved) {
            words.push(2);
            request.wanted.push((number as u32, None));
            if !is_asked[number] && !keep_graphs {
                request.kept.push(number as u32);
            }
        } else {
            words.push(0);
        }
    }
    // Which leaf each updated tensor takes over.
    for (k, tensor) in asked.iter().enumerate() {
        let leaf = replaces.get(k).copied().flatten().filter(|l| donated.get(k).copied().flatten() == Some(*l));
        let (Some(leaf), Some(number)) = (leaf, tape.marked(tensor.node())) else { continue };
        let input = tape.marked(leaf).and_then(|n| request.bound.binary_search(&n).ok());
        let output = request.wanted.binary_search_by_key(&number, |w| w.0).ok();
        if let (Some(input), Some(output)) = (input, output) {
            request.wanted[output].1 = Some(input as u32);
            words.extend([3, u64::from(number), input as u64]);
        }
    }
    request.key = Key { words };
}

fn copy(tape: &Locked, request: &Request) -> (World, Vec<Id>) {
    let mut world = World::default();
    let mut ids: Vec<Id> = Vec::with_capacity(request.order.len());
    let mut slot = 0;
    for (number, &node) in request.order.iter().enumerate() {
        let i = node.index();
        world.current_origin = number as u32;
        world.current_region = request.regions.at(number);
        let op = tape.op[i].with_slots(slot);
        slot += tape.op[i].arguments().len();
        let mut inputs = Ids::new();
        for &input in &tape.inputs[i] {
            let Some(number) = tape.marked(input) else { continue };
            let id = ids[number as usize];
            // What was recorded under `no_grad` is a number to everything outside.
            let is_cut = tape.flags[input.index()].cut && !tape.inputs[input.index()].is_empty();
            inputs.push(match is_cut && !tape.flags[i].cut {
                true => world.push(Detach, &[id], tape.ty[input.index()].clone()),
                false => id,
            });
        }
        let ty = tape.ty[i].clone();
        let input = request.bound.binary_search(&(number as u32)).ok();
        ids.push(match input {
            Some(input) => world.bind(op, inputs, ty, input as u32),
            None => world.push(op, &inputs, ty),
        });
    }
    let roots = request.wanted.iter().map(|&(number, _)| ids[number as usize]).collect();
    world.current_region = 0;
    world.outer_regions.clone_from(&request.regions.outer);
    world.scalars = slot;
    world.given = request.bound.len();
    (world, roots)
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
    match order.get(origin as usize).or(order.last()) {
        Some(&n) => Error::new(tape.op[n.index()].name(), problem, tape.site[n.index()]),
        None => Error::new("realize", problem, Site::here()),
    }
}

/// The passes, in order.
fn compile(mut world: World, roots: &[Id], request: &Request) -> Result<Program, Failure> {
    let recorder = request.recorder.as_ref();
    let _compile = span(recorder, Phase::Compile);
    let mut dump = dump::Dump::requested();
    let failed = |world: &World, (id, problem): (Id, Problem)| Failure {
        origin: world.origin.get(id.index()).copied().unwrap_or(0),
        problem,
    };
    dump.world("record", &world, roots);
    let recorded = world.len();
    let pass = span(recorder, Phase::Differentiate);
    let mut roots = differentiate::differentiate(&mut world, roots).map_err(|e| failed(&world, e))?;
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
    widen::widen(&mut world, &roots);
    debug_assert_eq!(world.verify(), Ok(()), "after widen");
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
