//! The fuse pass: decides what is stored and what is computed where it is read; each stored value becomes a step.
//!
//! Owns that decision and the drafts of steps. Every operation has fixed arithmetic, so any decision gives the same
//! bits.

use tapeflow_ir::{Extent, Op as ScalarOp, Reduce, ScalarFn, Unary};

pub(crate) use super::expr::{Expr, ExprSource, identity_fn, lane};
use super::world::{Id, World};
use crate::error::Problem;
use crate::ops::kernel::is_row;
use crate::program::kernel::{Dims, Kernel, Layout, OutputKind};
use crate::tape::TensorType;
use crate::tensor::shape::Shape;

/// Sources a fused function may read before its operands are stored instead.
const MAX_SOURCES: usize = 12;
/// Values of a fused function before its operands are stored instead.
const MAX_VALUES: usize = 160;
/// Work, in additions per element, that is cheaper to repeat than to store and read again.
const CHEAP: u32 = 6;
/// Neighbours that share a value, from which on it costs next to nothing per element: those of a vector.
const SAME: usize = 16;

/// A fused loop nest whose operands are still nodes.
#[derive(Clone, Debug)]
pub(crate) struct GroupDraft {
    /// One output of `expr.function` per entry.
    pub expr: Expr,
    pub outputs: Vec<(Id, OutputKind)>,
}

impl GroupDraft {
    pub fn reads(&self) -> impl Iterator<Item = Id> {
        self.expr.sources.iter().filter_map(|s| match s {
            ExprSource::Node { id, .. } => Some(*id),
            _ => None,
        })
    }

    /// The value that it moves whole and as it is to another place, if that is all it does: where both places are one,
    /// it does nothing.
    pub fn copied(&self) -> Option<Id> {
        let [(_, OutputKind::Store(to))] = &self.outputs[..] else { return None };
        let (from, layout) = self.expr.plain()?;
        (layout.is_contiguous(&self.expr.space) && to.is_contiguous(&self.expr.space)).then_some(from)
    }
}

/// A step whose operands are still nodes.
// Drafts are few and soon become steps: the largest may be large.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub(crate) enum Draft {
    Group(GroupDraft),
    /// Groups of one function that run as one step.
    Groups(Vec<GroupDraft>),
    /// From one device to another.
    Copy {
        from: Id,
        to: Id,
    },
    /// Reads `reads`, in the order of the kernel's operands, then writes `write`, if it writes at all. The groups of
    /// its prologue make some of the operands, by their numbers, which are written nowhere; those of its epilogue go on
    /// with the result.
    Kernel {
        kernel: Kernel,
        reads: Vec<Id>,
        write: Option<Id>,
        prologue: Vec<(usize, GroupDraft)>,
        epilogue: Vec<GroupDraft>,
    },
}

/// A draft with what it came from.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub draft: Draft,
    pub node: Id,
}

impl Step {
    /// The groups that make operands of its kernel, and the numbers of these.
    pub fn prologue(&self) -> &[(usize, GroupDraft)] {
        match &self.draft {
            Draft::Kernel { prologue, .. } => prologue,
            _ => &[],
        }
    }

    /// The fused loop nests that store something, if it is or has such.
    pub fn groups(&self) -> &[GroupDraft] {
        match &self.draft {
            Draft::Group(group) => std::slice::from_ref(group),
            Draft::Groups(groups) => groups,
            Draft::Kernel { epilogue, .. } => epilogue,
            Draft::Copy { .. } => &[],
        }
    }

    /// What a kernel and its prologue read, anywhere and at any time.
    pub fn kernel_reads(&self) -> impl Iterator<Item = Id> {
        let reads = if let Draft::Kernel { reads, .. } = &self.draft { &reads[..] } else { &[] };
        let is_given = |at: usize| self.prologue().iter().all(|(made, _)| *made != at);
        let given = reads.iter().enumerate().filter(move |(at, _)| is_given(*at)).map(|(_, id)| *id);
        given.chain(self.prologue().iter().flat_map(|(_, group)| group.reads()))
    }

    pub fn reads(&self) -> Vec<Id> {
        if let Draft::Copy { from, .. } = &self.draft {
            return vec![*from];
        }
        let made = if let Draft::Kernel { .. } = &self.draft { self.writes() } else { Vec::new() };
        let by_groups = self.groups().iter().flat_map(GroupDraft::reads).filter(|id| !made.contains(id));
        self.kernel_reads().chain(by_groups).collect()
    }

    pub fn writes(&self) -> Vec<Id> {
        match &self.draft {
            Draft::Copy { to, .. } => vec![*to],
            draft => {
                let write = if let Draft::Kernel { write, .. } = draft { *write } else { None };
                let stored = self.groups().iter().flat_map(|g| g.outputs.iter().map(|(id, _)| *id));
                write.into_iter().chain(stored).collect()
            }
        }
    }
}

