//! Captured steps: a training step compiled once and then called directly, without recording, key or look-up.
//!
//! `capture` runs the step as usual and keeps its program. Owns what is noted while a step is captured, and from it the
//! bindings of its replays (`replay`); knows no passes.

mod lease;
mod replay;
mod results;
#[cfg(all(test, not(loom)))]
mod tests;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::buffer::Buffer;
use crate::compile::Ran;
use crate::compile::plan::Place;
use crate::error::{Error, Problem, Result};
use crate::locks;
use crate::program::Workspace;
use crate::slot::Slot;
use crate::tape::site::Site;
use crate::tape::{self, NodeId};
use crate::tensor::Tensor;
pub(crate) use lease::Lease;
pub use replay::CapturedStep;
pub(crate) use replay::place;
use replay::{Home, Input, Read, Source, Update};

/// A float of the host that a program reads anew at every run; clones are the same number.
#[derive(Clone, Debug)]
pub struct HostCell(pub(crate) Arc<AtomicU64>);

impl HostCell {
    /// A number.
    pub fn new(value: f64) -> HostCell {
        HostCell(Arc::new(AtomicU64::new(value.to_bits())))
    }

    /// Changes what the next run reads.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// The number.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// Where a program's host word comes from when it is run again.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// As it was.
    Fixed,
    /// A cell's present value.
    Cell(HostCell),
    /// The same as a place, at most so far.
    Start(HostCell, usize),
    /// The next counter of a generator.
    Counter(Arc<AtomicU64>),
}

/// When a hook of a captured step is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// A run is about to read the host cells.
    Before,
    /// The run went well: its new versions are named.
    Done,
}

type Hook = Box<dyn FnMut(Replay) + Send>;

#[derive(Default)]
struct Recording {
    commits: Vec<(Ran, Vec<Slot>)>,
    hooks: Vec<Hook>,
    /// The slots that were asked for their version, with the version: replays read the one there is then.
    reads: Vec<(Slot, Tensor)>,
    /// What is computed at the moment is the beginning of a slot and no part of the step.
    aside: bool,
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// Steps are captured one at a time in the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Whether a step is being captured on this thread.
pub fn is_capturing() -> bool {
    RECORDING.with_borrow(Option::is_some)
}

/// Called around every replay of the step that is being captured: where an optimizer sets its cells and counts its
/// steps.
pub fn on_replay(hook: impl FnMut(Replay) + Send + 'static) {
    RECORDING.with_borrow_mut(|r| {
        if let Some(r) = r {
            r.hooks.push(Box::new(hook));
        }
    });
}

/// Hands a commit's program to the capture that is going on.
pub(crate) fn note(ran: Ran, slots: Vec<Slot>) {
    RECORDING.with_borrow_mut(|r| {
        if let Some(r) = r {
            r.commits.push((ran, slots));
        }
    });
}

/// Notes that the step being captured reads `slot`, whose version is `value`.
pub(crate) fn note_read(slot: &Slot, value: &Tensor) {
    RECORDING.with_borrow_mut(|r| {
        if let Some(r) = r
            && !r.reads.iter().any(|(noted, _)| noted.id() == slot.id())
        {
            // Keeps the version's number from being another's, and does not count as a handle of it.
            let pinned = Tensor::rehandle(&mut tape::lock(), &[value.node()]);
            r.reads.extend(pinned.into_iter().map(|value| (slot.clone(), value)));
        }
    });
}

/// What `f` computes is where a slot begins, and no part of the step that may be being captured.
pub(crate) fn aside<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            set(self.0);
        }
    }
    fn set(aside: bool) -> bool {
        RECORDING.with_borrow_mut(|r| r.as_mut().is_some_and(|r| std::mem::replace(&mut r.aside, aside)))
    }
    let _restore = Restore(set(true));
    f()
}

/// Refuses to compute `asked` for the host in the middle of a step that is being captured: every replay would go on
/// with what it was at first.
pub(crate) fn check_computing(asked: &[&Tensor]) -> Result<()> {
    let open = RECORDING.with_borrow(|r| r.as_ref().is_some_and(|r| r.commits.is_empty() && !r.aside));
    if !open {
        return Ok(());
    }
    let tape = tape::lock();
    let Some(node) = asked.iter().map(|t| t.node().index()).find(|&i| tape.buffer[i].is_none()) else { return Ok(()) };
    let why = "a step that is being captured cannot compute a value before its commit: every replay would keep this \
               one; return the tensor from the step, or read it after the commit";
    Err(Error::new("capture", Problem::Argument(why.into()), tape.site[node]))
}

