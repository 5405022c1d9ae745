//! The compilation world: a copy of the part of the tape that is to be computed, where the passes' columns live.
//!
//! Owns the nodes of one compilation, merged where they are equal, and the context in which an operation writes its
//! vjp. It has no handles, no buffers and no lock.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;
use tapeflow_ir::{DType, Extent, ScalarFn};

use super::expr::retype;
use crate::error::Problem;
use crate::ops::Op;
use crate::ops::arithmetic::templates;
use crate::ops::cut::Cuts;
use crate::ops::kernel::{KernelOp, is_row, prune};
use crate::ops::movement::Movement;
use crate::ops::reduce::ReduceOp;
use crate::ops::source::Constant;
use crate::tape::TensorType;
use crate::tensor::shape::Shape;

/// An entity of a compilation world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub u32);

impl Id {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

pub(crate) type Ids = SmallVec<[Id; 4]>;

/// The columns of one compilation.
#[derive(Default)]
pub(crate) struct World {
    pub op: Vec<Op>,
    pub inputs: Vec<Ids>,
    pub ty: Vec<TensorType>,
    /// The canonical number of the tape's node this came from: its site is looked up by it when a run fails.
    pub origin: Vec<u32>,
    /// The recompute region it was recorded in; 0: none.
    pub region: Vec<u32>,
    /// The region that it is computed again for; 0: it is no copy.
    pub again: Vec<u32>,
    /// The program input that already holds the value.
    pub bound: Vec<Option<u32>>,
    equal: HashMap<(Op, Ids, TensorType), Id>,
    /// How many inputs are given.
    pub given: usize,
    /// How many arguments the host gives.
    pub scalars: usize,
    /// Origin of the nodes that are being added.
    pub current_origin: u32,
    /// Their region.
    pub current_region: u32,
    /// The region that they are computed again for.
    pub current_again: u32,
    /// The region that each region lies in: entry 0 is that of region 1.
    pub outer_regions: Vec<u32>,
}

impl World {
    pub fn len(&self) -> usize {
        self.op.len()
    }

    fn add(&mut self, op: Op, inputs: Ids, ty: TensorType, bound: Option<u32>) -> Id {
        let id = Id(self.op.len() as u32);
        self.op.push(op);
        self.inputs.push(inputs);
        self.ty.push(ty);
        self.origin.push(self.current_origin);
        self.region.push(self.current_region);
        self.again.push(self.current_again);
        self.bound.push(bound);
        id
    }

    /// A value that is bound when the program runs; `op` and `inputs` say how it came about, if that is still known. It
    /// is the same node as one that is computed alike: which values were read before must not change the order of
    /// cotangents.
    pub fn bind(&mut self, op: Op, inputs: Ids, ty: TensorType, input: u32) -> Id {
        if inputs.is_empty() {
            return self.add(op, inputs, ty, Some(input));
        }
        let id = self.push(op, &inputs, ty);
        self.bound[id.index()].get_or_insert(input);
        id
    }

    /// Adds a node, or finds the one that computes the same.
    pub fn push(&mut self, op: impl Into<Op>, inputs: &[Id], ty: TensorType) -> Id {
        let key = (op.into(), Ids::from_slice(inputs), ty);
        if let Some(&id) = self.equal.get(&key) {
            return id;
        }
        let (op, inputs, ty) = key.clone();
        let id = self.add(op, inputs, ty, None);
        self.equal.insert(key, id);
        id
    }

    /// A copy in which other nodes stand for some, and its roots. `other` is given the copy, a node's operation, inputs
    /// (of the copy), type and number, and adds what stands for it, if anything else does.
    pub fn rebuilt(
        &self,
        roots: &[Id],
        mut other: impl FnMut(&mut World, &Op, &[Id], &TensorType, usize) -> Option<Id>,
    ) -> (World, Vec<Id>) {
        let mut new = World { given: self.given, scalars: self.scalars, ..World::default() };
        new.outer_regions.clone_from(&self.outer_regions);
        let mut became: Vec<Id> = Vec::with_capacity(self.len());
        for (i, (op, ty)) in self.op.iter().zip(&self.ty).enumerate() {
            (new.current_origin, new.current_region) = (self.origin[i], self.region[i]);
            new.current_again = self.again[i];
            let inputs: Ids = self.inputs[i].iter().map(|x| became[x.index()]).collect();
            let made = other(&mut new, op, &inputs, ty, i);
            became.push(match (made, self.bound[i]) {
                (Some(made), _) => made,
                (None, Some(input)) => new.bind(op.clone(), inputs, ty.clone(), input),
                (None, None) => new.push(op.clone(), &inputs, ty.clone()),
            });
        }
        (new.current_region, new.current_again) = (0, 0);
        let roots = roots.iter().map(|root| became[root.index()]).collect();
        (new, roots)
    }