enum Value {
    Unknown,
    Deferred(Expr),
    Stored,
}

/// The state of the pass, and what an operation is given to lower itself.
pub(crate) struct Lower<'w> {
    world: &'w World,
    fuse: bool,
    node: Id,
    values: Vec<Value>,
    uses: Vec<u32>,
    /// Read by a step that needs it in memory, perhaps through views.
    wanted_in_memory: Vec<bool>,
    is_root: Vec<bool>,
    steps: Vec<Step>,
}

/// Lowers everything `roots` need; the roots themselves are stored.
pub(crate) fn fuse(world: &World, roots: &[Id], fuse: bool) -> Result<Vec<Step>, (Id, Problem)> {
    // In the order of the nodes, which is that of recording and then of reverse accumulation: what backward needs of a
    // layer is used up before the next layer's comes.
    let mut order = world.topological(roots, false);
    order.sort_unstable();
    let n = world.len();
    let mut lower = Lower {
        world,
        fuse,
        node: Id(0),
        values: (0..n).map(|_| Value::Unknown).collect(),
        uses: vec![0; n],
        wanted_in_memory: vec![false; n],
        is_root: vec![false; n],
        steps: Vec::new(),
    };
    for &root in roots {
        lower.is_root[root.index()] = true;
    }
    for &id in order.iter().rev().filter(|id| world.bound[id.index()].is_none()) {
        let i = id.index();
        let Some(op) = world.op[i].primitive() else { continue };
        let through = op.is_view() && lower.wanted_in_memory[i];
        for input in &world.inputs[i] {
            lower.uses[input.index()] += 1;
            lower.wanted_in_memory[input.index()] |= op.reads_memory() || through;
        }
    }
    for &id in &order {
        lower.node = id;
        if world.bound[id.index()].is_some() {
            lower.values[id.index()] = Value::Stored;
            continue;
        }
        if let Some(op) = world.op[id.index()].primitive() {
            op.lower(&mut lower).map_err(|problem| (id, problem))?;
        }
    }
    for &root in roots {
        lower.store(root);
    }
    let mut steps = lower.steps;
    if fuse {
        steps = super::batch::batch(world, super::merge::merge(world, steps, &lower.is_root));
        super::epilogue::epilogues(world, &mut steps);
        super::prologue::prologues(world, &mut steps, &lower.is_root);
        super::urgent::urgent_first(&mut steps);
    }
    Ok(steps)
}

/// Whether the steps can run in order: functions verify, every value is written before it is read, every output has its
/// result.
pub(crate) fn verify(world: &World, steps: &[Step]) -> Result<(), String> {
    let mut written: Vec<bool> = world.bound.iter().map(Option::is_some).collect();
    for (i, step) in steps.iter().enumerate() {
        if let Some(id) = step.reads().into_iter().find(|id| !written[id.index()]) {
            return Err(format!("step {i} reads %{} before it is written", id.0));
        }
        for group in step.prologue().iter().map(|(_, group)| group).chain(step.groups()) {
            group.expr.function.verify().map_err(|e| format!("step {i}: {e}"))?;
            if group.expr.function.outputs.len() != group.outputs.len() {
                return Err(format!("step {i}: a function of other results than the group has outputs"));
            }
        }
        for id in step.writes() {
            written[id.index()] = true;
        }
    }
    Ok(())
}

/// How much an expression reads and computes per element: loads, and work in additions. What is the same for at least
/// [`SAME`] neighbouring elements is read and computed once for all of them, and counts nothing.
fn price(expr: &Expr) -> (usize, u32) {
    let varies = |layout: &Layout| {
        let axes = expr.space.iter().zip(&layout.strides).rev();
        let same = axes.take_while(|(extent, stride)| **stride == 0 || **extent == 1);
        same.map(|(extent, _)| extent).product::<usize>() < SAME
    };
    let source = |source: &ExprSource| match source {
        ExprSource::Node { layout, .. } | ExprSource::Iota(layout) | ExprSource::Random { layout, .. } => {
            varies(layout)
        }
        ExprSource::Scalar { .. } => false,
    };
    let loads = expr.sources.iter().filter(|s| matches!(s, ExprSource::Node { .. }) && source(s)).count();
    let mut per_element = vec![false; expr.function.values.len()];
    let mut work = 0;
    for (v, (op, _)) in expr.function.values.iter().enumerate() {
        per_element[v] = match op {
            ScalarOp::Input(i) => source(&expr.sources[*i as usize]),
            _ => op.operands().any(|operand| per_element[operand.0 as usize]),
        };
        work += if per_element[v] { cost(op) } else { 0 };
    }
    (loads, work)
}

