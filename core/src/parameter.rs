//! Parameters: cells that name an immutable version of a tensor. A step makes new versions; what was recorded before
//! keeps reading the old ones.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use crate::capture;
use crate::compile::realize;
use crate::error::{Error, Problem, Result};
use crate::precision::Precision;
use crate::tape::site::Site;
use crate::tape::{self, Locked, NodeId};
use crate::tensor::Tensor;

/// Whom a gradient belongs to; carried by the leaves of all versions.
#[derive(Debug)]
pub(crate) struct Owner {
    path: Mutex<String>,
}

impl Owner {
    pub fn new() -> Arc<Owner> {
        Arc::new(Owner { path: Mutex::default() })
    }

    pub fn path(&self) -> String {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A place that names one version of a tensor after another: the state of a parameter, a buffer or an optimizer.
///
/// Clones are the same place.
#[derive(Clone, Debug)]
pub struct Slot(Arc<SlotInner>);

#[derive(Debug)]
struct SlotInner {
    value: Mutex<Tensor>,
    /// Whether the value is codes of eight bits; changes with it, while it is locked.
    in_eight_bits: AtomicBool,
    /// What each row's codes are multiples of; always at the same place, which a captured step reads.
    scales: Mutex<Option<Slot>>,
    owner: Option<Arc<Owner>>,
    trainable: AtomicBool,
    /// The version that the next commit makes.
    staged: Mutex<Option<Tensor>>,
}

thread_local! {
    /// What this thread has staged and not committed.
    static STAGED: RefCell<Vec<Weak<SlotInner>>> = const { RefCell::new(Vec::new()) };
}

impl Slot {
    /// A place holding `value`, computed now.
    ///
    /// # Errors
    /// What computing `value` reports.
    #[track_caller]
    pub fn new(value: Tensor) -> Result<Slot> {
        Slot::with_owner(value, None)
    }

    #[track_caller]
    fn with_owner(value: Tensor, owner: Option<Arc<Owner>>) -> Result<Slot> {
        if owner.is_some() && !value.dtype().is_float() {
            let problem = Problem::DType { found: value.dtype(), wanted: "f32 or f64 for a parameter".into() };
            return Err(Error::new("parameter", problem, Site::here()));
        }
        let leaf = capture::aside(|| value.as_leaf(owner.is_some(), owner.clone()))?;
        let trainable = AtomicBool::new(owner.is_some());
        Ok(Slot(Arc::new(SlotInner {
            value: Mutex::new(leaf),
            in_eight_bits: AtomicBool::new(false),
            scales: Mutex::default(),
            owner,
            trainable,
            staged: Mutex::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Tensor> {
        self.0.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current version, or the staged one.
    pub fn tensor(&self) -> Tensor {
        match self.version() {
            (codes, Some(scales)) => codes.dequantize_int8(&scales),
            (value, None) => value,
        }
    }

    /// The version as it is kept: a value (perhaps staged), or codes with their scales.
    fn version(&self) -> (Tensor, Option<Tensor>) {
        if let Some(staged) = &*self.staged() {
            return (staged.clone(), None);
        }
        let (value, scales) = {
            let value = self.lock();
            (value.clone(), self.scales())
        };
        capture::note_read(self, &value);
        (value, scales.map(|scales| scales.tensor()))
    }

    fn is_in_eight_bits(&self) -> bool {
        self.0.in_eight_bits.load(Relaxed) // read with the value, or to know no more than this
    }

    /// Of the version, if it is kept in eight bits.
    fn scales(&self) -> Option<Slot> {
        match self.is_in_eight_bits() {
            true => self.lock_scales().clone(),
            false => None,
        }
    }

    fn lock_scales(&self) -> MutexGuard<'_, Option<Slot>> {
        self.0.scales.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn staged(&self) -> MutexGuard<'_, Option<Tensor>> {
        self.0.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the version will be from this thread's next [`commit`] on: one that an optimizer's step makes, whose
    /// program then computes it too. Until then [`Slot::tensor`] gives `value`, not yet computed. If that commit fails,
    /// the old version stays.
    ///
    /// # Errors
    /// A mistake in `value`, another shape or dtype.
    #[track_caller]
    pub fn stage(&self, value: &Tensor) -> Result<()> {
        check_fits(&self.tensor(), value, Site::here())?;
        // A staged version that this replaces may go only when the slot is free again.
        let replaced = self.staged().replace(value.clone());
        if replaced.is_none() {
            STAGED.with_borrow_mut(|staged| staged.push(Arc::downgrade(&self.0)));
        }
        Ok(())
    }

    /// Calls `f` with the version, once no program has taken it. The slot is locked before the tape, here and
    /// everywhere.
    pub(crate) fn with_settled<R>(&self, f: impl FnOnce(&Tensor, &Locked) -> R) -> R {
        loop {
            let value = self.lock();
            let tape = tape::lock();
            if !tape.flags[value.node().index()].taken {
                return f(&value, &tape);
            }
            drop(value);
            drop(tape.wait());
        }
    }

    /// Calls `f` with the version, unless somebody holds the slot at the moment.
    pub(crate) fn try_with<R>(&self, f: impl FnOnce(&Tensor) -> R) -> Option<R> {
        match self.0.value.try_lock() {
            Ok(value) => Some(f(&value)),
            Err(TryLockError::Poisoned(value)) => Some(f(&value.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Names another version. The old one's handle goes when the slot is free again.
    fn name(&self, leaf: Tensor) {
        self.name_version(leaf, false);
    }

    fn name_version(&self, leaf: Tensor, in_eight_bits: bool) {
        let staged = self.staged().take();
        drop(staged);
        let old = {
            let mut value = self.lock();
            self.0.in_eight_bits.store(in_eight_bits, Relaxed); // the value is locked
            std::mem::replace(&mut *value, leaf)
        };
        drop(old);
    }

    /// Replaces the version. What was recorded before keeps reading the old one.
    ///
    /// # Errors
    /// Another shape or dtype; what computing `value` reports; a step that is being captured. The old version then
    /// stays.
    #[track_caller]
    pub fn set(&self, value: &Tensor) -> Result<()> {
        let site = Site::here();
        capture::check_writing("set", site)?;
        check_fits(&self.tensor(), value, site)?;
        let leaf = value.as_leaf(self.0.trainable.load(Relaxed), self.0.owner.clone())?;
        self.name(leaf);
        Ok(())
    }

    /// Replaces the version by one of any shape and dtype: how a whole model is converted to another dtype.
    ///
    /// # Errors
    /// An integer tensor for a parameter; what computing `value` reports; a step that is being captured. The old
    /// version then stays.
    #[track_caller]
    pub fn replace(&self, value: &Tensor) -> Result<()> {
        capture::check_writing("replace", Site::here())?;
        if self.0.owner.is_some() && !value.dtype().is_float() {
            let problem = Problem::DType { found: value.dtype(), wanted: "f32 or f64 for a parameter".into() };
            return Err(Error::new("replace", problem, Site::here()));
        }
        let leaf = value.as_leaf(self.0.trainable.load(Relaxed), self.0.owner.clone())?;
        self.name(leaf);
        Ok(())
    }

    /// Keeps the version as codes of eight bits with one scale per row (see [`Tensor::quantize_int8`]), for inference:
    /// what is read from now on are their values, which are not quite the old ones. Until it is set anew, it can
    /// neither be trained nor updated.
    ///
    /// # Errors
    /// Another number of axes than two, no float; a value that is not finite; a step that is being captured. The old
    /// version then stays.
    #[track_caller]
    pub fn quantize_int8(&self) -> Result<()> {
        let site = Site::here();
        capture::check_writing("quantize_int8", site)?;
        if self.is_in_eight_bits() {
            return Ok(());
        }
        let (codes, scales) = self.tensor().detach().quantize_int8();
        Tensor::realize_all(&[&codes, &scales])?;
        if scales.to_vec::<f32>()?.iter().any(|scale| !scale.is_finite()) {
            let problem = Problem::Argument("a value is not finite: it has no code".into());
            return Err(Error::new("quantize_int8", problem, site));
        }
        let codes = codes.as_leaf(false, self.0.owner.clone())?;
        let place = self.lock_scales().clone();
        match place {
            Some(place) => place.replace(&scales)?,
            None => {
                let place = Slot::new(scales)?;
                *self.lock_scales() = Some(place);
            }
        }
        self.0.trainable.store(false, Relaxed);
        self.name_version(codes, true);
        Ok(())
    }

    fn check_is_whole(&self, op: &'static str, site: Site) -> Result<()> {
        match self.is_in_eight_bits() {
            false => Ok(()),
            true => {
                let why = "it is kept in eight bits, for inference only; `set` gives it values that can be trained";
                Err(Error::new(op, Problem::Argument(why.into()), site))
            }
        }
    }

    /// A number that no other place has while this one lives: clones have the same.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

fn check_fits(old: &Tensor, new: &Tensor, site: Site) -> Result<()> {
    new.check()?;
    if new.shape() == old.shape() && new.dtype() == old.dtype() {
        return Ok(());
    }
    let problem = Problem::Replace {
        found: new.shape().clone(),
        found_dtype: new.dtype(),
        wanted: old.shape().clone(),
        wanted_dtype: old.dtype(),
    };
    Err(Error::new("set", problem, site))
}

/// A trainable tensor of a module: a [`Slot`] that `backward` reaches, with a path.
#[derive(Clone, Debug)]
pub struct Parameter {
    slot: Slot,
    owner: Arc<Owner>,
}

impl Parameter {
    /// A parameter that starts as `value`, computed now.
    ///
    /// # Errors
    /// An integer tensor; what computing `value` reports.
    #[track_caller]
    pub fn new(value: Tensor) -> Result<Parameter> {
        let owner = Owner::new();
        Ok(Parameter { slot: Slot::with_owner(value, Some(owner.clone()))?, owner })
    }

    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// The current version.
    pub fn tensor(&self) -> Tensor {
        self.slot.tensor()
    }

    /// Replaces the version; see [`Slot::set`].
    ///
    /// # Errors
    /// Another shape or dtype; what computing `value` reports.
    #[track_caller]
    pub fn set(&self, value: &Tensor) -> Result<()> {
        self.slot.set(value)
    }

    /// The place that holds the version.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Its path in the model it belongs to; empty until a model has been walked.
    pub fn path(&self) -> String {
        self.owner.path()
    }

    /// Says under which path the parameter is known.
    pub fn set_path(&self, path: &str) {
        *self.owner.path.lock().unwrap_or_else(PoisonError::into_inner) = path.to_owned();
    }

    /// The product `x wᵀ` with its present version, which is read in eight bits if it is kept so; as [`Precision`]
    /// says.
    ///
    /// # Shapes
    /// `x: (…, inputs)`, the parameter `(outputs, inputs)` → `(…, outputs)`
    #[track_caller]
    pub fn linear(&self, x: &Tensor) -> Tensor {
        match self.slot.version() {
            (codes, Some(scales)) => x.linear_int8(&codes, &scales),
            (weight, None) => x.matmul(&Precision::current().operand(&weight).t()),
        }
    }

    /// The rows of its present version that `index` names; see [`Tensor::embedding`]. No other row is read.
    ///
    /// # Shapes
    /// the parameter `(V, C)`, index `(…)` → `(…, C)`
    #[track_caller]
    pub fn rows(&self, index: &Tensor) -> Tensor {
        match self.slot.version() {
            (codes, Some(scales)) => codes.embedding(index).dequantize_int8(&scales.embedding(index)),
            (table, None) => table.embedding(index),
        }
    }

    /// Keeps it in eight bits; see [`Slot::quantize_int8`].
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    pub fn quantize_int8(&self) -> Result<()> {
        self.slot.quantize_int8()
    }

    /// Whether it is kept in eight bits.
    pub fn is_quantized(&self) -> bool {
        self.slot.is_in_eight_bits()
    }

    /// Whether `backward` reaches it.
    pub fn is_trainable(&self) -> bool {
        self.slot.0.trainable.load(Relaxed)
    }

    /// Keeps `backward` from reaching it (`true`), or lets it again.
    ///
    /// # Errors
    /// A step that is being captured; none otherwise.
    #[track_caller]
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        capture::check_writing("freeze", Site::here())?;
        if frozen && self.is_quantized() {
            return Ok(());
        }
        self.slot.check_is_whole("freeze", Site::here())?;
        self.slot.0.trainable.store(!frozen, Relaxed);
        loop {
            let old = self.tensor();
            // May wait for a program that has the version: the slot is free meanwhile.
            let leaf = old.as_leaf(!frozen, Some(self.owner.clone()))?;
            let mut value = self.slot.lock();
            if value.node() == old.node() {
                let old_handle = std::mem::replace(&mut *value, leaf);
                drop(value);
                drop(old_handle);
                return Ok(());
            }
        }
    }
}

/// What this thread has staged, without those that are updated anyway.
fn take_staged(updates: &[(&Slot, Tensor)]) -> Vec<(Slot, Tensor)> {
    let slots = STAGED.take().into_iter().filter_map(|slot| slot.upgrade().map(Slot));
    let staged = slots.filter_map(|slot| {
        let value = slot.staged().take()?;
        Some((slot, value))
    });
    staged.filter(|(slot, _)| !updates.iter().any(|(other, _)| Arc::ptr_eq(&slot.0, &other.0))).collect()
}

/// Computes all new versions as one program and then names them all: all or nothing. What the thread has staged (see
/// [`Slot::stage`]) belongs to them.
///
/// Memory of old versions that nobody else reads is taken over by the new ones. Live tensors that depend on such a
/// version are computed first, so they see the old values.
///
/// # Errors
/// A mistake in any value, another shape or dtype, one slot named twice, a failure of the run (an index out of range):
/// every slot then still names its old version.
#[track_caller]
pub fn commit(updates: &[(&Slot, Tensor)]) -> Result<()> {
    let site = Site::here();
    let staged = take_staged(updates);
    let staged_too = staged.iter().map(|(slot, value)| (slot, value.clone()));
    let updates = &updates.iter().map(|(slot, value)| (*slot, value.clone())).chain(staged_too).collect::<Vec<_>>()[..];
    let mut order: Vec<usize> = (0..updates.len()).collect();
    // One order for all threads: two commits over the same slots cannot wait for each other.
    order.sort_by_key(|&i| Arc::as_ptr(&updates[i].0.0).addr());
    if order.windows(2).any(|w| Arc::ptr_eq(&updates[w[0]].0.0, &updates[w[1]].0.0)) {
        let problem = Problem::Argument("a slot is named twice in one step".into());
        return Err(Error::new("commit", problem, site));
    }
    let mut held: Vec<Option<MutexGuard<'_, Tensor>>> = (0..updates.len()).map(|_| None).collect();
    for i in order {
        held[i] = Some(updates[i].0.lock());
    }
    let mut held: Vec<MutexGuard<'_, Tensor>> = held.into_iter().flatten().collect();
    for (old, (slot, new)) in held.iter().zip(updates) {
        slot.check_is_whole("commit", site)?;
        check_fits(old, new, site)?;
    }
    let replaces: Vec<Option<NodeId>> = held.iter().map(|old| old.is_sole_handle().then(|| old.node())).collect();
    let values: Vec<&Tensor> = updates.iter().map(|(_, new)| new).collect();
    let ran = realize(&values, &replaces)?;
    let leaf = |(slot, new): &(&Slot, Tensor)| new.as_leaf(slot.0.trainable.load(Relaxed), slot.0.owner.clone());
    let leaves = updates.iter().map(leaf).collect::<Result<Vec<Tensor>>>()?;
    let old: Vec<Tensor> = held.iter_mut().zip(leaves).map(|(old, leaf)| std::mem::replace(&mut **old, leaf)).collect();
    drop(held);
    drop(old);
    if let Some(ran) = ran {
        capture::note(ran, updates.iter().map(|(slot, _)| (*slot).clone()).collect());
    }
    Ok(())
}