    /// Whether the columns fit together: the spec that every pass keeps. Checked after each in debug builds.
    pub fn verify(&self) -> Result<(), String> {
        let n = self.len();
        let (region, again) = (self.region.len(), self.again.len());
        if [self.inputs.len(), self.ty.len(), self.origin.len(), region, again, self.bound.len()] != [n; 6] {
            return Err("the columns have different lengths".into());
        }
        for (i, inputs) in self.inputs.iter().enumerate() {
            if let Some(input) = inputs.iter().find(|x| x.index() >= i) {
                return Err(format!("%{i} reads %{}, which was not there before it", input.0));
            }
            if self.op[i].primitive().is_none() && self.bound[i].is_none() {
                return Err(format!("%{i} is a leaf and nothing is bound to it"));
            }
        }
        Ok(())
    }

    /// The region that `region` lies in; 0: none.
    pub fn outer(&self, region: u32) -> u32 {
        (region as usize).checked_sub(1).map_or(0, |r| self.outer_regions[r])
    }

    /// Whether `id` was recorded in `region` or in one inside it.
    pub fn is_within(&self, id: Id, region: u32) -> bool {
        std::iter::successors(Some(self.region[id.index()]), |&r| (r != 0).then(|| self.outer(r))).any(|r| r == region)
    }

    pub fn shape(&self, id: Id) -> &Shape {
        &self.ty[id.index()].shape
    }

    pub fn dtype(&self, id: Id) -> DType {
        self.ty[id.index()].dtype
    }

    /// The type of `id` with another shape.
    pub fn with_shape(&self, id: Id, shape: Shape) -> TensorType {
        TensorType { shape, ..self.ty[id.index()].clone() }
    }

    pub fn constant(&mut self, value: f64, ty: TensorType) -> Id {
        self.push(Constant::new(value), &[], ty)
    }

    pub fn reshape(&mut self, id: Id, shape: Shape) -> Id {
        if *self.shape(id) == shape {
            return id;
        }
        let ty = self.with_shape(id, shape);
        self.push(Movement::Reshape, &[id], ty)
    }

    pub fn expand(&mut self, id: Id, shape: Shape) -> Id {
        if *self.shape(id) == shape {
            return id;
        }
        let ty = self.with_shape(id, shape);
        self.push(Movement::Expand, &[id], ty)
    }

    pub fn permute(&mut self, id: Id, axes: SmallVec<[usize; 6]>) -> Id {
        let shape = axes.iter().map(|&a| self.shape(id)[a]).collect::<SmallVec<_>>();
        let ty = self.with_shape(id, Shape(shape));
        self.push(Movement::Permute(axes), &[id], ty)
    }

    /// What lies at the cuts, computed alone if that is possible.
    pub fn slice(&mut self, id: Id, cuts: Cuts, ty: TensorType) -> Id {
        if self.bound[id.index()].is_none() {
            let op = self.op[id.index()].clone();
            if let Some(part) = op.primitive().and_then(|op| op.sliced(self, id, &cuts, &ty.shape)) {
                return part;
            }
        }
        self.push(Movement::Slice(cuts), &[id], ty)
    }

    /// Exchanges the last two axes.
    pub fn transpose(&mut self, id: Id) -> Id {
        let n = self.shape(id).len();
        let mut axes: SmallVec<[usize; 6]> = (0..n).collect();
        axes.swap(n - 1, n - 2);
        self.permute(id, axes)
    }

