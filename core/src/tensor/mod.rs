//! Tensors: the user's handles to nodes of the tape. Owns creation and reading; operations are methods written in
//! `ops`.

mod create;
pub mod display;
mod dot;
pub(crate) mod element;
mod read;
pub(crate) mod shape;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock, Weak};

use tapeflow_ir::DType;

use crate::autodiff::grad_enabled;
use crate::buffer::Buffer;
use crate::error::{Error, Problem};
use crate::ops::scan::is_recording;
use crate::ops::{Flow, Op};
use crate::tape::region::Region;
use crate::tape::site::Site;
use crate::tape::{self, Inputs, NodeId, TensorType};
use shape::Shape;

/// An n-dimensional array: a value that is computed when it is needed.
///
/// A cheap handle (`Clone + Send + Sync`): operations record on a tape and return at once. What is wrong with a call is
/// said by the first `?` after it (`item`, `to_vec`, `backward`, `step`, `realize`), with the place it was made at.
#[derive(Clone)]
pub struct Tensor(Arc<Handle>);

struct Handle {
    node: NodeId,
    ty: TensorType,
    /// A cotangent may have to reach it.
    grad: bool,
    /// The first mistake this value depends on, and when it was made.
    mistake: Option<Arc<Mistake>>,
    /// Made for the runtime's own use beside the user's.
    second: bool,
    /// The contents, once they were seen, so that they are found again without a lock. It keeps no memory, and is no
    /// use of the buffer. A node keeps its buffer as long as it has a handle; only a slot's version may get another,
    /// while the slot's handle is its only one: see `Tensor::sole`.
    known: OnceLock<Weak<Buffer>>,
}

impl Handle {
    fn new(node: NodeId, ty: TensorType, grad: bool) -> Handle {
        Handle { node, ty, grad, mistake: None, second: false, known: OnceLock::new() }
    }
}

struct Mistake {
    order: u64,
    error: Error,
    told: std::sync::atomic::AtomicBool,
}

impl Drop for Mistake {
    fn drop(&mut self) {
        if !*self.told.get_mut() {
            tracing::warn!("a mistake was never looked at: {}", self.error);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut tape = tape::lock();
        if self.second {
            tape.unpin(self.node);
        } else {
            tape.drop_handle(self.node);
        }
    }
}

impl AsRef<Tensor> for Tensor {
    fn as_ref(&self) -> &Tensor {
        self
    }
}

impl TensorType {
    /// What a value is taken for when nothing is known of it.
    pub(crate) fn scalar_f32() -> TensorType {
        TensorType { dtype: DType::F32, shape: Shape::default(), device: crate::device::Device::current() }
    }
}

impl Tensor {
    /// Records an operation made at the caller's place.
    #[track_caller]
    pub(crate) fn record(op: impl Into<Op>, inputs: &[&Tensor], ty: TensorType) -> Tensor {
        Tensor::record_at(op, inputs, ty, Site::here())
    }

    /// Records an operation whose shapes were checked.
    pub(crate) fn record_at(op: impl Into<Op>, inputs: &[&Tensor], ty: TensorType, site: Site) -> Tensor {
        let op = op.into();
        if let Some(first) = inputs.iter().filter_map(|t| t.0.mistake.as_ref()).min_by_key(|m| m.order) {
            return Tensor::mistaken(first.clone(), ty, site);
        }
        if let Some(other) = inputs.iter().find(|t| t.ty().device != ty.device)
            && !matches!(op, Op::ToDevice(_))
        {
            let problem = Problem::Devices { left: ty.device.to_string(), right: other.ty().device.to_string() };
            return Tensor::mistake(Error::new(op.name(), problem, site), ty);
        }
        if !ty.shape.is_addressable(ty.dtype.size()) {
            let problem = Problem::Argument(
                format!("the result {} would have more bytes than there are addresses", ty.shape).into(),
            );
            return Tensor::mistake(Error::new(op.name(), problem, site), ty);
        }
        let grad = inputs.iter().any(|t| t.0.grad) && grad_enabled() && !stops(&op, inputs);
        let ids: Inputs = inputs.iter().map(|t| t.0.node).collect();
        let mut tape = tape::lock();
        let node = tape.push(op, ids, ty.clone(), site, grad, None);
        tape.flags[node.index()].cut = !grad_enabled();
        tape.region[node.index()] = Region::current();
        drop(tape);
        let made = Tensor(Arc::new(Handle::new(node, ty, grad)));
        match eager() {
            true => made.realize().map_or_else(|error| Tensor::mistake(error, made.ty().clone()), |()| made.clone()),
            false => made,
        }
    }

