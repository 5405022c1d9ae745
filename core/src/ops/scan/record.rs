//! Recording a scan: the body runs once on operands without values, and what it recorded is taken off the tape.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::body::{Body, Node, Value};
use super::{Placeholder, Scan, ScanOf};
use crate::autodiff::grad_enabled;
use crate::error::{Error, Problem};
use crate::ops::Op;
use crate::ops::detach::Detach;
use crate::tape::region::Region;
use crate::tape::site::Site;
use crate::tape::{self, Inputs, Locked, NodeId, TensorType};
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// Runs `body` for every element of the first axis of `xs`, from the first on, its carries going from step to step:
/// JAX's `lax.scan`.
///
/// `body` is called once, to record a step: it gets the carries and the elements, and returns the new carries and what
/// is to be kept of the step. So a scan of any length is recorded in the time of one step, and dropout in the body
/// draws new numbers in every step. What the body reads from outside (weights) is differentiated too, to any order.
///
/// # Shapes
/// `init: [C…]`, `xs: [(T, X…)…]`; `body: ([C…], [X…]) → ([C…], [Y…])` → `([C…], [(T, Y…)…])`
/// # Formula
/// `(c₀, yᵢ)`: `c₀ = init`, `(cᵢ₊₁, yᵢ) = body(cᵢ, xᵢ)`; the result is `(c_T, stack(y))`. With T = 0 the carries are
/// `init` and nothing is stacked.
/// # Errors
/// Nothing to scan over; different lengths; a body that changes the number, shape or dtype of the carries; a value
/// asked for in the body (`item`).
/// # Example
/// ```
/// # use tapeflow_core::{Tensor, scan};
/// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [3]);
/// let (last, all) = scan(&[&Tensor::scalar(1.0f32)], &[&x], |carry, x| {
///     let product = &carry[0] * &x[0];
///     (vec![product.clone()], vec![product])
/// });
/// assert_eq!(last[0].item::<f32>()?, 6.0);
/// assert_eq!(all[0].to_vec::<f32>()?, [1.0, 2.0, 6.0]);
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[track_caller]
pub fn scan(
    init: &[&Tensor],
    xs: &[&Tensor],
    body: impl FnOnce(&[Tensor], &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>),
) -> (Vec<Tensor>, Vec<Tensor>) {
    let site = Site::here();
    let length = length(xs);
    let given: Vec<&Tensor> = init.iter().chain(xs).copied().collect();
    let types: Vec<TensorType> =
        init.iter().map(|t| t.ty().clone()).chain(xs.iter().map(|x| element(x.ty()))).collect();
    let operands: Vec<Tensor> =
        types.iter().enumerate().map(|(index, ty)| placeholder(index, ty.clone(), site)).collect();
    let around = Region::current();
    let (carries, kept) = recording(|| body(&operands[..init.len()], &operands[init.len()..]));
    let problem = length.as_ref().err().cloned().or_else(|| check_carries(init, &carries).err());
    let outputs: Vec<&Tensor> = carries.iter().chain(&kept).collect();
    let n = *length.as_ref().unwrap_or(&1);
    let ty = |k: usize, t: &Tensor| match k < carries.len() {
        true => t.ty().clone(),
        false => TensorType { shape: stacked(n, t.shape()), ..t.ty().clone() },
    };
    let result_types: Vec<TensorType> = outputs.iter().enumerate().map(|(k, t)| ty(k, t)).collect();
    let mut results: Vec<Tensor> = match problem {
        Some(problem) => {
            // A mistake before is what this one follows from.
            let all: Vec<&Tensor> = given.iter().chain(&outputs).copied().collect();
            let wrong = Tensor::mistake_in(&all, Error::new("scan", problem, site), TensorType::scalar_f32());
            let told = |ty: &TensorType| Tensor::record_at(Detach, &[&wrong], ty.clone(), site);
            // As many carries as there were, whatever the body gave.
            let carried = init.iter().map(|t| told(t.ty()));
            carried.chain(result_types.iter().skip(carries.len()).map(told)).collect()
        }
        None if outputs.iter().chain(&given).any(|t| t.is_mistake()) => {
            let all: Vec<&Tensor> = given.iter().chain(&outputs).copied().collect();
            result_types.iter().map(|ty| Tensor::record_at(Detach, &all, ty.clone(), site)).collect()
        }
        None => {
            let mut tape = tape::lock();
            let taken = Taken::from(&tape, &operands, &outputs, around.as_ref());
            let outside = Tensor::rehandle(&mut tape, &taken.outside);
            drop(tape);
            let body = Arc::new(taken.body(init.len(), xs.len(), types, &outputs, &outside));
            let inputs: Vec<&Tensor> = given.into_iter().chain(&outside).collect();
            record(&body, n, &inputs, &result_types, site)
        }
    };
    let kept = results.split_off(init.len());
    (results, kept)
}

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the body of a scan is being recorded on this thread.
pub(crate) fn is_recording() -> bool {
    RECORDING.get()
}

