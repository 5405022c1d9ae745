//! Captured steps: a training step compiled once and then called directly, without recording, key or look-up.
//!
//! `capture` runs the step as usual and keeps its program. A replay binds new inputs, asks every host number for its
//! present value, and runs in the memory of the run before: it allocates nothing. Owns the bindings; knows no passes.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::compile::Ran;
use crate::error::{Error, Problem, Result};
use crate::memory::Buffer;
use crate::parameter::Slot;
use crate::program::{Failure, Program};
use crate::tape::site::Site;
use crate::tape::{self, NodeId, TensorType};
use crate::tensor::Tensor;
use crate::tensor::element::Element;

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
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

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

/// A slot the program updates.
struct Update {
    slot: Slot,
    /// The leaf the slot named when the step was captured; replays change its contents.
    leaf: NodeId,
    /// The program's input that is the old version; none if the update does not read it.
    input: Option<usize>,
    output: usize,
}

/// A step as a program; see [`capture`].
pub struct CapturedStep {
    program: Arc<Program>,
    arena: Buffer,
    inputs: Vec<Arc<Buffer>>,
    outputs: Vec<Arc<Buffer>>,
    scalars: Vec<u64>,
    origins: Vec<Origin>,
    updates: Vec<Update>,
    /// For each of the user's inputs: the program's, if it reads it.
    given: Vec<(Option<usize>, TensorType)>,
    /// For each of the user's results: the program's output.
    results: Vec<(usize, TensorType)>,
    hooks: Vec<Hook>,
    site: Site,
}

/// Takes the step that `step` records, on these inputs, and keeps it as a program for further calls.
///
/// `step` must commit exactly once (an optimizer's `step`); what it returns can be read after every run. Host numbers
/// made inside are fixed, but for those of optimizers and generators.
///
/// # Errors
/// What `step` reports; several commits or none; a result that the step's program does not compute.
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
            RECORDING.set(None);
        }
    }
    let site = Site::here();
    let refused = |why: String| Error::new("capture", Problem::Argument(why.into()), site);
    if is_capturing() {
        return Err(refused("a capture is going on already".into()).into());
    }
    Tensor::realize_all(inputs)?;
    let tensors: Vec<Tensor> = inputs.iter().map(|t| (*t).clone()).collect();
    RECORDING.set(Some(Recording::default()));
    let stop = Stop;
    let results = step(&tensors)?;
    let recording = RECORDING.take().unwrap_or_default();
    drop(stop);
    let count = recording.commits.len();
    let Ok([(ran, slots)]) = <[_; 1]>::try_from(recording.commits) else {
        return Err(refused(format!("a step must commit once, not {count} times")).into());
    };
    Ok(CapturedStep::build(ran, &slots, inputs, &results, recording.hooks, site)?)
}

impl CapturedStep {
    fn build(
        ran: Ran,
        slots: &[Slot],
        given: &[&Tensor],
        results: &[Tensor],
        hooks: Vec<Hook>,
        site: Site,
    ) -> Result<CapturedStep> {
        let refused = |why: String| Error::new("capture", Problem::Argument(why.into()), site);
        let Ran { program, inputs, bound, wanted, outputs, scalars, origins, updates } = ran;
        let memory = |problem| Error::new("capture", problem, site);
        let arena = Buffer::new(program.arena_bytes, "intermediate values").map_err(memory)?;
        let input_of = |node: NodeId| bound.iter().position(|&b| b == node);
        let mut found = Vec::with_capacity(results.len());
        for (i, result) in results.iter().enumerate() {
            let output = wanted.iter().position(|&w| w == result.node());
            let output = output.ok_or_else(|| {
                refused(format!(
                    "result {i} is not computed by the step's program: it must depend on what the step updates"
                ))
            })?;
            found.push((output, result.ty().clone()));
        }
        if updates.iter().any(|(old, _)| old.is_none()) {
            return Err(refused("a handle of a parameter's version is held elsewhere: drop it before the step".into()));
        }
        let updates = slots
            .iter()
            .zip(updates)
            .map(|(slot, (old, output))| Update {
                leaf: slot.tensor().node(),
                slot: slot.clone(),
                input: old.and_then(input_of),
                output,
            })
            .collect();
        let mut step = CapturedStep {
            given: given.iter().map(|t| (input_of(t.node()), t.ty().clone())).collect(),
            program,
            arena,
            inputs,
            outputs,
            scalars,
            origins,
            updates,
            results: found,
            hooks,
            site,
        };
        // Memory that tensors of the first run name is theirs: replays write to memory of their own, or in place.
        for k in 0..step.outputs.len() {
            let input = step.updates.iter().find(|u| u.output == k).and_then(|u| u.input);
            if let Some(input) = input {
                if Arc::ptr_eq(&step.inputs[input], &step.outputs[k]) {
                    continue;
                }
                step.inputs[input] = step.outputs[k].clone();
            }
            let len = step.outputs[k].len();
            step.outputs[k] = Arc::new(Buffer::new(len, "a result").map_err(memory)?);
        }
        Ok(step)
    }