    /// Records an operation on nodes that need no checks.
    pub(crate) fn from_nodes(
        tape: &mut tape::Locked,
        op: impl Into<Op>,
        inputs: Inputs,
        ty: TensorType,
        site: Site,
        grad: bool,
    ) -> Tensor {
        let grad = grad && grad_enabled();
        let node = tape.push(op.into(), inputs, ty.clone(), site, grad, None);
        tape.flags[node.index()].cut = !grad_enabled();
        tape.region[node.index()] = Region::current();
        Tensor(Arc::new(Handle::new(node, ty, grad)))
    }

    /// New handles of nodes that have some already.
    pub(crate) fn rehandle(tape: &mut tape::Locked, nodes: &[NodeId]) -> Vec<Tensor> {
        let mut make = |&node: &NodeId| {
            tape.pin(node);
            let (ty, grad) = (tape.ty[node.index()].clone(), tape.flags[node.index()].grad);
            let mut handle = Handle::new(node, ty, grad);
            handle.second = true;
            Tensor(Arc::new(handle))
        };
        nodes.iter().map(&mut make).collect()
    }

    /// A leaf with its contents.
    pub(crate) fn leaf(buffer: Arc<Buffer>, ty: TensorType, grad: bool, site: Site) -> Tensor {
        let known = OnceLock::from(Arc::downgrade(&buffer));
        let node = tape::lock().push(Op::Leaf, Inputs::new(), ty.clone(), site, grad, Some(buffer));
        let mut handle = Handle::new(node, ty, grad);
        handle.known = known;
        Tensor(Arc::new(handle))
    }

    /// A value that is wrong, of the type it was probably meant to have.
    pub(crate) fn mistake(error: Error, ty: TensorType) -> Tensor {
        let order = next_mistake();
        let site = error.site();
        let mistake = Arc::new(Mistake { order, error, told: false.into() });
        if eager() {
            eprintln!("{}", mistake.error);
        }
        Tensor::mistaken(mistake, ty, site)
    }

    /// A mistake in an operation of one's own, which comes out at the first `?` after it: what `op` was given does not
    /// fit, and what would be right.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::{DType, Tensor};
    /// let x = Tensor::zeros([3], DType::F32);
    /// let error = Tensor::refuse("pairwise", &[&x], "an even number of rows is needed").to_vec::<f32>().unwrap_err();
    /// assert!(error.to_string().contains("an even number"));
    /// ```
    #[track_caller]
    pub fn refuse(op: &'static str, inputs: &[&Tensor], rule: impl Into<Cow<'static, str>>) -> Tensor {
        let shapes = inputs.iter().map(|t| t.shape().clone()).collect();
        let problem = Problem::Shapes { shapes, rule: rule.into() };
        let ty = inputs.first().map_or_else(TensorType::scalar_f32, |t| t.ty().clone());
        Tensor::mistake_in(inputs, Error::new(op, problem, Site::here()), ty)
    }

    /// As `mistake`, in an operation on `inputs`: what is wrong may follow from a mistake in one of them, which was
    /// first.
    pub(crate) fn mistake_in(inputs: &[&Tensor], error: Error, ty: TensorType) -> Tensor {
        match inputs.iter().filter_map(|t| t.0.mistake.as_ref()).min_by_key(|m| m.order) {
            Some(first) => Tensor::mistaken(first.clone(), ty, error.site()),
            None => Tensor::mistake(error, ty),
        }
    }