/// Refuses to write a slot by hand in a step that is being captured: replays would not.
pub(crate) fn check_writing(operation: &'static str, site: Site) -> Result<()> {
    if !is_capturing() {
        return Ok(());
    }
    let why = "a step that is being captured changes values by its commit only: replays would not do this";
    Err(Error::new(operation, Problem::Argument(why.into()), site))
}

/// Takes the step that `step` records, on these inputs, and keeps it as a program for further calls.
///
/// `step` must commit exactly once (an optimizer's `step`); what it returns can be read after every run, beginning with
/// this first one. Each run reads the slots' present versions. Host numbers made inside are fixed, but for those of
/// optimizers and generators, and so are tensors made outside that are not given as inputs: what waits to be computed
/// is computed before the step. One thread captures at a time; others wait.
///
/// # Errors
/// What `step` reports; several commits or none; a value that is computed before the commit; a slot that is written
/// without a commit; a result that the step's program does not compute; another device than the CPU. What is refused
/// after the commit, such as a result, leaves the first run taken.
///
/// # Example
/// ```
/// # use tapeflow_core::{Parameter, Tensor, capture, commit};
/// let w = Parameter::new(Tensor::from_vec(vec![4.0f32], [1]))?;
/// let x = Tensor::from_vec(vec![1.0f32], [1]);
/// let mut step = capture(&[&x], |inputs| {
///     let loss = (w.tensor() * &inputs[0]).square().sum();
///     let gradients = loss.backward()?;
///     let new = w.tensor() - gradients.get(&w).unwrap() * 0.25;
///     drop(gradients);
///     commit(&[(w.slot(), new)])?;
///     Ok::<_, tapeflow_core::Error>(vec![loss])
/// })?;
/// step.run(&[&x])?;
/// assert_eq!(step.item::<f32>(0)?, 4.0); // the first run took w from 4 to 2
/// assert_eq!(w.tensor().item::<f32>()?, 1.0);
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[track_caller]
pub fn capture<E: From<Error>>(
    inputs: &[&Tensor],
    step: impl FnOnce(&[Tensor]) -> std::result::Result<Vec<Tensor>, E>,
) -> std::result::Result<CapturedStep, E> {
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            RECORDING.take();
        }
    }
    let site = Site::here();
    let refused = |why: String| Error::new("capture", Problem::Argument(why.into()), site);
    if is_capturing() {
        return Err(refused("a capture is going on already".into()).into());
    }
    // What waits on the tape may be another capture's step.
    let _alone = locks::lock(&ALONE);
    Tensor::realize_all(inputs)?;
    crate::compile::compute_waiting();
    let given = inputs.iter().map(|t| own_leaf(t, site)).collect::<Result<Vec<Tensor>>>()?;
    RECORDING.set(Some(Recording::default()));
    let stop = Stop;
    let results = step(&given)?;
    let Recording { commits, hooks, reads, .. } = RECORDING.take().unwrap_or_default();
    drop(stop);
    let count = commits.len();
    let Ok([(ran, slots)]) = <[_; 1]>::try_from(commits) else {
        return Err(refused(format!("a step must commit once, not {count} times")).into());
    };
    Ok(build(ran, &slots, &reads, &given, &results, hooks, site)?)
}

/// A leaf of its own for an input: one tensor given twice is two inputs.
fn own_leaf(given: &Tensor, site: Site) -> Result<Tensor> {
    let owner = {
        let tape = tape::lock();
        let i = given.node().index();
        if !tape.inputs[i].is_empty() {
            let why = "an input that was computed from parameters is given: `detach` it, or compute it in the step";
            return Err(Error::new("capture", Problem::Argument(why.into()), site));
        }
        tape.owner[i].clone()
    };
    given.as_leaf(given.requires_grad(), owner)
}

