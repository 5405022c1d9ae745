//! The tape: the long-lived world. Entities are nodes, components are columns indexed by node.
//!
//! Owns what was recorded and its lifetime, nothing else: a node lives while a handle or another node uses it. It knows
//! no passes and no programs; nothing here computes. One lock guards all columns; it is held for single recordings and
//! for the copy of a graph, never while compiling or running.

pub(crate) mod region;
pub(crate) mod site;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;
use tapeflow_ir::DType;

use crate::buffer::Buffer;
use crate::device::Device;
use crate::locks;
use crate::ops::Op;
use crate::parameter::Owner;
use crate::tensor::shape::Shape;
use region::Region;
use site::Site;

/// An entity of the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub u32);

impl NodeId {
    /// Links and marks that point nowhere.
    pub const NONE: NodeId = NodeId(u32::MAX);

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The nodes an operation reads.
pub(crate) type Inputs = SmallVec<[NodeId; 4]>;

/// What is known of a tensor before it is computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TensorType {
    pub dtype: DType,
    pub shape: Shape,
    pub device: Device,
}

impl TensorType {
    pub fn bytes(&self) -> usize {
        self.shape.numel() * self.dtype.size()
    }
}

/// Facts about a node that are one bit each.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Flags {
    /// A `Tensor` names it.
    pub handle: bool,
    /// A cotangent may have to reach it.
    pub grad: bool,
    /// Its buffer is lent to a running program that replaces it in place.
    pub taken: bool,
    /// Its inputs were dropped when it was realised.
    pub released: bool,
    /// It was recorded under `no_grad`: no cotangent passes it.
    pub cut: bool,
    /// Its inputs were dropped, and a cotangent could have passed to them: it was no parameter's, but may be an input's
    /// of `grad`.
    pub lost: bool,
}

/// What remains known of a node's past when its inputs are dropped.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Ancestry {
    pub born: u64,
    leaves: u128,
}

impl Ancestry {
    fn of_leaf(born: u64) -> Ancestry {
        // SplitMix64's finaliser (Steele, Lea & Flood 2014): neighbours get unlike bits.
        let mut h = born.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ancestry { born, leaves: 1 << (h & 127) | 1 << ((h >> 7) & 127) }
    }

    /// Whether a node may depend on `other`: never says no wrongly, and seldom yes.
    pub fn may_depend_on(&self, other: &Ancestry) -> bool {
        self.born > other.born && other.leaves & !self.leaves == 0 && self.leaves != 0
    }
}

/// The columns.
#[derive(Default)]
pub(crate) struct Tape {
    pub op: Vec<Op>,
    pub inputs: Vec<Inputs>,
    pub ty: Vec<TensorType>,
    pub site: Vec<Site>,
    pub buffer: Vec<Option<Arc<Buffer>>>,
    pub flags: Vec<Flags>,
    /// When it was recorded, in order; and which leaves it may depend on, two bits each (Bloom 1970): with that, `grad`
    /// can tell whether a value whose graph is gone may have depended on an input.
    pub ancestry: Vec<Ancestry>,
    /// What it is computed again with in backward.
    pub region: Vec<Option<Arc<Region>>>,
    /// Whose gradient a leaf's is.
    pub owner: Vec<Option<Arc<Owner>>>,
    /// One per handle and per node that has this as an input.
    uses: Vec<u32>,
    /// Neighbours in the list of nodes that have inputs, in order of recording.
    older: Vec<NodeId>,
    newer: Vec<NodeId>,
    oldest: Option<NodeId>,
    newest: Option<NodeId>,
    /// Scratch of graph walks: the epoch a node was last visited in, and its number in that walk.
    mark: Vec<(u32, u32)>,
    epoch: u32,
    free: Vec<NodeId>,
    pending: usize,
    born: u64,
    /// How many buffers are lent to running programs: nodes whose flag `taken` is set.
    pub lent: usize,
}

