//! Replays of a captured step. A run binds its inputs and the present versions of the slots it reads, takes those it
//! updates, asks every host number for its present value, and runs in the memory of the run before: it allocates
//! nothing, unless somebody shares the memory of a slot.
//!
//! Between runs a step keeps its slots' versions on a `lease`, which ends when somebody else looks at one of the slots:
//! others may read, replace and update them as usual. As long as nobody does, runs take no lock. While a step has
//! versions, their leaves are marked taken, as those of a commit are. Knows how versions are lent; knows no recording.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;

use super::lease::{Lease, Lent};
use super::{Hook, Origin, Replay};
use crate::buffer::Buffer;
use crate::compile::settle;
use crate::error::{Error, Problem, Result};
use crate::profile::{self, Phase, span};
use crate::program::{Failure, Program, Workspace};
use crate::slot::Slot;
use crate::tape::site::Site;
use crate::tape::{self, TensorType};
use crate::tensor::Tensor;

/// What one of the program's inputs is.
pub(super) enum Input {
    /// The same for all runs.
    Fixed(Arc<Buffer>),
    /// That one of the user's inputs.
    Given(usize),
    /// The version of that one of the slots that are read.
    Read(usize),
    /// The old version of that one of the slots that are updated.
    Updated(usize),
}

/// Where the program writes a slot's new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Over the old one, which is that input.
    InPlace(usize),
    /// To that output: old and new change roles.
    Apart(usize),
}

/// A slot that the program updates.
pub(super) struct Update {
    pub slot: Slot,
    pub ty: TensorType,
    /// Whether gradients reached it when the step was captured.
    pub grad: bool,
    pub home: Home,
}

/// A slot that the program reads only.
pub(super) struct Read {
    pub slot: Slot,
    pub ty: TensorType,
    pub grad: bool,
}

/// Where a result is read.
pub(super) enum Source {
    Output(usize),
    /// It is also a new version: the slot goes on with that memory, so every run leaves a copy.
    Update {
        update: usize,
        copy: Buffer,
    },
}

/// A step as a program; see [`capture`](crate::capture()).
pub struct CapturedStep {
    pub(super) program: Arc<Program>,
    pub(super) workspace: Workspace,
    pub(super) arena: Buffer,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<Arc<Buffer>>,
    pub(super) scalars: Vec<u64>,
    /// Where the nodes of the step were recorded.
    pub(super) sites: Arc<[Site]>,
    pub(super) origins: Vec<Origin>,
    pub(super) updates: Vec<Update>,
    pub(super) reads: Vec<Read>,
    /// The types of the user's inputs.
    pub(super) given: Vec<TensorType>,
    /// Where the program reads them: operands, each with the input's number.
    pub(super) given_operands: Vec<(usize, usize)>,
    /// What the run that is going on was given.
    pub(super) bound: Vec<Arc<Buffer>>,
    pub(super) lease: Arc<Lease>,
    /// Whether the workspace says where all versions and outputs are.
    pub(super) is_placed: bool,
    pub(super) results: Vec<(Source, TensorType)>,
    pub(super) hooks: Vec<Hook>,
    pub(super) site: Site,
}

impl Drop for CapturedStep {
    fn drop(&mut self) {
        self.lease.recall();
    }
}

/// A run that is going on: however it ends, the slots have a version, and what the run was given is let go: a step that
/// shared it would keep others from updating it in place.
struct Run<'s> {
    step: &'s mut CapturedStep,
    is_new: bool,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.step.end(self.is_new);
        self.step.bound.clear();
    }
}

impl CapturedStep {
    /// Runs the step on other inputs of the same types.
    ///
    /// It allocates nothing, and as long as nobody looked at its slots (parameters, optimizer state) since the run
    /// before, it takes no lock. Inputs are found without one if they were made from data or were read before.
    ///
    /// # Errors
    /// Inputs of other shapes or dtypes; a failure of the run: parameters and optimizer state are then as they were; a
    /// handle of a parameter's version that is held elsewhere; a parameter that was frozen or given another type since
    /// the capture.
    #[track_caller]
    pub fn run(&mut self, inputs: &[&Tensor]) -> Result<()> {
        if inputs.len() != self.given.len() {
            let why = format!("{} inputs were given to a step of {}", inputs.len(), self.given.len());
            return self.refused(Problem::Argument(why.into()));
        }
        for (tensor, ty) in inputs.iter().zip(&self.given) {
            if tensor.ty() != ty {
                return self.refused(Problem::Replace {
                    found: tensor.shape().clone(),
                    found_dtype: tensor.dtype(),
                    wanted: ty.shape.clone(),
                    wanted_dtype: ty.dtype,
                });
            }
        }
        let mut run = Run { step: self, is_new: false };
        run.step.compute(inputs)?;
        run.is_new = true;
        drop(run);
        self.hooks.iter_mut().for_each(|hook| hook(Replay::Done));
        Ok(())
    }

