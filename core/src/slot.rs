//! Slots: places that name an immutable version of a tensor. A step makes new versions; what was recorded before keeps
//! reading the old ones. Owns in which form a version is kept.

mod kept;

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::capture::{self, Lease};
use crate::compile::realize;
use crate::cpu;
use crate::device::Kind;
use crate::error::{Error, Problem, Result};
use crate::locks;
use crate::parameter::Owner;
use crate::tape::site::Site;
use crate::tape::{self, Locked, NodeId};
use crate::tensor::Tensor;
use kept::{Form, Kept, Place};

/// A place that names one version of a tensor after another: the state of a parameter, a buffer or an optimizer.
///
/// Clones are the same place.
#[derive(Clone, Debug)]
pub struct Slot(Arc<SlotInner>);

#[derive(Debug)]
struct SlotInner {
    kept: Place,
    /// What each row's codes are multiples of; always at the same place, which a captured step reads.
    scales: Mutex<Option<Slot>>,
    owner: Option<Arc<Owner>>,
    trainable: AtomicBool,
    /// The version that the next commit makes.
    staged: Mutex<Option<Tensor>>,
}

/// A version as it is read.
pub(crate) enum Version {
    Whole(Tensor),
    EightBits { codes: Tensor, scales: Tensor },
    Packed { panels: Tensor, outputs: usize },
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
    pub(crate) fn with_owner(value: Tensor, owner: Option<Arc<Owner>>) -> Result<Slot> {
        if owner.is_some() && !value.dtype().is_float() {
            let problem = Problem::DType { found: value.dtype(), wanted: "f32 or f64 for a parameter".into() };
            return Err(Error::new("parameter", problem, Site::here()));
        }
        let leaf = capture::aside(|| value.as_leaf(owner.is_some(), owner.clone()))?;
        let trainable = AtomicBool::new(owner.is_some());
        Ok(Slot(Arc::new(SlotInner {
            kept: Place::new(Kept::new(leaf, Form::Whole)),
            scales: Mutex::default(),
            owner,
            trainable,
            staged: Mutex::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock()
    }

    /// The current version, or the staged one.
    pub fn tensor(&self) -> Tensor {
        match self.version() {
            Version::Whole(value) => value,
            Version::EightBits { codes, scales } => codes.dequantize_int8(&scales),
            Version::Packed { panels, outputs } => panels.unpack(outputs),
        }
    }

    /// The version as it is kept, or the staged one.
    pub(crate) fn version(&self) -> Version {
        if let Some(staged) = &*self.staged() {
            return Version::Whole(staged.clone());
        }
        let (value, form, scales) = {
            let Kept { value, form, .. } = &*self.lock();
            (value.clone(), *form, if *form == Form::EightBits { self.lock_scales().clone() } else { None })
        };
        capture::note_read(self, &value);
        match (form, scales) {
            (Form::EightBits, Some(scales)) => Version::EightBits { codes: value, scales: scales.tensor() },
            (Form::Packed(outputs), _) => Version::Packed { panels: value, outputs },
            _ => Version::Whole(value),
        }
    }

    fn form(&self) -> Form {
        self.lock().form
    }

    /// Whether it is kept in eight bits.
    pub(crate) fn is_quantized(&self) -> bool {
        self.form() == Form::EightBits
    }

    /// Whether it is kept in panels.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.form(), Form::Packed(_))
    }

    fn lock_scales(&self) -> MutexGuard<'_, Option<Slot>> {
        locks::lock(&self.0.scales)
    }

    fn staged(&self) -> MutexGuard<'_, Option<Tensor>> {
        locks::lock(&self.0.staged)
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

    /// Shares the version with the step that is running with this lease: `f` is called once no program has taken it.
    /// The slot is locked before the tape, here and everywhere.
    pub(crate) fn share<R>(&self, lease: &Arc<Lease>, f: impl FnOnce(&Tensor, &Locked) -> R) -> R {
        loop {
            let mut kept = self.0.kept.lock_for(Some(lease));
            let tape = tape::lock();
            if !tape.flags[kept.value.node().index()].taken {
                kept.lend_to(lease);
                return f(&kept.value, &tape);
            }
            drop(kept);
            drop(tape.wait());
        }
    }

    /// Lends the version to the step that is running with this lease, unless somebody holds the slot at the moment.
    pub(crate) fn lend<R>(&self, lease: &Arc<Lease>, f: impl FnOnce(&mut Tensor) -> R) -> Option<R> {
        let mut kept = self.0.kept.try_lock_for(lease)?;
        kept.lend_to(lease);
        Some(f(&mut kept.value))
    }

    /// Names another version. The old one's handle goes when the slot is free again.
    fn name(&self, value: Tensor, form: Form) {
        let staged = self.staged().take();
        drop(staged);
        let old = std::mem::replace(&mut *self.lock(), Kept::new(value, form));
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
        self.name(leaf, Form::Whole);
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
        self.name(leaf, Form::Whole);
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
        if self.is_quantized() {
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
        self.name(codes, Form::EightBits);
        Ok(())
    }

    /// Keeps the version in panels (see [`Tensor::prepack`]), for inference: the same values, which products of few
    /// rows read faster. Until it is set anew, it can neither be trained nor updated. Where that reads no faster (on
    /// other devices than the CPU, in dtypes that it has no instructions for, in eight bits) nothing changes.
    ///
    /// # Errors
    /// Another number of axes than two; a step that is being captured. The old version then stays.
    #[track_caller]
    pub fn prepack(&self) -> Result<()> {
        let site = Site::here();
        capture::check_writing("prepack", site)?;
        let Version::Whole(weight) = self.version() else { return Ok(()) };
        if weight.ndim() != 2 {
            let problem = Problem::Rank { shape: weight.shape().clone(), wanted: 2 };
            return Err(Error::new("prepack", problem, site));
        }
        let [outputs, inputs] = weight.dims();
        let pays = weight.device().0 == Kind::Cpu && cpu::reads_panels(weight.dtype(), inputs);
        if !pays || weight.numel() == 0 {
            return Ok(());
        }
        let panels = weight.detach().prepack().as_leaf(false, self.0.owner.clone())?;
        self.0.trainable.store(false, Relaxed);
        self.name(panels, Form::Packed(outputs));
        Ok(())
    }

    pub(crate) fn is_trainable(&self) -> bool {
        self.0.trainable.load(Relaxed)
    }

    /// Keeps `backward` from reaching the version (`true`), or lets it again.
    pub(crate) fn freeze(&self, frozen: bool, site: Site) -> Result<()> {
        capture::check_writing("freeze", site)?;
        match self.form() {
            Form::Whole => {}
            _ if frozen => return Ok(()),
            form => return check_is_whole(form, "freeze", site),
        }
        self.0.trainable.store(!frozen, Relaxed);
        loop {
            let old = self.tensor();
            // May wait for a program that has the version: the slot is free meanwhile.
            let leaf = old.as_leaf(!frozen, self.0.owner.clone())?;
            let mut kept = self.lock();
            if kept.value.node() == old.node() {
                let old_handle = std::mem::replace(&mut kept.value, leaf);
                drop(kept);
                drop(old_handle);
                return Ok(());
            }
        }
    }

    /// A number that no other place has while this one lives: clones have the same.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

fn check_is_whole(form: Form, op: &'static str, site: Site) -> Result<()> {
    let kept = match form {
        Form::Whole => return Ok(()),
        Form::EightBits => "in eight bits",
        Form::Packed(_) => "packed",
    };
    let why = format!("it is kept {kept}, for inference only; `set` gives it values that can be trained");
    Err(Error::new(op, Problem::Argument(why.into()), site))
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
    let mut held: Vec<Option<MutexGuard<'_, Kept>>> = (0..updates.len()).map(|_| None).collect();
    for i in order {
        held[i] = Some(updates[i].0.lock());
    }
    let mut held: Vec<MutexGuard<'_, Kept>> = held.into_iter().flatten().collect();
    for (old, (_, new)) in held.iter().zip(updates) {
        check_is_whole(old.form, "commit", site)?;
        check_fits(&old.value, new, site)?;
    }
    let sole = |old: &Tensor| old.is_sole_handle().then(|| old.node());
    let replaces: Vec<Option<NodeId>> = held.iter().map(|old| sole(&old.value)).collect();
    let values: Vec<&Tensor> = updates.iter().map(|(_, new)| new).collect();
    let ran = realize(&values, &replaces)?;
    let leaf = |(slot, new): &(&Slot, Tensor)| new.as_leaf(slot.0.trainable.load(Relaxed), slot.0.owner.clone());
    let leaves = updates.iter().map(leaf).collect::<Result<Vec<Tensor>>>()?;
    let old: Vec<Tensor> =
        held.iter_mut().zip(leaves).map(|(old, leaf)| std::mem::replace(&mut old.value, leaf)).collect();
    drop(held);
    drop(old);
    if let Some(ran) = ran {
        capture::note(ran, updates.iter().map(|(slot, _)| (*slot).clone()).collect());
    }
    Ok(())
}
