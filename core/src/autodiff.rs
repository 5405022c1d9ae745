//! Reverse-mode differentiation as the user sees it: `backward`, `grad`, `Gradients`, `no_grad`.
//!
//! Owns the checks that must be made when a gradient is asked for. The gradient itself is one recorded node; it is
//! expanded when a program is compiled, so a steady step records only the forward pass.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Add;
use std::sync::Arc;

use smallvec::SmallVec;
use tapeflow_ir::DType;

use crate::error::{Error, Problem, Result};
use crate::ops::Flow;
use crate::ops::gradient::{Gradient, GradientOf};
use crate::parameter::{Owner, Parameter};
use crate::tape::site::Site;
use crate::tape::{self, Ancestry, Locked, NodeId, TensorType};
use crate::tensor::{Tensor, eager};

thread_local! {
    static GRAD: Cell<bool> = const { Cell::new(true) };
    static REPORTED: RefCell<Option<(u64, Error)>> = const { RefCell::new(None) };
}

pub(crate) fn grad_enabled() -> bool {
    GRAD.get()
}

/// Notes a mistake that no tensor carries; it comes out at this thread's next `?`.
pub(crate) fn report(error: Error) {
    REPORTED.with_borrow_mut(|r| {
        r.get_or_insert_with(|| (crate::tensor::next_mistake(), error));
    });
}

/// The noted mistake, if it was made before `other`: the first one made is the one that explains the rest.
pub(crate) fn take_report(other: Option<u64>) -> Result<()> {
    let first = REPORTED.with_borrow_mut(|r| r.take_if(|(order, _)| other.is_none_or(|other| *order < other)));
    first.map_or(Ok(()), |(_, error)| Err(error))
}

/// Records what `f` does without gradients: nothing in it is reached by `backward`, and its graph is dropped as soon as
/// it is computed.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            GRAD.set(self.0);
        }
    }
    let _restore = Restore(GRAD.replace(false));
    f()
}

/// The gradients of one `backward`: a value, by parameter and by path. There is no hidden state to forget to zero.
///
/// # Example
/// ```
/// # use tapeflow_core::{Parameter, Tensor};
/// let w = Parameter::new(Tensor::from_vec(vec![1.0f32, 2.0], [2]))?;
/// let gradients = w.tensor().square().sum().backward()?;
/// assert_eq!(gradients.get(&w).unwrap().to_vec::<f32>()?, [2.0, 4.0]);
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    owner: Arc<Owner>,
    value: Tensor,
}

impl Gradients {
    /// The gradient of a parameter; `None` if it was not reached.
    pub fn get(&self, parameter: &Parameter) -> Option<&Tensor> {
        self.entries.iter().find(|e| Arc::ptr_eq(&e.owner, parameter.owner())).map(|e| &e.value)
    }

    /// The gradient of a tensor that was made with [`Tensor::with_grad`].
    pub fn of(&self, tensor: &Tensor) -> Option<&Tensor> {
        let owner = tape::lock().owner[tensor.node().index()].clone()?;
        self.entries.iter().find(|e| Arc::ptr_eq(&e.owner, &owner)).map(|e| &e.value)
    }

    /// Takes out the gradient of a tensor that was made with [`Tensor::with_grad`].
    pub fn take(&mut self, tensor: &Tensor) -> Option<Tensor> {
        let owner = tape::lock().owner[tensor.node().index()].clone()?;
        let at = self.entries.iter().position(|e| Arc::ptr_eq(&e.owner, &owner))?;
        Some(self.entries.remove(at).value)
    }

    /// The gradient of the parameter at a module path such as `h.0.ln_1.weight`.
    pub fn by_path(&self, path: &str) -> Option<&Tensor> {
        self.entries.iter().find(|e| e.owner.path() == path).map(|e| &e.value)
    }

