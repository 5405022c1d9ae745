//! What was recorded and waits: computed here when something is about to change under it, or when there is too much of
//! it.

use super::realize;
use super::request::depending_on;
use crate::error::Error;
use crate::tape::{self, NodeId};
use crate::tensor::Tensor;

/// Computes the live tensors that depend on `leaves`, and ends their graphs: the leaves are about to change.
pub(crate) fn settle(leaves: &[NodeId]) -> Result<(), Error> {
    let handles = {
        let mut tape = tape::lock();
        let live = depending_on(&mut tape, leaves, |tape, n| tape.flags[n.index()].handle);
        Tensor::rehandle(&mut tape, &live)
    };
    realize(&handles.iter().collect::<Vec<_>>(), &[])?;
    let mut tape = tape::lock();
    for tensor in &handles {
        tape.drop_inputs(tensor.node());
    }
    Ok(())
}

/// How many nodes may wait before a mark computes what can be computed.
const PENDING_LIMIT: usize = 20_000;

/// Says that a unit of work begins: a batch, a step. When very much waits to be computed (a loop that adds to a total
/// and never looks at it), every live tensor is computed here, so that waiting work stays bounded and the cut falls at
/// the same place each time. Loaders call it for every batch.
///
/// # Errors
/// What computing reports.
pub fn mark() -> Result<(), Error> {
    let live = waiting(PENDING_LIMIT);
    realize(&live.iter().collect::<Vec<_>>(), &[]).map(drop)
}

/// Computes every live tensor, for a capture: what was recorded before it is no part of the step. One that cannot be
/// computed says so when it is asked for.
pub(crate) fn compute_waiting() {
    for tensor in waiting(0) {
        let _ = realize(&[&tensor], &[]);
    }
}

/// The live tensors that wait to be computed, if more than `limit` nodes wait.
fn waiting(limit: usize) -> Vec<Tensor> {
    let mut live = {
        let mut tape = tape::lock();
        if tape.pending() <= limit {
            return Vec::new();
        }
        let waiting = |n: &NodeId| tape.flags[n.index()].handle && tape.buffer[n.index()].is_none();
        let live: Vec<NodeId> = tape.recorded().filter(waiting).collect();
        Tensor::rehandle(&mut tape, &live)
    };
    // A gradient stands for its parts, which are asked for one by one; it has no value of its own.
    live.retain(Tensor::has_value);
    live
}