    /// Sums over `axes`, dropping them.
    pub fn sum(&mut self, id: Id, axes: SmallVec<[usize; 6]>) -> Id {
        let op = ReduceOp::new(tapeflow_ir::Reduce::Sum, axes);
        let shape = op.shape_of(self.shape(id));
        let ty = self.with_shape(id, shape);
        self.push(op, &[id], ty)
    }

    /// Sums a cotangent of a broadcast result back to the shape of the operand.
    pub fn sum_to(&mut self, id: Id, target: &Shape) -> Id {
        let from = self.shape(id).clone();
        if from == *target {
            return id;
        }
        let skip = from.len() - target.len();
        let axes: SmallVec<[usize; 6]> =
            (0..from.len()).filter(|&a| a < skip || (target[a - skip] == 1 && from[a] != 1)).collect();
        let summed = if axes.is_empty() { id } else { self.sum(id, axes) };
        self.reshape(summed, target.clone())
    }

    pub fn add_values(&mut self, a: Id, b: Id) -> Id {
        let ty = self.ty[a.index()].clone();
        self.push(KernelOp::template(templates::ADD, 0), &[a, b], ty)
    }

    /// Applies `function`'s only output to `inputs`; inputs it does not use are dropped, so that they need not be
    /// computed.
    pub fn apply(&mut self, function: &ScalarFn, inputs: &[Id], like: Id) -> Id {
        let (mut function, kept) = prune(function);
        let inputs: Ids = kept.iter().map(|&i| inputs[i]).collect();
        if !is_row(&function) {
            // Without reductions nothing is special about the last axis: operands that are one per row just broadcast.
            function = retype(&function, |_| Extent::Lane);
        }
        let op = KernelOp::instance(Arc::new(function));
        let (dtype, shape) = op.infer_world(self, &inputs);
        let ty = TensorType { dtype, shape, device: self.ty[like.index()].device };
        self.push(op, &inputs, ty)
    }

    /// The nodes `roots` depend on, each after its inputs. `through_bound` also walks what bound values came from.
    pub fn topological(&self, roots: &[Id], through_bound: bool) -> Vec<Id> {
        let mut order = Vec::new();
        let mut state = vec![0u8; self.len()];
        let mut stack: Vec<Id> = roots.iter().rev().copied().collect();
        while let Some(&id) = stack.last() {
            let i = id.index();
            match state[i] {
                0 => {
                    state[i] = 1;
                    if self.bound[i].is_none() || through_bound {
                        stack.extend(self.inputs[i].iter().rev().filter(|x| state[x.index()] == 0));
                    }
                }
                1 => {
                    state[i] = 2;
                    order.push(id);
                    stack.pop();
                }
                _ => {
                    stack.pop();
                }
            }
        }
        order
    }
}

/// What an operation is given to write the cotangents of its inputs.
pub(crate) struct Vjp<'w> {
    pub world: &'w mut World,
    pub node: Id,
    pub inputs: Ids,
    pub cotangent: Id,
    wanted: SmallVec<[bool; 4]>,
    pub(crate) contributions: SmallVec<[(usize, Id); 4]>,
    pub(crate) problem: Option<Problem>,
}

impl<'w> Vjp<'w> {
    pub fn new(world: &'w mut World, node: Id, cotangent: Id, wanted: SmallVec<[bool; 4]>) -> Vjp<'w> {
        let inputs = world.inputs[node.index()].clone();
        Vjp { world, node, inputs, cotangent, wanted, contributions: SmallVec::new(), problem: None }
    }

    /// Whether anybody needs the cotangent of input `i`.
    pub fn wants(&self, i: usize) -> bool {
        self.wanted[i]
    }

    pub fn input_shape(&self, i: usize) -> Shape {
        self.world.shape(self.inputs[i]).clone()
    }

    /// Gives input `i` the cotangent `value`.
    pub fn contribute(&mut self, i: usize, value: Id) {
        debug_assert_eq!(
            self.world.shape(value),
            self.world.shape(self.inputs[i]),
            "a cotangent has its primal's shape"
        );
        self.contributions.push((i, value));
    }

    /// Input `i` has the derivative zero.
    pub fn contribute_zero(&mut self, i: usize) {
        let ty = self.world.ty[self.inputs[i].index()].clone();
        let zero = self.world.constant(0.0, ty);
        self.contribute(i, zero);
    }
}