    /// Paths and gradients, in the order they were reached.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.entries.iter().map(|e| (e.owner.path(), &e.value))
    }

    /// How many parameters were reached.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none was reached.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The paths of those of `parameters` that were not reached.
    pub fn unreached<'p>(&self, parameters: impl IntoIterator<Item = &'p Parameter>) -> Vec<String> {
        parameters.into_iter().filter(|p| self.get(p).is_none()).map(Parameter::path).collect()
    }

    /// Every gradient times `factor`.
    #[must_use]
    #[track_caller]
    pub fn scale(self, factor: f64) -> Gradients {
        self.map(|g| g * factor)
    }

    #[track_caller]
    fn map(mut self, f: impl Fn(&Tensor) -> Tensor) -> Gradients {
        for entry in &mut self.entries {
            entry.value = f(&entry.value);
        }
        self
    }

    /// The Euclidean norm over all elements of all gradients; shape `()`.
    #[track_caller]
    pub fn norm(&self) -> Tensor {
        let squares: Vec<Tensor> = self
            .entries
            .iter()
            .map(|e| {
                // Squares would soon leave the range of f16.
                let wide = if e.value.dtype().is_half() { e.value.cast(DType::F32) } else { e.value.clone() };
                wide.square().sum().reshape([1])
            })
            .collect();
        if squares.is_empty() {
            return Tensor::scalar(0.0f32);
        }
        Tensor::cat(&squares, 0).sum().sqrt()
    }

    /// Scales all gradients so that their common norm is at most `max_norm`; returns the norm there was. PyTorch's
    /// `clip_grad_norm_`: the factor is `min(1, max_norm / (norm + 1e-6))`. Pascanu, Mikolov & Bengio 2013,
    /// arXiv:1211.5063.
    #[track_caller]
    pub fn clip_norm(self, max_norm: f64) -> (Gradients, Tensor) {
        let norm = self.norm();
        let factor = norm.number(max_norm) / (&norm + 1e-6);
        let factor = factor.minimum(&norm.number(1.0));
        (self.map(|g| g * &factor), norm)
    }
}

impl Add for Gradients {
    type Output = Gradients;

    /// The sum: a parameter reached by one of them only keeps that gradient. Accumulates over several batches.
    #[track_caller]
    fn add(mut self, other: Gradients) -> Gradients {
        for entry in other.entries {
            match self.entries.iter_mut().find(|e| Arc::ptr_eq(&e.owner, &entry.owner)) {
                Some(mine) => mine.value = &mine.value + &entry.value,
                None => self.entries.push(entry),
            }
        }
        self
    }
}

impl Tensor {
    /// The same values as a leaf that `backward` reaches.
    ///
    /// # Errors
    /// What [`Tensor::realize`] reports.
    #[track_caller]
    pub fn with_grad(&self) -> Result<Tensor> {
        let owner = Owner::new();
        self.as_leaf(true, Some(owner))
    }

    #[track_caller]
    pub(crate) fn as_leaf(&self, grad: bool, owner: Option<Arc<Owner>>) -> Result<Tensor> {
        let buffer = self.buffer()?;
        let leaf = Tensor::leaf(buffer, self.ty().clone(), grad, Site::here());
        tape::lock().owner[leaf.node().index()] = owner;
        Ok(leaf)
    }

    /// The gradients of this scalar with respect to every parameter it depends on. Checks and records; nothing runs
    /// yet.
    ///
    /// # Errors
    /// The first mistake made on the way to this value; not a single float; nothing to differentiate; a path through
    /// something without a derivative; a graph that was released by a step.
    #[track_caller]
    pub fn backward(&self) -> Result<Gradients> {
        self.backward_from(None)
    }

    /// As [`Tensor::backward`], for a tensor of any shape and a cotangent for it.
    ///
    /// # Errors
    /// As [`Tensor::backward`]; a cotangent of another shape.
    #[track_caller]
    pub fn backward_with(&self, cotangent: &Tensor) -> Result<Gradients> {
        self.backward_from(Some(cotangent))
    }

    #[track_caller]
    fn backward_from(&self, cotangent: Option<&Tensor>) -> Result<Gradients> {
        let site = Site::here();
        check_root(self, cotangent, site)?;
        let mut tape = lock_settled(self.node());
        let mut found: Vec<(NodeId, Arc<Owner>)> = Vec::new();
        walk(&mut tape, self.node(), |tape, node| {
            if let Some(owner) = &tape.owner[node.index()]
                && tape.flags[node.index()].grad
            {
                found.push((node, owner.clone()));
            }
        })?;
        if found.is_empty() {
            return Err(Error::new("backward", Problem::NothingToDifferentiate, site));
        }
        let nodes: Vec<NodeId> = found.iter().map(|f| f.0).collect();
        let values = record_gradient(tape, self, cotangent, &nodes, site)?;
        let entries = found.into_iter().zip(values).map(|((_, owner), value)| Entry { owner, value }).collect();
        Ok(Gradients { entries })
    }
}