    fn mistaken(mistake: Arc<Mistake>, mut ty: TensorType, site: Site) -> Tensor {
        // Never zero-sized and never huge: what is computed from the shape must not fail in its own way.
        if ty.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_none_or(|n| n == 0 || n > 1 << 40) {
            ty.shape = Shape(ty.shape.iter().map(|_| 1).collect());
        }
        let node = tape::lock().push(Op::Leaf, Inputs::new(), ty.clone(), site, false, None);
        let mut handle = Handle::new(node, ty, false);
        handle.mistake = Some(mistake);
        Tensor(Arc::new(handle))
    }

    /// The first mistake this value depends on.
    pub(crate) fn check(&self) -> Result<(), Error> {
        crate::autodiff::take_report(self.0.mistake.as_ref().map(|m| m.order))?;
        match &self.0.mistake {
            Some(mistake) => {
                mistake.told.store(true, std::sync::atomic::Ordering::Relaxed);
                Err(mistake.error.clone())
            }
            None => Ok(()),
        }
    }

    /// Whether it depends on a mistake.
    pub(crate) fn is_mistake(&self) -> bool {
        self.0.mistake.is_some()
    }

    pub(crate) fn node(&self) -> NodeId {
        self.0.node
    }

    pub(crate) fn ty(&self) -> &TensorType {
        &self.0.ty
    }

    /// Whether the node can be computed: one that stands for all gradients of a root, or all results of a scan, cannot.
    pub(crate) fn has_value(&self) -> bool {
        tape::lock().op[self.node().index()].has_value()
    }

    /// Whether this is the only handle of its node.
    pub(crate) fn is_sole_handle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// The node, if this is its only handle: it may get another buffer.
    pub(crate) fn sole(&mut self) -> Option<NodeId> {
        let handle = Arc::get_mut(&mut self.0)?;
        handle.known = OnceLock::new();
        Some(handle.node)
    }

    /// Whether `backward` would reach through this value.
    pub fn requires_grad(&self) -> bool {
        self.0.grad
    }

    /// The extents, outermost first.
    pub fn shape(&self) -> &Shape {
        &self.0.ty.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.0.ty.dtype
    }

    /// Where it lives.
    pub fn device(&self) -> crate::device::Device {
        self.0.ty.device
    }

    /// How many axes.
    pub fn ndim(&self) -> usize {
        self.shape().len()
    }

    /// How many elements.
    pub fn numel(&self) -> usize {
        self.shape().numel()
    }

    /// The extents as an array: `let [b, t, c] = x.dims();`.
    ///
    /// # Errors
    /// With another number of axes it records a mistake, which this tensor's users meet at their next `?`, and returns
    /// ones.
    #[track_caller]
    pub fn dims<const N: usize>(&self) -> [usize; N] {
        match <[usize; N]>::try_from(&self.shape()[..]) {
            Ok(dims) => dims,
            // The rank of a mistaken value follows from its mistake, which comes out by itself.
            Err(_) if self.0.mistake.is_some() => [1; N],
            Err(_) => {
                let problem = Problem::Rank { shape: self.shape().clone(), wanted: N };
                crate::autodiff::report(Error::new("dims", problem, Site::here()));
                [1; N]
            }
        }
    }
}

/// Numbers mistakes in the order they are made.
pub(crate) fn next_mistake() -> u64 {
    static ORDER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    ORDER.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Whether no cotangent passes this operation to any input that wants one.
fn stops(op: &Op, inputs: &[&Tensor]) -> bool {
    let Some(primitive) = op.primitive() else { return false };
    let types: smallvec::SmallVec<[&TensorType; 4]> = inputs.iter().map(|t| t.ty()).collect();
    inputs.iter().enumerate().all(|(i, t)| !t.0.grad || primitive.flow(i, &types) == Flow::Stops)
}

/// Whether `TAPEFLOW_EAGER=1` asks for operations to be run and checked where they are called; in the body of a scan
/// there is nothing to run them on.
pub(crate) fn eager() -> bool {
    static EAGER: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var("TAPEFLOW_EAGER").is_ok_and(|v| v == "1"));
    *EAGER && !is_recording()
}
