//! Scan: a body recorded once and run for every element of an axis, its results carried from step to step.
//!
//! `record` owns what the user calls and how a body is taken off the tape, `body` what it is, `flow` which cotangents
//! pass it. Nothing here computes: the expand pass writes the steps out before anything else looks at them.

mod body;
mod flow;
mod record;

pub(crate) use body::{Body, Value};
pub(crate) use record::is_recording;
pub use record::scan;

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Arguments, Flow, Op, Primitive};
use crate::capture::Origin;
use crate::compile::fuse::Lower;
use crate::error::Problem;
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;

/// All results of a scan. Inputs: the carries' first values, what is scanned over, and what the body reads from
/// outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scan {
    pub body: Arc<Body>,
    /// How many steps there are.
    pub length: usize,
    /// Where the body's host values are, once it is part of a program.
    slot: usize,
    /// Which step of a scan around it this is: it draws other random numbers in each.
    pub ordinal: u32,
}

impl Scan {
    pub fn new(body: Arc<Body>, length: usize) -> Scan {
        Scan { body, length, slot: 0, ordinal: 0 }
    }

    /// The host values of the body, which are the same in all steps.
    pub fn arguments(&self) -> Arguments {
        self.body.nodes.iter().flat_map(|n| n.op.arguments()).collect()
    }

    pub fn origins(&self) -> SmallVec<[Origin; 2]> {
        self.body.nodes.iter().flat_map(|n| n.op.origins()).collect()
    }

    pub fn with_slots(&self, first: usize) -> Scan {
        Scan { slot: first, ..self.clone() }
    }

    /// What the body's nodes are in step `step`.
    pub fn ops_at(&self, step: usize) -> impl Iterator<Item = Op> {
        let ordinal = self.ordinal.wrapping_mul(self.length as u32).wrapping_add(step as u32);
        let mut slot = self.slot;
        self.body.nodes.iter().map(move |node| {
            let first = slot;
            slot += node.op.arguments().len();
            match node.op.with_slots(first) {
                Op::Random(random) => random.drawn_in(ordinal).into(),
                Op::Scan(inner) => Scan { ordinal, ..inner }.into(),
                op => op,
            }
        })
    }
}

/// One result of a scan: a carry after the last step, or what the steps gave, stacked. Inputs: the scan, then the
/// scan's inputs, which cotangents pass to.
#[derive(Clone, Debug)]
pub(crate) struct ScanOf {
    pub index: usize,
    body: Arc<Body>,
    length: usize,
}

// The body and the length are the scan's.
impl PartialEq for ScanOf {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}
impl Eq for ScanOf {}
impl Hash for ScanOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

/// The scan that `op` is, if it is one.
pub(crate) fn as_scan(op: &Op) -> Option<&Scan> {
    match op {
        Op::Scan(scan) => Some(scan),
        _ => None,
    }
}

/// Which result of a scan `op` is, if it is one.
pub(crate) fn as_scan_of(op: &Op) -> Option<usize> {
    match op {
        Op::ScanOf(of) => Some(of.index),
        _ => None,
    }
}

/// What the body of a scan is recorded with: an operand that has no value yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Placeholder {
    pub index: usize,
}

const EXPANDED: &str = "invariant: scans are expanded before anything is lowered";
const NO_VALUE: &str = "the body of a scan cannot compute values: it is recorded once, before there are any; return what is \
                        wanted of each step";

impl Primitive for Scan {
    fn name(&self) -> Cow<'static, str> {
        format!("scan of {} steps", self.length).into()
    }

    fn flow(&self, _: usize, _: &[&TensorType]) -> Flow {
        Flow::Stops
    }

    fn lower(&self, _: &mut Lower<'_>) -> Result<(), Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }

    fn evaluate(&self, _: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }
}

impl Primitive for ScanOf {
    fn name(&self) -> Cow<'static, str> {
        "scan".into()
    }

    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        let Some(input) = input.checked_sub(1) else { return Flow::Stops };
        self.body.flows(self.length)[self.index][input]
    }

    fn severed_at(&self, input: usize) -> Option<(Cow<'static, str>, Site)> {
        let node = self.body.severed(self.length, self.index, input.checked_sub(1)?)?;
        Some((self.body.nodes[node].op.name(), self.body.nodes[node].site))
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn lower(&self, _: &mut Lower<'_>) -> Result<(), Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }

    fn evaluate(&self, _: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }
}

impl Primitive for Placeholder {
    fn name(&self) -> Cow<'static, str> {
        "scan".into()
    }

    fn lower(&self, _: &mut Lower<'_>) -> Result<(), Problem> {
        Err(Problem::Argument(NO_VALUE.into()))
    }

    fn evaluate(&self, _: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Err(Problem::Argument(NO_VALUE.into()))
    }
}
