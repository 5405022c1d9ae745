//! The body of a scan: a small graph over its operands, taken off the tape. Owns its form and what makes two of them
//! equal; where it was recorded is no part of that.

use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use smallvec::SmallVec;

use super::flow;
use crate::ops::{Flow, Op};
use crate::tape::TensorType;
use crate::tape::site::Site;

/// A value of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    /// An input of the scan; of what is scanned over, the step's element.
    Input(usize),
    /// A node of the body.
    Node(usize),
}

/// A node of the body.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub op: Op,
    pub inputs: SmallVec<[Value; 4]>,
    pub ty: TensorType,
    /// Its recompute region among those of the body; 0: that of the scan.
    pub region: u32,
    pub site: Site,
}

impl Node {
    fn parts(&self) -> (&Op, &SmallVec<[Value; 4]>, &TensorType, u32) {
        (&self.op, &self.inputs, &self.ty, self.region)
    }
}

/// Each node after its inputs.
#[derive(Debug)]
pub(crate) struct Body {
    pub nodes: Vec<Node>,
    /// The region that each recompute region lies in: entry 0 is that of region 1.
    pub outer_regions: Vec<u32>,
    pub carries: usize,
    /// How many inputs are scanned over.
    pub scanned: usize,
    /// The types of all inputs: carries, elements of what is scanned over, and what comes from outside.
    pub inputs: Vec<TensorType>,
    /// Of a step: the carries, then what is stacked.
    pub outputs: Vec<(Value, TensorType)>,
    /// For no steps, one, and several.
    flows: [OnceLock<Vec<Vec<Flow>>>; 3],
}

impl Body {
    pub fn new(
        (nodes, outer_regions): (Vec<Node>, Vec<u32>),
        (carries, scanned): (usize, usize),
        inputs: Vec<TensorType>,
        outputs: Vec<(Value, TensorType)>,
    ) -> Body {
        Body { nodes, outer_regions, carries, scanned, inputs, outputs, flows: Default::default() }
    }

    pub fn ty(&self, value: Value) -> &TensorType {
        match value {
            Value::Input(i) => &self.inputs[i],
            Value::Node(n) => &self.nodes[n].ty,
        }
    }

    /// Whether cotangents pass from each output to each input, in so many steps.
    pub fn flows(&self, steps: usize) -> &[Vec<Flow>] {
        self.flows[steps.min(2)].get_or_init(|| flow::all(self, steps))
    }

    /// The node at which the cotangent that `output` gives `input` is cut off.
    pub fn severed(&self, steps: usize, output: usize, input: usize) -> Option<usize> {
        flow::severed(self, steps, output, input)
    }

    /// How many nodes it has, with those of scans in it.
    pub fn size(&self) -> usize {
        self.nodes.iter().map(|n| 1 + super::as_scan(&n.op).map_or(0, |s| s.body.size())).sum()
    }

    /// Node `number` of these, each scan's after it.
    pub fn node(&self, mut number: usize) -> Option<&Node> {
        for node in &self.nodes {
            if number == 0 {
                return Some(node);
            }
            number -= 1;
            if let Some(inner) = super::as_scan(&node.op) {
                if number < inner.body.size() {
                    return inner.body.node(number);
                }
                number -= inner.body.size();
            }
        }
        None
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        let counts = |b: &Body| (b.carries, b.scanned);
        self.nodes == other.nodes
            && self.outer_regions == other.outer_regions
            && counts(self) == counts(other)
            && self.inputs == other.inputs
            && self.outputs == other.outputs
    }
}

impl Eq for Body {}

impl Hash for Body {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nodes.hash(state);
        (&self.outer_regions, self.carries, self.scanned, &self.inputs, &self.outputs).hash(state);
    }
}