fn recording<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _restore = Restore(RECORDING.replace(true));
    f()
}

fn record(body: &Arc<Body>, length: usize, inputs: &[&Tensor], types: &[TensorType], site: Site) -> Vec<Tensor> {
    let whole = {
        let nodes: Inputs = inputs.iter().map(|t| t.node()).collect();
        let ty = TensorType { shape: Shape::default(), ..inputs[0].ty().clone() };
        Tensor::from_nodes(&mut tape::lock(), Scan::new(body.clone(), length), nodes, ty, site, false)
    };
    let of = |(index, ty): (usize, &TensorType)| {
        let inputs: Vec<&Tensor> = [&whole].into_iter().chain(inputs.iter().copied()).collect();
        Tensor::record_at(ScanOf { index, body: body.clone(), length }, &inputs, ty.clone(), site)
    };
    types.iter().enumerate().map(of).collect()
}

fn length(xs: &[&Tensor]) -> Result<usize, Problem> {
    let shapes = || xs.iter().map(|x| x.shape().clone()).collect();
    let Some(first) = xs.first() else {
        return Err(Problem::Argument(
            "there is nothing to scan over: a scan is as long as the first axis of `xs`".into(),
        ));
    };
    let length = first.shape().first().copied();
    match length {
        Some(length) if xs.iter().all(|x| x.shape().first() == Some(&length)) => Ok(length),
        _ => Err(Problem::Shapes {
            shapes: shapes(),
            rule: "what is scanned over needs a first axis, all the same".into(),
        }),
    }
}

fn element(ty: &TensorType) -> TensorType {
    TensorType { shape: Shape::from(ty.shape.get(1..).unwrap_or_default()), ..ty.clone() }
}

fn stacked(length: usize, shape: &Shape) -> Shape {
    Shape::from([&[length], &shape[..]].concat())
}

fn check_carries(init: &[&Tensor], carries: &[Tensor]) -> Result<(), Problem> {
    if init.len() != carries.len() {
        let (given, made) = (init.len(), carries.len());
        return Err(Problem::Argument(format!("the body gets {given} carries and returns {made}").into()));
    }
    for (k, (before, after)) in init.iter().zip(carries).enumerate() {
        if before.is_mistake() || after.is_mistake() {
            continue;
        }
        if before.shape() != after.shape() {
            let shapes = vec![before.shape().clone(), after.shape().clone()];
            let rule = format!(
                "carry {k} goes into a step with the first and comes out with the second: a body keeps the \
                                shapes of its carries"
            );
            return Err(Problem::Shapes { shapes, rule: rule.into() });
        }
        if before.dtype() != after.dtype() || before.device() != after.device() {
            let said = |t: &Tensor| format!("{} on {}", t.dtype(), t.device());
            let (before, after) = (said(before), said(after));
            return Err(Problem::Argument(
                format!(
                    "carry {k} goes into a step as {before} and comes out as {after}: `cast` or `to` it in the body"
                )
                .into(),
            ));
        }
    }
    Ok(())
}

fn placeholder(index: usize, ty: TensorType, site: Site) -> Tensor {
    let grad = ty.dtype.is_float() && grad_enabled();
    Tensor::from_nodes(&mut tape::lock(), Placeholder { index }, Inputs::new(), ty, site, grad)
}

/// What a body recorded.
struct Taken {
    nodes: Vec<Node>,
    outer_regions: Vec<u32>,
    /// The values that the outputs are; inputs from outside are numbered behind the operands.
    outputs: Vec<Value>,
    /// What it reads that was there before, or does not depend on the step.
    outside: Vec<NodeId>,
}