fn build(
    ran: Ran,
    slots: &[Slot],
    reads: &[(Slot, Tensor)],
    given: &[Tensor],
    results: &[Tensor],
    hooks: Vec<Hook>,
    site: Site,
) -> Result<CapturedStep> {
    let refused = |why: String| Error::new("capture", Problem::Argument(why.into()), site);
    let memory = |problem| Error::new("capture", problem, site);
    let Ran { program, inputs, bound, wanted, outputs: first, scalars, sites, origins, updates, .. } = ran;
    let input_of = |node: NodeId| bound.iter().position(|&b| b == node);
    let places: Vec<Place> = program.outputs.iter().map(|o| o.place).collect();
    let mut kept: Vec<(Option<usize>, Update)> = Vec::with_capacity(slots.len());
    let written: Vec<Option<Place>> = updates.iter().map(|(_, output, _)| output.map(|k| places[k])).collect();
    for (k, (slot, (old, _, ty))) in slots.iter().zip(updates).enumerate() {
        let held = || refused("a handle of a parameter's version is held elsewhere: drop it before the step".into());
        let input = input_of(old.ok_or_else(held)?);
        let apart = || refused(format!("update {k} is not computed by the step's program: `detach` gives it a copy"));
        let place = written[k].ok_or_else(apart)?;
        if let Some(other) = (k + 1..written.len()).find(|&other| written[other] == Some(place)) {
            return Err(refused(format!("updates {k} and {other} are one value: each slot needs its own")));
        }
        let home = match place {
            Place::Input(i) if input == Some(i as usize) => Home::InPlace(i as usize),
            Place::Output(j) => Home::Apart(j as usize),
            Place::Input(_) | Place::Arena(_) => return Err(apart()),
        };
        kept.push((input, Update { grad: slot.tensor().requires_grad(), slot: slot.clone(), ty, home }));
    }
    // As commits do: two steps over the same slots come upon them in one order.
    kept.sort_by_key(|(_, u)| u.slot.id());
    let mut inputs: Vec<Input> = inputs.into_iter().map(Input::Fixed).collect();
    let mut updates = Vec::with_capacity(kept.len());
    for (k, (input, update)) in kept.into_iter().enumerate() {
        if let Some(input) = input {
            inputs[input] = Input::Updated(k);
        }
        updates.push(update);
    }
    let source_of = |updates: &[Update], place: Place| {
        let home = match place {
            Place::Input(i) => Home::InPlace(i as usize),
            Place::Output(j) => Home::Apart(j as usize),
            Place::Arena(_) => return None,
        };
        match (updates.iter().position(|u| u.home == home), home) {
            (Some(update), _) => Some((Some(update), 0)),
            (None, Home::Apart(output)) => Some((None, output)),
            (None, Home::InPlace(_)) => None,
        }
    };
    let mut outputs: Vec<Option<Arc<Buffer>>> = vec![None; places.len()];
    let mut found = Vec::with_capacity(results.len());
    for (i, result) in results.iter().enumerate() {
        let output = wanted.iter().position(|&w| w == result.node());
        let place = output.and_then(|k| Some((k, source_of(&updates, places[k])?)));
        let Some((k, (update, output))) = place else {
            let why = "is not computed by the step's program: it must depend on what the step updates";
            return Err(refused(format!("result {i} {why}")));
        };
        // Memory that tensors of the first run name is theirs.
        // SAFETY: the run wrote it whole, and nobody writes what is shared.
        let copy = Buffer::from_bytes(unsafe { first[k].bytes() }).map_err(memory)?;
        let source = match update {
            Some(update) => Source::Update { update, copy },
            None => {
                outputs[output].get_or_insert(Arc::new(copy));
                Source::Output(output)
            }
        };
        found.push((source, result.ty().clone()));
    }
    let nothing = Arc::new(Buffer::new(0, "a result").map_err(memory)?);
    let new_output = |(k, output): (usize, Option<Arc<Buffer>>)| match (output, places[k]) {
        (Some(output), _) => Ok(output),
        (None, Place::Output(own)) if own as usize == k => {
            Buffer::new(program.outputs[k].bytes, "a result").map(Arc::new).map_err(memory)
        }
        // It is written where another is.
        (None, _) => Ok(nothing.clone()),
    };
    let outputs = outputs.into_iter().enumerate().map(new_output).collect::<Result<Vec<_>>>()?;
    let read_only = reads.iter().filter(|(slot, _)| updates.iter().all(|u| u.slot.id() != slot.id()));
    let mut reads = Vec::new();
    for (slot, value) in read_only {
        if let Some(input) = input_of(value.node()) {
            inputs[input] = Input::Read(reads.len());
            reads.push(Read { slot: slot.clone(), ty: value.ty().clone(), grad: value.requires_grad() });
        }
    }
    for (k, tensor) in given.iter().enumerate() {
        if let Some(input) = input_of(tensor.node()) {
            inputs[input] = Input::Given(k);
        }
    }
    let given_operand = |(operand, place): (usize, &Place)| match *place {
        Place::Input(i) => match inputs[i as usize] {
            Input::Given(given) => Some((operand, given)),
            _ => None,
        },
        Place::Output(_) | Place::Arena(_) => None,
    };
    let given_operands = program.host().operands.iter().enumerate().filter_map(given_operand).collect();
    let arena = Buffer::new(program.arena_bytes, "intermediate values").map_err(memory)?;
    Ok(CapturedStep {
        program,
        workspace: Workspace::default(),
        arena,
        inputs,
        outputs,
        scalars,
        sites,
        origins,
        updates,
        reads,
        bound: Vec::with_capacity(given.len()),
        given: given.iter().map(|t| t.ty().clone()).collect(),
        given_operands,
        lease: Lease::new(),
        is_placed: false,
        results: found,
        hooks,
        site,
    })
}