    fn compute(&mut self, inputs: &[&Tensor]) -> Result<()> {
        let recorder = profile::recorder().or_else(|problem| self.refused(problem))?;
        let _span = span(recorder.as_ref(), Phase::Replay);
        let watch = recorder.as_ref().map(|recorder| recorder.watch(self.sites.clone()));
        for tensor in inputs {
            // Asked for even if the program does not read it: a mistake in it comes out.
            self.bound.push(tensor.known_buffer()?);
        }
        // Hooks are the users': nothing is taken while they run.
        self.hooks.iter_mut().for_each(|hook| hook(Replay::Before));
        if !self.lease.resume() {
            self.is_placed = false;
            self.lease.begin();
            self.share_reads()?;
            self.take_updates()?;
        }
        match self.is_placed {
            true => self.place_given(),
            false => self.place(),
        }
        for (word, origin) in self.scalars.iter_mut().zip(&self.origins) {
            match origin {
                Origin::Fixed => {}
                Origin::Cell(cell) => *word = cell.get().to_bits(),
                Origin::Start(cell, most) => match place(cell.get(), *most) {
                    Some(start) => *word = start as u64,
                    None => {
                        let why = format!("a place must be a whole number from 0 to {most}, not {}", cell.get());
                        return Err(Error::new("captured step", Problem::Argument(why.into()), self.site));
                    }
                },
                Origin::Counter(counter) => *word = counter.fetch_add(1, Relaxed),
            }
        }
        // SAFETY: all operands are where they were placed: the step has the versions of its slots, and inputs have the
        // types of the capture. `take` made sure that nobody else reads what is written.
        let outcome = unsafe { self.program.run_in(&mut self.workspace, &self.arena, &self.scalars, watch.as_ref()) };
        if let Err(Failure { problem, .. }) = outcome {
            return self.refused(problem);
        }
        for (source, ty) in &self.results {
            if let Source::Update { update, copy } = source {
                // SAFETY: the run is going on.
                let lent = &unsafe { self.lease.held() }.lent[*update];
                let written = match self.updates[*update].home {
                    Home::InPlace(_) => lent.written(),
                    Home::Apart(output) => &self.outputs[output],
                };
                // SAFETY: both have the type's size, are apart, and are this run's alone.
                unsafe { std::ptr::copy_nonoverlapping(written.as_ptr(), copy.as_ptr(), ty.bytes()) };
            }
        }
        Ok(())
    }

    fn refused<T>(&self, problem: Problem) -> Result<T> {
        Err(Error::new("captured step", problem, self.site))
    }

    /// Says where all operands are.
    fn place(&mut self) {
        // SAFETY: the run is going on.
        let held = unsafe { self.lease.held() };
        let input = |input: usize| match &self.inputs[input] {
            Input::Fixed(buffer) => buffer.as_ptr(),
            Input::Given(given) => self.bound[*given].as_ptr(),
            Input::Read(read) => held.read[*read].as_ptr(),
            Input::Updated(update) => match self.updates[*update].home {
                Home::InPlace(_) => held.lent[*update].written().as_ptr(),
                Home::Apart(_) => held.lent[*update].buffer.as_ptr(),
            },
        };
        let output = |output: usize| self.outputs[output].as_ptr();
        self.program.host().bind(&mut self.workspace, &self.arena, input, output);
        self.is_placed = true;
    }

    /// Says where this run's inputs are; all else is where it was.
    fn place_given(&mut self) {
        for &(operand, given) in &self.given_operands {
            self.workspace.rebind(operand, self.bound[given].as_ptr());
        }
    }

    /// Binds the present versions of the slots that are read.
    fn share_reads(&mut self) -> Result<()> {
        for Read { slot, ty, grad } in &self.reads {
            let bound = slot.share(&self.lease, |value, tape| {
                check_fits(value, ty, *grad)?;
                tape.buffer[value.node().index()].clone().ok_or_else(gone)
            });
            match bound {
                // SAFETY: the run is going on.
                Ok(buffer) => unsafe { self.lease.held() }.read.push(buffer),
                Err(problem) => return self.refused(problem),
            }
        }
        Ok(())
    }