    /// Runs the step on other inputs of the same types.
    ///
    /// # Errors
    /// Inputs of other shapes or dtypes; a failure of the run: parameters and optimizer state are then as they were; a
    /// parameter that was replaced since the capture.
    #[track_caller]
    pub fn run(&mut self, inputs: &[&Tensor]) -> Result<()> {
        let site = self.site;
        let refused = |problem| Err(Error::new("captured step", problem, site));
        if inputs.len() != self.given.len() {
            let why = format!("{} inputs were given to a step of {}", inputs.len(), self.given.len());
            return refused(Problem::Argument(why.into()));
        }
        for (tensor, (input, ty)) in inputs.iter().zip(&self.given) {
            if tensor.ty() != ty {
                return refused(Problem::Replace {
                    found: tensor.shape().clone(),
                    found_dtype: tensor.dtype(),
                    wanted: ty.shape.clone(),
                    wanted_dtype: ty.dtype,
                });
            }
            if let Some(input) = *input {
                self.inputs[input] = tensor.buffer()?;
            }
        }
        self.take_updates()?;
        self.hooks.iter_mut().for_each(|hook| hook(Replay::Before));
        for (word, origin) in self.scalars.iter_mut().zip(&self.origins) {
            match origin {
                Origin::Fixed => {}
                Origin::Cell(cell) => *word = cell.get().to_bits(),
                Origin::Counter(counter) => *word = counter.fetch_add(1, Relaxed),
            }
        }
        // SAFETY: inputs have the types of the capture; `take_updates` made sure that nobody else reads what is
        // written.
        let outcome = unsafe { self.program.run_in(&self.arena, &self.inputs, &self.outputs, &self.scalars) };
        self.publish(outcome.is_ok());
        match outcome {
            Ok(()) => {
                self.hooks.iter_mut().for_each(|hook| hook(Replay::Done));
                Ok(())
            }
            Err(Failure { problem, .. }) => refused(problem),
        }
    }

    /// Makes sure that the slots still name the leaves of the capture and that nobody else would see them change.
    fn take_updates(&mut self) -> Result<()> {
        let refused = |site, why: &'static str| Err(Error::new("captured step", Problem::Argument(why.into()), site));
        let mut readers = Vec::new();
        {
            let tape = tape::lock();
            for update in &self.updates {
                if !update.slot.names(update.leaf) {
                    return refused(
                        self.site,
                        "a parameter was replaced since the step was captured: capture it again",
                    );
                }
                if tape.uses(update.leaf) > 1 {
                    readers.push(update.leaf);
                }
            }
        }
        if !readers.is_empty() {
            // Tensors recorded on the version that is about to go are computed first, so they see the old values.
            crate::compile::settle(&readers)?;
        }
        for update in &self.updates {
            if update.slot.is_shared() {
                let why = "a handle of a parameter's version is held elsewhere: drop it before the captured step runs";
                return refused(self.site, why);
            }
        }
        // Until `publish`, whoever asks for these leaves waits.
        let mut tape = tape::lock();
        for update in &self.updates {
            tape.flags[update.leaf.index()].taken = true;
            tape.buffer[update.leaf.index()] = None;
        }
        Ok(())
    }

    /// Lets the slots' leaves name their contents again: the new ones, or after a failure those they had.
    fn publish(&mut self, new: bool) {
        let mut tape = tape::lock();
        for update in &self.updates {
            if let (true, Some(input)) = (new, update.input) {
                // Written in place, both are one buffer; else they change roles.
                std::mem::swap(&mut self.inputs[input], &mut self.outputs[update.output]);
            }
            let present = update.input.map_or(&self.outputs[update.output], |input| &self.inputs[input]);
            tape.buffer[update.leaf.index()] = Some(present.clone());
            tape.flags[update.leaf.index()].taken = false;
        }
        tape.notify();
    }

    /// The only element of result `index` of the last run.
    ///
    /// # Errors
    /// No such result, several elements, another dtype than `T`'s.
    #[track_caller]
    pub fn item<T: Element>(&self, index: usize) -> Result<T> {
        let site = Site::here();
        let refused = |problem| Err(Error::new("captured result", problem, site));
        let Some((output, ty)) = self.results.get(index) else {
            let why = format!("there are {} results and no number {index}", self.results.len());
            return refused(Problem::Argument(why.into()));
        };
        if ty.dtype != T::DTYPE {
            return refused(Problem::DType { found: ty.dtype, wanted: T::DTYPE.name().into() });
        }
        if ty.shape.numel() != 1 {
            return refused(Problem::NotAScalar { shape: ty.shape.clone(), hint: "; `to_vec` reads them all" });
        }
        // SAFETY: the last run wrote the whole buffer, and runs need `&mut self`.
        Ok(T::first(unsafe { self.outputs[*output].bytes() }))
    }

    /// The elements of result `index` of the last run.
    ///
    /// # Errors
    /// No such result, another dtype than `T`'s.
    #[track_caller]
    pub fn to_vec<T: Element>(&self, index: usize) -> Result<Vec<T>> {
        let Some((output, ty)) = self.results.get(index).filter(|(_, ty)| ty.dtype == T::DTYPE) else {
            let why = format!("there is no result {index} of dtype {}", T::DTYPE);
            return Err(Error::new("captured result", Problem::Argument(why.into()), Site::here()));
        };
        debug_assert_eq!(self.outputs[*output].len(), ty.bytes());
        // SAFETY: as in `item`.
        Ok(T::from_bytes(unsafe { self.outputs[*output].bytes() }))
    }

    /// Bytes of memory that a run needs beyond its inputs: known before it runs.
    pub fn planned_bytes(&self) -> usize {
        self.program.peak_bytes()
    }
}