/// The gradients of a scalar with respect to `inputs`, as tensors that can be differentiated again.
///
/// # Errors
/// As [`Tensor::backward`]; an input that `output` does not depend on.
///
/// # Example
/// ```
/// # use tapeflow_core::{Tensor, grad};
/// let x = Tensor::scalar(2.0f64);
/// let y = x.powf(3.0);
/// let dy = grad(&y, &[&x])?.remove(0);
/// let ddy = grad(&dy, &[&x])?.remove(0);
/// assert_eq!((dy.item::<f64>()?, ddy.item::<f64>()?), (12.0, 12.0));
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[track_caller]
pub fn grad(output: &Tensor, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    grad_with(output, None, inputs)
}

/// As [`grad`], for an output of any shape and a cotangent for it.
///
/// # Errors
/// As [`grad`]; a cotangent of another shape.
#[track_caller]
pub fn grad_with(output: &Tensor, cotangent: Option<&Tensor>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let site = Site::here();
    check_root(output, cotangent, site)?;
    for input in inputs {
        input.check()?;
    }
    if !grad_enabled() {
        // The gradient is recorded as cut off from its inputs, too; an input that is a leaf is the same node on both
        // sides.
        Tensor::realize_all(inputs)?;
    }
    let wanted: Vec<NodeId> = inputs.iter().map(|t| t.node()).collect();
    let mut reached = vec![false; wanted.len()];
    let mut tape = lock_settled(output.node());
    let mut path = Vec::new();
    walk_all(&mut tape, output.node(), &wanted, |node| {
        path.push(node);
        for (r, w) in reached.iter_mut().zip(&wanted) {
            *r |= *w == node;
        }
    })?;
    if let Some(index) = reached.iter().position(|r| !r) {
        let shape = inputs[index].shape().clone();
        return Err(Error::new("grad", Problem::Independent { index, shape }, site));
    }
    // What the cotangent passes keeps its graph even if it is read before the gradient is.
    for node in path {
        tape.flags[node.index()].grad |= !tape.inputs[node.index()].is_empty();
    }
    record_gradient(tape, output, cotangent, &wanted, site)
}

fn check_root(root: &Tensor, cotangent: Option<&Tensor>, site: Site) -> Result<()> {
    root.check()?;
    let refused = |problem| Err(Error::new("backward", problem, site));
    if !root.dtype().is_float() {
        return refused(Problem::DType { found: root.dtype(), wanted: "a float".into() });
    }
    match cotangent {
        Some(c) => {
            c.check()?;
            if c.shape() != root.shape() || c.dtype() != root.dtype() {
                let shapes = vec![root.shape().clone(), c.shape().clone()];
                let rule = "a cotangent has the shape and the dtype of its primal".into();
                return refused(Problem::Shapes { shapes, rule });
            }
            Ok(())
        }
        None if root.numel() != 1 => {
            let hint = "; reduce it (`mean`, `sum`), or give a cotangent";
            refused(Problem::NotAScalar { shape: root.shape().clone(), hint })
        }
        None => Ok(()),
    }
}

/// Records the gradient under the lock that its graph was checked under: between the two no update may end that graph.
fn record_gradient(
    mut tape: Locked,
    root: &Tensor,
    cotangent: Option<&Tensor>,
    wrt: &[NodeId],
    site: Site,
) -> Result<Vec<Tensor>> {
    let mut inputs: crate::tape::Inputs = SmallVec::from_slice(&[root.node()]);
    inputs.extend(cotangent.map(Tensor::node));
    inputs.extend_from_slice(wrt);
    let ty = TensorType { shape: crate::tensor::shape::Shape::default(), ..root.ty().clone() };
    // A gradient can be differentiated again wherever its root can.
    let grad = root.requires_grad();
    let gradient = Tensor::from_nodes(&mut tape, Gradient { seeded: cotangent.is_some() }, inputs, ty, site, grad);
    let of = |(index, node): (usize, &NodeId)| {
        let (inputs, ty) = (SmallVec::from_slice(&[gradient.node()]), tape.ty[node.index()].clone());
        Tensor::from_nodes(&mut tape, GradientOf { index }, inputs, ty, site, grad)
    };
    let values: Vec<Tensor> = wrt.iter().enumerate().map(of).collect();
    // Handles lock the tape when they go.
    drop(tape);
    if eager() {
        Tensor::realize_all(&values.iter().collect::<Vec<_>>())?;
    }
    Ok(values)
}

/// The tape, once no update is running that takes over memory the graph of `root` begins with: such an update ends the
/// graph.
fn lock_settled(root: NodeId) -> Locked {
    let mut tape = tape::lock();
    while tape.lent > 0 && reaches_lent(&mut tape, root) {
        tape = tape.wait();
    }
    tape
}

