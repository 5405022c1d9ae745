//! Replays of a captured step. A run binds its inputs and the present versions of the slots it reads, takes those it
//! updates, asks every host number for its present value, and runs in the memory of the run before: it allocates
//! nothing, unless somebody shares the memory of a slot.
//!
//! Between runs a step holds no memory of any slot, so others may read, replace and update them as usual. While it
//! runs, the slots' leaves are marked taken, as those of a commit are. Knows how versions are lent; knows no recording.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Hook, Origin, Replay};
use crate::buffer::Buffer;
use crate::compile::settle;
use crate::error::{Error, Problem, Result};
use crate::profile::{self, Phase, span};
use crate::program::{Failure, Program, Workspace};
use crate::slot::Slot;
use crate::tape::site::Site;
use crate::tape::{self, NodeId, TensorType};
use crate::tensor::Tensor;
use crate::tensor::element::Element;

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
    /// The program's input that is the old version; none if the update does not read it.
    pub input: Option<usize>,
    pub home: Home,
    /// What was taken for the run that is going on.
    pub lent: Option<Lent>,
}

pub(super) struct Lent {
    leaf: NodeId,
    old: Arc<Buffer>,
    /// In place of the old version's memory, if that is shared: what the program writes, or what it will write next
    /// time.
    fresh: Option<Arc<Buffer>>,
}

/// A slot that the program reads only.
pub(super) struct Read {
    pub slot: Slot,
    pub input: usize,
    pub ty: TensorType,
    pub grad: bool,
}

/// One of the user's inputs; no `input` if the program does not read it.
pub(super) struct Given {
    pub input: Option<usize>,
    pub ty: TensorType,
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
    pub(super) inputs: Vec<Arc<Buffer>>,
    pub(super) outputs: Vec<Arc<Buffer>>,
    pub(super) scalars: Vec<u64>,
    /// Where the nodes of the step were recorded.
    pub(super) sites: Arc<[Site]>,
    pub(super) origins: Vec<Origin>,
    pub(super) updates: Vec<Update>,
    pub(super) reads: Vec<Read>,
    pub(super) given: Vec<Given>,
    pub(super) results: Vec<(Source, TensorType)>,
    pub(super) hooks: Vec<Hook>,
    /// Stands for an input that is not bound.
    pub(super) nothing: Arc<Buffer>,
    pub(super) site: Site,
}

/// A run that is going on: however it ends, the slots get back a version.
struct Run<'s> {
    step: &'s mut CapturedStep,
    is_new: bool,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.step.publish(self.is_new);
        self.step.unbind();
    }
}

