//! Which cotangents pass the body of a scan, by the same rule as on the tape: from an output along edges that carry
//! them, and over the carries from step to step.

use smallvec::SmallVec;

use super::body::{Body, Value};
use crate::ops::Flow;
use crate::tape::TensorType;

/// For each output, the flow to each input.
pub(super) fn all(body: &Body, steps: usize) -> Vec<Vec<Flow>> {
    let reached: Vec<Reached> = (0..body.outputs.len()).map(|output| reach(body, steps, output)).collect();
    let mut flows = vec![Vec::with_capacity(body.inputs.len()); body.outputs.len()];
    for input in 0..body.inputs.len() {
        let depends = depends_on(body, steps, input);
        for (reached, flows) in reached.iter().zip(&mut flows) {
            flows.push(match (cut_at(body, reached, &depends), reached.inputs[input]) {
                (Some(_), _) => Flow::Severed,
                (None, true) => Flow::Carries,
                (None, false) => Flow::Stops,
            });
        }
    }
    flows
}

/// The node at which the cotangent of `output` for `input` is cut off, if it is.
pub(super) fn severed(body: &Body, steps: usize, output: usize, input: usize) -> Option<usize> {
    cut_at(body, &reach(body, steps, output), &depends_on(body, steps, input))
}

/// What a cotangent of one output reaches.
struct Reached {
    inputs: Vec<bool>,
    nodes: Vec<bool>,
}

fn flow(body: &Body, node: usize, input: usize) -> Flow {
    let node = &body.nodes[node];
    let types: SmallVec<[&TensorType; 4]> = node.inputs.iter().map(|&v| body.ty(v)).collect();
    node.op.primitive().map_or(Flow::Stops, |op| op.flow(input, &types))
}

fn reach(body: &Body, steps: usize, output: usize) -> Reached {
    let mut reached = Reached { inputs: vec![false; body.inputs.len()], nodes: vec![false; body.nodes.len()] };
    if steps == 0 && output < body.carries {
        // The carries are what they were at first. Else no steps are as any number of them: gradients are zeros.
        reached.inputs[output] = true;
    }
    let mut stack = vec![body.outputs[output].0];
    while let Some(value) = stack.pop() {
        match value {
            Value::Input(i) if !reached.inputs[i] => {
                reached.inputs[i] = true;
                if steps != 1 && i < body.carries {
                    stack.push(body.outputs[i].0);
                }
            }
            Value::Node(n) if !reached.nodes[n] => {
                reached.nodes[n] = true;
                let inputs = body.nodes[n].inputs.iter().enumerate();
                stack.extend(inputs.filter(|(k, _)| flow(body, n, *k) == Flow::Carries).map(|(_, v)| *v));
            }
            _ => {}
        }
    }
    reached
}

/// Whether each value depends on `input` in a way that a cotangent could have to go back.
struct Depends {
    inputs: Vec<bool>,
    nodes: Vec<bool>,
}

impl Depends {
    fn has(&self, value: Value) -> bool {
        match value {
            Value::Input(i) => self.inputs[i],
            Value::Node(n) => self.nodes[n],
        }
    }
}

fn depends_on(body: &Body, steps: usize, input: usize) -> Depends {
    let mut depends = Depends { inputs: vec![false; body.inputs.len()], nodes: vec![false; body.nodes.len()] };
    depends.inputs[input] = true;
    loop {
        for n in 0..body.nodes.len() {
            let mut inputs = body.nodes[n].inputs.iter().enumerate();
            depends.nodes[n] = inputs.any(|(k, v)| depends.has(*v) && flow(body, n, k) != Flow::Stops);
        }
        // One step's carries are the next one's.
        let new = (0..body.carries).filter(|&c| steps != 1 && !depends.inputs[c] && depends.has(body.outputs[c].0));
        let new: Vec<usize> = new.collect();
        if new.is_empty() {
            return depends;
        }
        new.into_iter().for_each(|c| depends.inputs[c] = true);
    }
}

fn cut_at(body: &Body, reached: &Reached, depends: &Depends) -> Option<usize> {
    (0..body.nodes.len()).filter(|&n| reached.nodes[n]).find(|&n| {
        let mut inputs = body.nodes[n].inputs.iter().enumerate();
        inputs.any(|(k, v)| depends.has(*v) && flow(body, n, k) == Flow::Severed)
    })
}
