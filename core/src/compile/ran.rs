//! What a capture keeps of a run, and which runs it cannot keep.

use std::sync::Arc;

use super::Request;
use super::request::sites;
use crate::buffer::Buffer;
use crate::capture;
use crate::error::Problem;
use crate::program::{Body, Failure, Program};
use crate::tape::site::Site;
use crate::tape::{self, NodeId, TensorType};
use crate::tensor::Tensor;

/// Refuses what no replay of a step that is being captured could follow.
pub(super) fn check_captured(request: &Request) -> Result<(), Failure> {
    let refused = |origin, why: &'static str| Err(Failure { origin, problem: Problem::Argument(why.into()) });
    let tape = tape::lock();
    let is_computed = |n: &&u32| !tape.inputs[request.order[**n as usize].index()].is_empty();
    match request.bound.iter().find(is_computed) {
        Some(&origin) => refused(
            origin,
            "this was made before the step that is being captured and keeps its graph, which replays would not follow: \
             make it in the step, or under `no_grad`",
        ),
        None => Ok(()),
    }
}

/// Refuses what a replay could not run.
pub(super) fn check_program(program: &Program) -> Result<(), Failure> {
    let why = match &program.body {
        Body::Host(_) => return Ok(()),
        Body::Interpreted(_) => "the reference device keeps no programs: capture steps on the CPU",
        Body::Driven(_) | Body::Mixed(_) => "only steps that run on the CPU alone can be captured",
    };
    Err(Failure::of_all(Problem::Argument(why.into())))
}

/// What a capture keeps of a run.
pub(crate) struct Ran {
    pub program: Arc<Program>,
    pub inputs: Vec<Arc<Buffer>>,
    /// The nodes that the inputs are.
    pub bound: Vec<NodeId>,
    /// The nodes that the outputs are.
    pub wanted: Vec<NodeId>,
    pub outputs: Vec<Arc<Buffer>>,
    pub scalars: Vec<u64>,
    /// Where the nodes were recorded, by canonical number.
    pub sites: Arc<[Site]>,
    pub origins: Vec<capture::Origin>,
    /// For each asked tensor: the leaf that it was to replace, its output if the program computes it, and its type.
    pub updates: Vec<(Option<NodeId>, Option<usize>, TensorType)>,
    /// Keeps the numbers of all these nodes from being given to others.
    _pinned: Vec<Tensor>,
}

impl Ran {
    pub(super) fn new(
        request: &Request,
        asked: &[&Tensor],
        replaces: &[Option<NodeId>],
        outputs: &[Arc<Buffer>],
        program: &Arc<Program>,
    ) -> Ran {
        let wanted: Vec<NodeId> = request.wanted.iter().map(|w| request.order[w.0 as usize]).collect();
        let bound: Vec<NodeId> = request.bound.iter().map(|&b| request.order[b as usize]).collect();
        let output_of = |t: &Tensor| wanted.iter().position(|&w| w == t.node());
        let update = |(old, t): (&Option<NodeId>, &&Tensor)| (*old, output_of(t), t.ty().clone());
        let mut tape = tape::lock();
        let origins = request.order.iter().flat_map(|n| tape.op[n.index()].origins()).collect();
        Ran {
            program: program.clone(),
            inputs: request.inputs.clone(),
            updates: replaces.iter().zip(asked).map(update).collect(),
            _pinned: Tensor::rehandle(&mut tape, &[&bound[..], &wanted].concat()),
            bound,
            wanted,
            outputs: outputs.to_vec(),
            scalars: request.scalars.clone(),
            sites: sites(&tape, &request.order).into(),
            origins,
        }
    }
}