impl CapturedStep {
    /// Runs the step on other inputs of the same types.
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
        for (tensor, Given { ty, .. }) in inputs.iter().zip(&self.given) {
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
        for (tensor, given) in inputs.iter().zip(&self.given) {
            // Asked for even if the program does not read it: a mistake in it comes out.
            let buffer = tensor.buffer()?;
            if let Some(input) = given.input {
                self.inputs[input] = buffer;
            }
        }
        // Hooks are the users': nothing is taken while they run.
        self.hooks.iter_mut().for_each(|hook| hook(Replay::Before));
        self.bind_reads()?;
        self.take_updates()?;
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
        // SAFETY: inputs have the types of the capture; `take` made sure that nobody else reads what is written.
        let outcome = unsafe {
            let CapturedStep { program, workspace, arena, inputs, outputs, scalars, .. } = self;
            program.run_in(workspace, arena, inputs, outputs, scalars, watch.as_ref())
        };
        if let Err(Failure { problem, .. }) = outcome {
            return self.refused(problem);
        }
        for (source, ty) in &self.results {
            if let Source::Update { update, copy } = source {
                let written = match self.updates[*update].home {
                    Home::InPlace(input) => &self.inputs[input],
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

    /// Binds the present versions of the slots that are read.
    fn bind_reads(&mut self) -> Result<()> {
        for Read { slot, input, ty, grad } in &self.reads {
            let bound = slot.with_settled(|value, tape| {
                check_fits(value, ty, *grad)?;
                tape.buffer[value.node().index()].clone().ok_or_else(gone)
            });
            match bound {
                Ok(buffer) => self.inputs[*input] = buffer,
                Err(problem) => return self.refused(problem),
            }
        }
        Ok(())
    }

    /// Takes the versions that are to be replaced, all or none: until `publish`, whoever asks for them waits.
    fn take_updates(&mut self) -> Result<()> {
        'again: loop {
            for k in 0..self.updates.len() {
                match self.take(k) {
                    Ok(true) => {}
                    Ok(false) => {
                        // Never wait for one slot with others taken: its holder may wait for those.
                        self.publish(false);
                        self.updates[k].slot.with_settled(|_, _| ());
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
            self.publish(false);
            settle(&read.iter().map(Tensor::node).collect::<Vec<_>>())?;
        }
    }

    /// Takes one slot's version; `false` if somebody else is about to change it.
    fn take(&mut self, k: usize) -> std::result::Result<bool, Problem> {
        let Update { slot, ty, grad, input, home, .. } = &self.updates[k];
        let (input, home) = (*input, *home);
        let taken = slot.try_with(|value| {
            check_fits(value, ty, *grad)?;
            if !value.is_sole_handle() {
                let why = "a handle of a parameter's version is held elsewhere: drop it before the captured step runs";
                return Err(Problem::Argument(why.into()));
            }
            let leaf = value.node();
            let mut tape = tape::lock();
            if tape.flags[leaf.index()].taken {
                return Ok(None);
            }
            let old = tape.buffer[leaf.index()].take().ok_or_else(gone)?;
            tape.flags[leaf.index()].taken = true;
            tape.lent += 1;
            tape.pin(leaf);
            Ok(Some((leaf, old)))
        });
        let Some((leaf, old)) = taken.unwrap_or(Ok(None))? else { return Ok(false) };
        let is_shared = Arc::strong_count(&old) > 1;
        let lent = self.updates[k].lent.insert(Lent { leaf, old, fresh: None });
        if is_shared {
            let fresh = match home {
                // SAFETY: versions are written whole, and nobody writes what is shared.
                Home::InPlace(_) => Buffer::from_bytes(unsafe { lent.old.bytes() })?,
                Home::Apart(_) => Buffer::new(lent.old.len(), "a result")?,
            };
            lent.fresh = Some(Arc::new(fresh));
        }
        if let Some(input) = input {
            let in_place = lent.fresh.as_ref().filter(|_| matches!(home, Home::InPlace(_)));
            self.inputs[input] = in_place.unwrap_or(&lent.old).clone();
        }
        Ok(true)
    }

    /// The taken leaves, if anything recorded depends on one of them.
    fn pin_if_read(&self) -> Vec<Tensor> {
        let mut tape = tape::lock();
        if tape.pending() == 0 {
            return Vec::new();
        }
        let leaves = || self.updates.iter().filter_map(|u| u.lent.as_ref()).map(|l| l.leaf);
        tape.begin_walk();
        for leaf in leaves() {
            tape.set_mark(leaf, 0);
        }
        let is_read = tape.recorded().any(|n| tape.inputs[n.index()].iter().any(|i| tape.marked(*i).is_some()));
        match is_read {
            true => Tensor::rehandle(&mut tape, &leaves().collect::<Vec<_>>()),
            false => Vec::new(),
        }
    }

    /// Lets the taken leaves name a version again: the new ones, or those they had.
    fn publish(&mut self, is_new: bool) {
        let mut tape = tape::lock();
        for update in &mut self.updates {
            let Some(Lent { leaf, old, fresh }) = update.lent.take() else { continue };
            if let Some(input) = update.input {
                self.inputs[input] = self.nothing.clone();
            }
            let present = match update.home {
                _ if !is_new => old,
                Home::InPlace(_) => fresh.unwrap_or(old),
                Home::Apart(output) => std::mem::replace(&mut self.outputs[output], fresh.unwrap_or(old)),
            };
            tape.buffer[leaf.index()] = Some(present);
            tape.flags[leaf.index()].taken = false;
            tape.lent -= 1;
            tape.unpin(leaf);
        }
        tape.notify();
    }

    /// Lets go of what the run was given: a step that shared it would keep others from updating it in place.
    fn unbind(&mut self) {
        let given = self.given.iter().filter_map(|g| g.input);
        for input in given.chain(self.reads.iter().map(|r| r.input)) {
            self.inputs[input] = self.nothing.clone();
        }
    }

    /// The only element of result `index` of the last run.
    ///
    /// # Errors
    /// No such result, several elements, another dtype than `T`'s.
    #[track_caller]
    pub fn item<T: Element>(&self, index: usize) -> Result<T> {
        self.result::<T, _>(index, |bytes, ty| match ty.shape.numel() {
            1 => Ok(T::first(bytes)),
            _ => Err(Problem::NotAScalar { shape: ty.shape.clone(), hint: "; `to_vec` reads them all" }),
        })
    }

    /// The elements of result `index` of the last run.
    ///
    /// # Errors
    /// No such result, another dtype than `T`'s.
    #[track_caller]
    pub fn to_vec<T: Element>(&self, index: usize) -> Result<Vec<T>> {
        self.result::<T, _>(index, |bytes, _| Ok(T::from_bytes(bytes)))
    }

    #[track_caller]
    fn result<T: Element, R>(
        &self,
        index: usize,
        read: impl FnOnce(&[u8], &TensorType) -> std::result::Result<R, Problem>,
    ) -> Result<R> {
        self.read(index, |bytes, ty| match ty.dtype == T::DTYPE {
            true => read(bytes, ty),
            false => Err(Problem::DType { found: ty.dtype, wanted: T::DTYPE.name().into() }),
        })
    }

    #[track_caller]
    fn read<R>(
        &self,
        index: usize,
        read: impl FnOnce(&[u8], &TensorType) -> std::result::Result<R, Problem>,
    ) -> Result<R> {
        let site = Site::here();
        let refused = |problem| Error::new("captured result", problem, site);
        let Some((source, ty)) = self.results.get(index) else {
            let why = format!("there are {} results and no number {index}", self.results.len());
            return Err(refused(Problem::Argument(why.into())));
        };
        let buffer = match source {
            Source::Output(output) => &*self.outputs[*output],
            Source::Update { copy, .. } => copy,
        };
        // SAFETY: the capture filled it with the first run's values, every run writes it whole or not at all, and runs
        // need `&mut self`.
        read(unsafe { buffer.bytes() }, ty).map_err(refused)
    }

    /// Result `index` of the last run, as a tensor of its own.
    ///
    /// # Errors
    /// No such result.
    #[track_caller]
    pub fn tensor(&self, index: usize) -> Result<Tensor> {
        self.read(index, |bytes, ty| Ok(Tensor::from_bytes(bytes, ty.dtype, ty.shape.clone())))
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
