//! A number that remembers how it was computed.
//! Owns the graph, `backward` and the freeing of long histories; knows no formulas (see `op`).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::op::Op;

/// A number in a graph of numbers, with its gradient. A clone is the same number.
///
/// ```
/// use tapeflow_core::scalar::Value;
///
/// let x = Value::new(3.0);
/// let y = 2.0 * &x * &x + &x;
/// y.backward();
/// assert_eq!(y.data(), 21.0);
/// assert_eq!(x.grad(), 13.0); // 4x + 1
/// ```
#[derive(Clone)]
pub struct Value(Rc<Node>);

pub(super) struct Node {
    /// Counts up, so a node's operands have lower ids than itself.
    pub(super) id: u64,
    data: Cell<f64>,
    grad: Cell<f64>,
    pub(super) op: Op,
    pub(super) operands: Vec<Edge>,
    pub(super) name: RefCell<Option<String>>,
}

/// An operand, and the derivative of the result by it.
pub(super) struct Edge {
    pub(super) operand: Value,
    slope: f64,
}

impl Value {
    /// A number that depends on nothing.
    pub fn new(data: f64) -> Value {
        Value::with(Op::Leaf, data, Vec::new())
    }

    /// The number.
    pub fn data(&self) -> f64 {
        self.0.data.get()
    }

    /// Changes the number. What was computed from it before stays as it is, derivatives included.
    pub fn set_data(&self, data: f64) {
        self.0.data.set(data);
    }

    /// The sum of the derivatives, by this number, of everything that `backward` was called on since `zero_grad`.
    pub fn grad(&self) -> f64 {
        self.0.grad.get()
    }

    /// Forgets the gradient of this number.
    pub fn zero_grad(&self) {
        self.0.grad.set(0.0);
    }

    /// Gives the number a name for [`to_dot`](Value::to_dot).
    #[must_use = "returns the value itself"]
    pub fn named(self, name: &str) -> Value {
        *self.0.name.borrow_mut() = Some(name.to_owned());
        self
    }

    /// Adds the derivative of this number by each number in its history to that number's gradient.
    ///
    /// # Formula
    /// `x̄ = Σ ȳ ∂y/∂x` over all `y` computed from `x`, from the last computed to the first. Linnainmaa 1970.
    pub fn backward(&self) {
        let mut cotangents = HashMap::from([(self.0.id, 1.0)]);
        for value in self.history().iter().rev() {
            let Some(cotangent) = cotangents.remove(&value.0.id) else { continue };
            value.0.grad.set(value.grad() + cotangent);
            for Edge { operand, slope } in &value.0.operands {
                *cotangents.entry(operand.0.id).or_insert(0.0) += cotangent * slope;
            }
        }
    }

    /// All numbers this one was computed from and itself, operands before results.
    pub(super) fn history(&self) -> Vec<Value> {
        let (mut found, mut seen, mut open) = (Vec::new(), HashSet::new(), vec![self.clone()]);
        while let Some(value) = open.pop() {
            if seen.insert(value.0.id) {
                open.extend(value.0.operands.iter().map(|edge| edge.operand.clone()));
                found.push(value);
            }
        }
        found.sort_unstable_by_key(|value| value.0.id);
        found
    }

    /// The result of an operation on one number.
    pub(super) fn unary(op: Op, x: &Value) -> Value {
        let (data, [slope, _]) = op.evaluate(x.data(), 0.0);
        Value::with(op, data, vec![Edge { operand: x.clone(), slope }])
    }

    /// The result of an operation on two numbers.
    pub(super) fn binary(op: Op, x: Value, y: Value) -> Value {
        let (data, slopes) = op.evaluate(x.data(), y.data());
        let edges = [x, y].into_iter().zip(slopes).map(|(operand, slope)| Edge { operand, slope });
        Value::with(op, data, edges.collect())
    }

    fn with(op: Op, data: f64, operands: Vec<Edge>) -> Value {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (data, grad) = (Cell::new(data), Cell::new(0.0));
        Value(Rc::new(Node { id, data, grad, op, operands, name: RefCell::default() }))
    }

    pub(super) fn node(&self) -> &Node {
        &self.0
    }
}

/// Frees a history without recursion, however long it is.
impl Drop for Node {
    fn drop(&mut self) {
        let mut open = std::mem::take(&mut self.operands);
        while let Some(edge) = open.pop() {
            if let Some(mut node) = Rc::into_inner(edge.operand.0) {
                open.append(&mut node.operands);
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value(data={}, grad={})", self.data(), self.grad())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.data().fmt(f)
    }
}