static TAPE: Mutex<Option<Tape>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// The locked tape.
pub(crate) struct Locked(MutexGuard<'static, Option<Tape>>);

pub(crate) fn lock() -> Locked {
    // A panic while the lock is held would be a bug of this file alone; the columns are then still usable for other
    // graphs.
    let mut guard = locks::lock(&TAPE);
    guard.get_or_insert_default();
    Locked(guard)
}

impl Locked {
    /// Waits until a program that was running has returned.
    pub fn wait(self) -> Locked {
        Locked(CHANGED.wait(self.0).unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes whoever waits in `wait`.
    pub fn notify(&self) {
        CHANGED.notify_all();
    }
}

impl std::ops::Deref for Locked {
    type Target = Tape;
    fn deref(&self) -> &Tape {
        self.0.as_ref().expect("invariant: `lock` fills the option")
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Tape {
        self.0.as_mut().expect("invariant: `lock` fills the option")
    }
}

impl Tape {
    /// Adds a node with one use, its handle's.
    pub fn push(
        &mut self,
        op: Op,
        inputs: Inputs,
        ty: TensorType,
        site: Site,
        grad: bool,
        buffer: Option<Arc<Buffer>>,
    ) -> NodeId {
        for &i in &inputs {
            self.uses[i.index()] += 1;
        }
        let pending = !inputs.is_empty();
        self.born += 1;
        let leaves = inputs.iter().fold(0, |all, i| all | self.ancestry[i.index()].leaves);
        let ancestry = match buffer {
            Some(_) => Ancestry::of_leaf(self.born),
            None => Ancestry { born: self.born, leaves },
        };
        let flags = Flags { handle: true, grad, ..Flags::default() };
        let id = match self.free.pop() {
            Some(id) => {
                let i = id.index();
                self.op[i] = op;
                self.inputs[i] = inputs;
                self.ty[i] = ty;
                self.site[i] = site;
                self.buffer[i] = buffer;
                self.flags[i] = flags;
                self.ancestry[i] = ancestry;
                self.region[i] = None;
                self.owner[i] = None;
                self.uses[i] = 1;
                id
            }
            None => {
                let id = NodeId(self.op.len() as u32);
                self.op.push(op);
                self.inputs.push(inputs);
                self.ty.push(ty);
                self.site.push(site);
                self.buffer.push(buffer);
                self.flags.push(flags);
                self.ancestry.push(ancestry);
                self.region.push(None);
                self.owner.push(None);
                self.uses.push(1);
                self.older.push(NodeId::NONE);
                self.newer.push(NodeId::NONE);
                self.mark.push((0, 0));
                id
            }
        };
        if pending {
            self.link(id);
        }
        id
    }

    fn link(&mut self, id: NodeId) {
        self.older[id.index()] = self.newest.unwrap_or(NodeId::NONE);
        self.newer[id.index()] = NodeId::NONE;
        match self.newest {
            Some(n) => self.newer[n.index()] = id,
            None => self.oldest = Some(id),
        }
        self.newest = Some(id);
        self.pending += 1;
    }

    fn unlink(&mut self, id: NodeId) {
        self.pending -= 1;
        let (older, newer) = (self.older[id.index()], self.newer[id.index()]);
        match older {
            NodeId::NONE => self.oldest = (newer != NodeId::NONE).then_some(newer),
            o => self.newer[o.index()] = newer,
        }
        match newer {
            NodeId::NONE => self.newest = (older != NodeId::NONE).then_some(older),
            n => self.older[n.index()] = older,
        }
    }

    /// How many nodes have inputs, that is, wait to be computed or keep a graph for `backward`.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// How many nodes are alive.
    pub fn alive(&self) -> usize {
        self.op.len() - self.free.len()
    }

    /// The nodes that have inputs, in order of recording.
    pub fn recorded(&self) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self.oldest, |id| match self.newer[id.index()] {
            NodeId::NONE => None,
            n => Some(n),
        })
    }

    /// Begins a walk: every mark is forgotten.
    pub fn begin_walk(&mut self) {
        self.epoch = match self.epoch.checked_add(1) {
            Some(e) => e,
            None => {
                self.mark.fill((0, 0));
                1
            }
        };
    }

    pub fn marked(&self, id: NodeId) -> Option<u32> {
        let (epoch, number) = self.mark[id.index()];
        (epoch == self.epoch).then_some(number)
    }

    pub fn set_mark(&mut self, id: NodeId, number: u32) {
        self.mark[id.index()] = (self.epoch, number);
    }

    /// The handle of `id` is gone.
    pub fn drop_handle(&mut self, id: NodeId) {
        self.flags[id.index()].handle = false;
        self.release(id);
    }

    /// Forgets what `id` was computed from; it stays as a leaf.
    pub fn drop_inputs(&mut self, id: NodeId) {
        let inputs = std::mem::take(&mut self.inputs[id.index()]);
        if inputs.is_empty() {
            return;
        }
        self.unlink(id);
        self.op[id.index()] = Op::Leaf;
        self.region[id.index()] = None;
        let flags = &mut self.flags[id.index()];
        flags.released |= flags.grad;
        flags.lost |= !flags.grad && !flags.cut;
        for input in inputs {
            self.release(input);
        }
    }

    /// Keeps `id` alive until `unpin`.
    pub fn pin(&mut self, id: NodeId) {
        self.uses[id.index()] += 1;
    }

    pub fn unpin(&mut self, id: NodeId) {
        self.release(id);
    }

    /// One use less; frees what nobody uses any more. Iterative: a chain of a million nodes must not overflow the
    /// stack.
    fn release(&mut self, id: NodeId) {
        let mut work: SmallVec<[NodeId; 16]> = SmallVec::from_slice(&[id]);
        while let Some(id) = work.pop() {
            let i = id.index();
            self.uses[i] -= 1;
            if self.uses[i] > 0 {
                continue;
            }
            let inputs = std::mem::take(&mut self.inputs[i]);
            if !inputs.is_empty() {
                self.unlink(id);
            }
            self.op[i] = Op::Leaf;
            self.buffer[i] = None;
            self.owner[i] = None;
            self.region[i] = None;
            self.flags[i] = Flags::default();
            self.free.push(id);
            work.extend(inputs);
        }
    }
}