/// What an operation costs, in additions.
fn cost(op: &ScalarOp) -> u32 {
    match op {
        ScalarOp::Input(_) | ScalarOp::Const(_) | ScalarOp::Detach(_) | ScalarOp::Length => 0,
        ScalarOp::Unary(Unary::Neg | Unary::Abs | Unary::Not | Unary::Sign, _) => 1,
        ScalarOp::Unary(Unary::Sqrt, _) | ScalarOp::Binary(tapeflow_ir::Binary::Div, ..) => 3,
        ScalarOp::Unary(..) => 12,
        ScalarOp::Binary(tapeflow_ir::Binary::Pow | tapeflow_ir::Binary::Atan2, ..) => 24,
        _ => 1,
    }
}

impl Lower<'_> {
    pub fn ty(&self) -> &TensorType {
        &self.world.ty[self.node.index()]
    }

    pub fn arity(&self) -> usize {
        self.world.inputs[self.node.index()].len()
    }

    pub fn input(&self, i: usize) -> Id {
        self.world.inputs[self.node.index()][i]
    }

    pub fn input_ty(&self, i: usize) -> &TensorType {
        &self.world.ty[self.input(i).index()]
    }

    /// Input `i` as an expression.
    pub fn expr(&mut self, i: usize) -> Result<Expr, Problem> {
        Ok(self.expr_of(self.input(i)))
    }

    fn expr_of(&self, id: Id) -> Expr {
        match &self.values[id.index()] {
            Value::Deferred(expr) => expr.clone(),
            _ => {
                let ty = &self.world.ty[id.index()];
                Expr::load(id, ty.dtype, Dims::from_slice(&ty.shape))
            }
        }
    }

    /// Input `i` as an expression that views may move: one with row reductions is stored first.
    pub fn movable(&mut self, i: usize) -> Expr {
        let id = self.input(i);
        if self.expr_of(id).is_row() {
            self.store(id);
        }
        self.expr_of(id)
    }

    /// Input `i`, contiguous in memory.
    pub fn stored(&mut self, i: usize) -> Id {
        let id = self.input(i);
        let expr = self.expr_of(id);
        match expr.plain() {
            Some((source, layout)) if layout.is_contiguous(&expr.space) => source,
            _ => {
                self.store(id);
                id
            }
        }
    }

    /// Input `i`, laid out in order under its own name even if it is a view.
    pub fn pack(&mut self, i: usize) -> Id {
        let id = self.input(i);
        self.store(id);
        id
    }

    /// Input `i` in memory, perhaps strided.
    pub fn strided(&mut self, i: usize) -> (Id, Layout) {
        let id = self.input(i);
        if let Some((source, layout)) = self.expr_of(id).plain() {
            return (source, layout.clone());
        }
        self.store(id);
        (id, Layout::contiguous(&self.world.ty[id.index()].shape))
    }

    /// Emits the step that computes `id`, if there is none yet.
    fn store(&mut self, id: Id) {
        if matches!(self.values[id.index()], Value::Stored) {
            return;
        }
        let expr = self.expr_of(id);
        self.values[id.index()] = Value::Stored;
        self.emit_store(id, expr);
    }

    fn emit_store(&mut self, id: Id, expr: Expr) {
        if expr.output().extent == Extent::Row && expr.is_row() {
            let mut dims = expr.space.clone();
            if let Some(last) = dims.last_mut() {
                *last = 1;
            }
            let layout = Layout::contiguous(&dims).expand(&dims, &expr.space);
            return self.emit_group(expr, vec![(id, OutputKind::Store(layout))]);
        }
        let (layout, expr) = (Layout::contiguous(&expr.space), expr.per_element());
        self.emit_group(expr, vec![(id, OutputKind::Store(layout))]);
    }

    fn emit_group(&mut self, expr: Expr, outputs: Vec<(Id, OutputKind)>) {
        self.steps.push(Step { draft: Draft::Group(GroupDraft { expr, outputs }), node: self.node });
    }

    /// This node is `expr`: stored now, or computed where it is read.
    pub fn defer(&mut self, mut expr: Expr) {
        let i = self.node.index();
        // A view moves what others compute, and a value that is only given is no work.
        if !self.is_view() && expr.function.values.len() > 1 {
            expr.add_part(self.node);
        }
        let plain = expr.plain().is_some();
        let per_row = expr.is_row() && expr.output().extent == Extent::Row;
        let uses = self.uses[i];
        let keep = if plain || self.is_view() || expr.sources.is_empty() {
            true
        } else if !self.fuse || per_row || self.wanted_in_memory[i] {
            false
        } else if uses <= 1 {
            true
        } else {
            let (loads, work) = price(&expr);
            !expr.is_row() && loads <= 2 && work <= CHEAP
        };
        let computed_root = self.is_root[i] && !plain;
        if keep && !computed_root && !self.too_big(&expr) {
            self.values[i] = Value::Deferred(expr);
        } else {
            self.values[i] = Value::Stored;
            self.emit_store(self.node, expr);
        }
        if self.is_root[i] && matches!(self.values[i], Value::Deferred(_)) {
            self.store(self.node);
        }
    }

    fn is_view(&self) -> bool {
        self.world.op[self.node.index()].primitive().is_some_and(|p| p.is_view())
    }

    fn too_big(&self, expr: &Expr) -> bool {
        expr.sources.len() > MAX_SOURCES || expr.function.values.len() > MAX_VALUES
    }

    /// This node is `function` of its inputs.
    pub fn apply(&mut self, function: &ScalarFn) -> Result<(), Problem> {
        let row = is_row(function);
        let mut space = Dims::from_slice(&self.ty().shape);
        if row {
            // The row's length is that of the operands, not of a result that is one per row.
            let mut wide = Shape(space.clone());
            for i in (0..self.arity()).filter(|&i| function.inputs[i].extent == Extent::Lane) {
                wide = wide.broadcast(&self.input_ty(i).shape).unwrap_or(wide);
            }
            space = wide.0;
        }
        let arity = self.arity();
        for i in 0..arity {
            let expr = self.expr_of(self.input(i));
            let misfit = expr.is_row() && (expr.space != space || function.inputs[i].extent == Extent::Row);
            if misfit || self.too_big(&expr) {
                self.store(self.input(i));
            }
        }
        // Too many sources together: store the largest operands until they fit.
        loop {
            let mut exprs: Vec<(usize, Expr)> = (0..arity).map(|i| (i, self.expr_of(self.input(i)))).collect();
            let sources: usize = exprs.iter().map(|(_, e)| e.sources.len()).sum();
            let values: usize = exprs.iter().map(|(_, e)| e.function.values.len()).sum();
            if sources <= MAX_SOURCES.max(arity) && values <= MAX_VALUES {
                break;
            }
            exprs.sort_by_key(|(i, e)| (std::cmp::Reverse(e.function.values.len()), *i));
            match exprs.iter().find(|(_, e)| e.plain().is_none() && !e.sources.is_empty()) {
                Some(&(i, _)) => self.store(self.input(i)),
                None => break,
            }
        }
        let mut arguments = Vec::with_capacity(arity);
        for i in 0..arity {
            let expr = self.expr_of(self.input(i));
            let expr = if expr.space == space { Some(expr) } else { expr.expand(&space) };
            let expr = expr.ok_or_else(|| Problem::Argument("invariant: operands broadcast to the result".into()))?;
            arguments.push(if row && function.inputs[i].extent == Extent::Row { expr.per_row() } else { expr });
        }
        let expr = Expr::compose(space, function, &arguments);
        self.defer(expr);
        Ok(())
    }

    /// This node is `expr` reduced over its first or last axes.
    pub fn reduce(&mut self, mut expr: Expr, op: Reduce, axes: usize, leading: bool) {
        expr.add_part(self.node);
        let kind = if leading { OutputKind::ReduceLeading(op, axes) } else { OutputKind::ReduceTrailing(op, axes) };
        self.values[self.node.index()] = Value::Stored;
        self.emit_group(expr.per_element(), vec![(self.node, kind)]);
    }

    /// Part of this node's memory is `expr`.
    pub fn store_part(&mut self, mut expr: Expr, layout: Layout) {
        expr.add_part(self.node);
        self.values[self.node.index()] = Value::Stored;
        self.emit_group(expr.per_element(), vec![(self.node, OutputKind::Store(layout))]);
    }

    /// This node is computed by `kernel`.
    pub fn emit(&mut self, kernel: Kernel, reads: Vec<Id>) {
        self.values[self.node.index()] = Value::Stored;
        self.push_kernel(kernel, reads, Some(self.node));
    }

    /// This node is its input on another device.
    pub fn emit_copy(&mut self) {
        let from = self.stored(0);
        self.values[self.node.index()] = Value::Stored;
        self.steps.push(Step { draft: Draft::Copy { from, to: self.node }, node: self.node });
    }

    /// Adds a step that writes nothing.
    pub fn emit_check(&mut self, kernel: Kernel, reads: Vec<Id>) {
        self.push_kernel(kernel, reads, None);
    }

    fn push_kernel(&mut self, kernel: Kernel, reads: Vec<Id>, write: Option<Id>) {
        let draft = Draft::Kernel { kernel, reads, write, prologue: Vec::new(), epilogue: Vec::new() };
        self.steps.push(Step { draft, node: self.node });
    }
}