    /// Takes the versions that are to be replaced, all or none: until they are given back, whoever asks for them waits.
    fn take_updates(&mut self) -> Result<()> {
        'again: loop {
            for k in 0..self.updates.len() {
                match self.take(k) {
                    Ok(true) => {}
                    Ok(false) => {
                        // Never wait for one slot with others taken: its holder may wait for those.
                        self.give_back_updates();
                        self.updates[k].slot.share(&self.lease, |_, _| ());
                        continue 'again;
                    }
                    Err(problem) => return self.refused(problem),
                }
            }
            let read = self.pin_if_read();
            if read.is_empty() {
                return Ok(());
            }
            // Tensors recorded on the versions that are about to go are computed first, so they see the old values.
            self.give_back_updates();
            settle(&read.iter().map(Tensor::node).collect::<Vec<_>>())?;
        }
    }

    /// Takes one slot's version; `false` if somebody else is about to change it.
    fn take(&mut self, k: usize) -> std::result::Result<bool, Problem> {
        let Update { slot, ty, grad, home } = &self.updates[k];
        let taken = slot.lend(&self.lease, |value| -> std::result::Result<Option<Lent>, Problem> {
            check_fits(value, ty, *grad)?;
            let held = "a handle of a parameter's version is held elsewhere: drop it before the captured step runs";
            let leaf = value.sole().ok_or_else(|| Problem::Argument(held.into()))?;
            let mut tape = tape::lock();
            if tape.flags[leaf.index()].taken {
                return Ok(None);
            }
            let buffer = tape.buffer[leaf.index()].take().ok_or_else(gone)?;
            tape.flags[leaf.index()].taken = true;
            tape.lent += 1;
            tape.pin(leaf);
            Ok(Some(Lent { leaf, buffer, fresh: None }))
        });
        let Some(lent) = taken.unwrap_or(Ok(None))? else { return Ok(false) };
        // SAFETY: the run is going on.
        let held = unsafe { self.lease.held() };
        held.lent.push(lent);
        let Lent { buffer, fresh, .. } = &mut held.lent[k];
        if Arc::strong_count(buffer) > 1 {
            *fresh = Some(Arc::new(match home {
                // SAFETY: versions are written whole, and nobody writes what is shared.
                Home::InPlace(_) => Buffer::from_bytes(unsafe { buffer.bytes() })?,
                Home::Apart(_) => Buffer::new(buffer.len(), "a result")?,
            }));
        }
        // Acquire: partner of the Release with which an `Arc` counts down. Whoever shared it has read it.
        fence(Acquire);
        Ok(true)
    }

    /// The taken leaves, if anything recorded depends on one of them.
    fn pin_if_read(&self) -> Vec<Tensor> {
        let mut tape = tape::lock();
        if tape.pending() == 0 {
            return Vec::new();
        }
        // SAFETY: the run is going on.
        let lent = &unsafe { self.lease.held() }.lent;
        tape.begin_walk();
        for Lent { leaf, .. } in lent {
            tape.set_mark(*leaf, 0);
        }
        let is_read = tape.recorded().any(|n| tape.inputs[n.index()].iter().any(|i| tape.marked(*i).is_some()));
        match is_read {
            true => Tensor::rehandle(&mut tape, &lent.iter().map(|lent| lent.leaf).collect::<Vec<_>>()),
            false => Vec::new(),
        }
    }

    /// Gives the versions that were taken back as they were; the run goes on.
    fn give_back_updates(&mut self) {
        // SAFETY: the run is going on.
        unsafe { self.lease.held() }.give_back_lent(&mut tape::lock());
    }

    /// Ends the run, if it has begun: the slots' versions are the new ones, or those there were.
    fn end(&mut self, is_new: bool) {
        if !self.lease.is_running() {
            return;
        }
        if is_new {
            // SAFETY: the run is going on.
            let held = unsafe { self.lease.held() };
            for (Update { home, .. }, lent) in self.updates.iter().zip(&mut held.lent) {
                let fresh = lent.fresh.take();
                match (*home, fresh) {
                    (Home::InPlace(_), None) => {}
                    (Home::InPlace(_), Some(fresh)) => lent.buffer = fresh,
                    (Home::Apart(output), fresh) => {
                        let new = &mut self.outputs[output];
                        std::mem::swap(&mut lent.buffer, new);
                        if let Some(fresh) = fresh {
                            *new = fresh;
                        }
                        self.is_placed = false;
                    }
                }
            }
            if self.lease.rest() {
                return;
            }
        }
        self.lease.end();
    }

    /// Bytes of memory that a run needs beyond its inputs: known before it runs.
    pub fn planned_bytes(&self) -> usize {
        self.program.peak_bytes()
    }
}

/// The place that a cell says, if it is one.
pub(crate) fn place(value: f64, most: usize) -> Option<usize> {
    (value.fract() == 0.0 && (0.0..=most as f64).contains(&value)).then_some(value as usize)
}

/// Whether the step, as it was captured, can go on with this version.
fn check_fits(value: &Tensor, ty: &TensorType, grad: bool) -> std::result::Result<(), Problem> {
    if value.ty() != ty {
        let why = "a value the step uses has another shape or dtype than when it was captured: capture it again";
        return Err(Problem::Argument(why.into()));
    }
    if value.requires_grad() != grad {
        let why = "a parameter was frozen or thawed since the step was captured: capture it again";
        return Err(Problem::Argument(why.into()));
    }
    Ok(())
}

/// A slot always names a version, but while a program has it.
fn gone() -> Problem {
    Problem::Argument("invariant: a slot's version has contents".into())
}