impl Taken {
    fn from(tape: &Locked, operands: &[Tensor], outputs: &[&Tensor], around: Option<&Arc<Region>>) -> Taken {
        let mut taken =
            Taken { nodes: Vec::new(), outer_regions: Vec::new(), outputs: Vec::new(), outside: Vec::new() };
        let mut known: HashMap<NodeId, Value> =
            operands.iter().enumerate().map(|(i, t)| (t.node(), Value::Input(i))).collect();
        let mut regions: HashMap<*const Region, u32> = around.iter().map(|r| (Arc::as_ptr(r), 0)).collect();
        let begun = operands.first().map_or(0, |t| tape.ancestry[t.node().index()].born);
        let inside = inside(tape, begun, operands, outputs);
        let mut stack: Vec<NodeId> = outputs.iter().rev().map(|t| t.node()).collect();
        while let Some(&node) = stack.last() {
            if known.contains_key(&node) {
                stack.pop();
                continue;
            }
            if !inside.get(&node).copied().unwrap_or(false) {
                known.insert(node, Value::Input(operands.len() + taken.outside.len()));
                taken.outside.push(node);
                continue;
            }
            let missing: SmallVec<[NodeId; 4]> =
                tape.inputs[node.index()].iter().rev().filter(|i| !known.contains_key(i)).copied().collect();
            if missing.is_empty() {
                taken.add(tape, node, &mut known, &mut regions);
            }
            stack.extend(missing);
        }
        for output in outputs {
            let value = taken.uncut(tape, output.node(), known[&output.node()]);
            taken.outputs.push(value);
        }
        taken
    }

    fn add(
        &mut self,
        tape: &Locked,
        node: NodeId,
        known: &mut HashMap<NodeId, Value>,
        regions: &mut HashMap<*const Region, u32>,
    ) {
        let i = node.index();
        let inputs = tape.inputs[i].iter().map(|&input| match tape.flags[i].cut {
            true => known[&input],
            false => self.uncut(tape, input, known[&input]),
        });
        let inputs = inputs.collect();
        let region = tape.region[i].as_ref().map_or(0, |r| self.region(r, regions));
        let (op, ty, site) = (tape.op[i].clone(), tape.ty[i].clone(), tape.site[i]);
        self.nodes.push(Node { op, inputs, ty, region, site });
        known.insert(node, Value::Node(self.nodes.len() - 1));
    }

    /// What was recorded under `no_grad` is a number to everything else.
    fn uncut(&mut self, tape: &Locked, node: NodeId, value: Value) -> Value {
        let i = node.index();
        if !tape.flags[i].cut || !matches!(value, Value::Node(_)) {
            return value;
        }
        let (ty, site) = (tape.ty[i].clone(), tape.site[i]);
        let inputs = SmallVec::from_slice(&[value]);
        self.nodes.push(Node { op: Op::from(Detach), inputs, ty, region: 0, site });
        Value::Node(self.nodes.len() - 1)
    }

    /// The number of a region that was entered in the body; 0 for those around it.
    fn region(&mut self, region: &Arc<Region>, regions: &mut HashMap<*const Region, u32>) -> u32 {
        let chain = std::iter::successors(Some(region), |r| r.outer());
        let new: Vec<&Arc<Region>> = chain.take_while(|r| !regions.contains_key(&Arc::as_ptr(r))).collect();
        for region in new.into_iter().rev() {
            let outer = region.outer().and_then(|r| regions.get(&Arc::as_ptr(r))).copied().unwrap_or(0);
            self.outer_regions.push(outer);
            regions.insert(Arc::as_ptr(region), self.outer_regions.len() as u32);
        }
        regions[&Arc::as_ptr(region)]
    }

    fn body(
        self,
        carries: usize,
        scanned: usize,
        mut types: Vec<TensorType>,
        outputs: &[&Tensor],
        outside: &[Tensor],
    ) -> Body {
        types.extend(outside.iter().map(|t| t.ty().clone()));
        let outputs = self.outputs.iter().zip(outputs).map(|(&v, t)| (v, t.ty().clone())).collect();
        Body::new((self.nodes, self.outer_regions), (carries, scanned), types, outputs)
    }
}

/// Which of the nodes that `outputs` need differ from step to step: those recorded in the body that depend on its
/// operands, on random numbers, or on nothing.
fn inside(tape: &Locked, begun: u64, operands: &[Tensor], outputs: &[&Tensor]) -> HashMap<NodeId, bool> {
    let mut inside: HashMap<NodeId, bool> = operands.iter().map(|t| (t.node(), true)).collect();
    let mut stack: Vec<NodeId> = outputs.iter().map(|t| t.node()).collect();
    while let Some(&node) = stack.last() {
        let i = node.index();
        if inside.contains_key(&node) {
            stack.pop();
            continue;
        }
        // What was there before cannot depend on the operands.
        let is_new = tape.ancestry[i].born > begun && tape.buffer[i].is_none();
        let missing: SmallVec<[NodeId; 4]> = match is_new {
            true => tape.inputs[i].iter().filter(|x| !inside.contains_key(x)).copied().collect(),
            false => SmallVec::new(),
        };
        if missing.is_empty() {
            let source = tape.inputs[i].is_empty() && tape.op[i].primitive().is_some();
            let found = is_new && (source || tape.inputs[i].iter().any(|x| inside[x]));
            inside.insert(node, found);
        }
        stack.extend(missing);
    }
    inside
}