fn reaches_lent(tape: &mut Locked, root: NodeId) -> bool {
    tape.begin_walk();
    let mut stack = vec![root];
    while let Some(node) = stack.pop() {
        if tape.flags[node.index()].taken {
            return true;
        }
        if tape.marked(node).is_none() {
            tape.set_mark(node, 0);
            stack.extend_from_slice(&tape.inputs[node.index()]);
        }
    }
    false
}

/// Visits, from `root` on, every node that a cotangent reaches.
fn walk(tape: &mut Locked, root: NodeId, mut visit: impl FnMut(&Locked, NodeId)) -> Result<()> {
    tape.begin_walk();
    let mut stack = vec![root];
    while let Some(node) = stack.pop() {
        if tape.marked(node).is_some() || !tape.flags[node.index()].grad {
            continue;
        }
        tape.set_mark(node, 0);
        visit(tape, node);
        if tape.flags[node.index()].released {
            return Err(Error::new("backward", Problem::Released, tape.site[node.index()]));
        }
        push_inputs(tape, node, &mut stack, |tape, input| tape.flags[input.index()].grad)?;
    }
    Ok(())
}

/// As `walk`, through everything that `wanted` could be reached through, whether it requires gradients or not.
fn walk_all(tape: &mut Locked, root: NodeId, wanted: &[NodeId], mut visit: impl FnMut(NodeId)) -> Result<()> {
    let ancestors: SmallVec<[Ancestry; 4]> = wanted.iter().map(|w| tape.ancestry[w.index()]).collect();
    // A value without a graph that is younger than a wanted one and shares its leaves may have come from it.
    let released = |tape: &Locked, node: NodeId| {
        let (flags, own) = (tape.flags[node.index()], tape.ancestry[node.index()]);
        !wanted.contains(&node)
            && (flags.released || (flags.lost && ancestors.iter().any(|wanted| own.may_depend_on(wanted))))
    };
    // Only nodes that depend on a wanted one carry a cotangent that matters; of a released one it is not known any
    // more.
    tape.begin_walk();
    let mut depends: HashMap<NodeId, bool> = wanted.iter().map(|&w| (w, true)).collect();
    let mut stack = vec![(root, false)];
    while let Some((node, done)) = stack.pop() {
        if done {
            let inputs = &tape.inputs[node.index()];
            let types: SmallVec<[&TensorType; 4]> = inputs.iter().map(|i| &tape.ty[i.index()]).collect();
            let op = tape.op[node.index()].primitive();
            let stops = |k: usize| op.is_some_and(|op| op.flow(k, &types) == Flow::Stops);
            let any = inputs.iter().enumerate().any(|(k, i)| depends.get(i).is_some_and(|d| *d) && !stops(k));
            let flags = tape.flags[node.index()];
            *depends.entry(node).or_insert(false) |= (any || released(tape, node)) && !flags.cut;
        } else if tape.marked(node).is_none() {
            tape.set_mark(node, 0);
            stack.push((node, true));
            stack.extend(tape.inputs[node.index()].iter().map(|&i| (i, false)));
        }
    }
    tape.begin_walk();
    let mut stack = vec![root];
    while let Some(node) = stack.pop() {
        if tape.marked(node).is_some() {
            continue;
        }
        tape.set_mark(node, 0);
        visit(node);
        if released(tape, node) {
            return Err(Error::new("grad", Problem::Released, tape.site[node.index()]));
        }
        push_inputs(tape, node, &mut stack, |_, input| depends.get(&input).copied().unwrap_or(false))?;
    }
    Ok(())
}

fn push_inputs(
    tape: &Locked,
    node: NodeId,
    stack: &mut Vec<NodeId>,
    matters: impl Fn(&Locked, NodeId) -> bool,
) -> Result<()> {
    let inputs = &tape.inputs[node.index()];
    let Some(op) = tape.op[node.index()].primitive() else { return Ok(()) };
    let types: SmallVec<[&TensorType; 4]> = inputs.iter().map(|i| &tape.ty[i.index()]).collect();
    for (i, &input) in inputs.iter().enumerate().filter(|(_, x)| matters(tape, **x)) {
        match op.flow(i, &types) {
            Flow::Carries => stack.push(input),
            Flow::Stops => {}
            Flow::Severed => {
                let found = tape.ty[input.index()].dtype;
                let found = if found.is_float() { tape.ty[node.index()].dtype } else { found };
                let (name, site) = op.severed_at(i).unwrap_or_else(|| (op.name(), tape.site[node.index()]));
                return Err(Error::new(name, Problem::Severed { found }, site));
            }
        }
    }
    Ok(())
}
