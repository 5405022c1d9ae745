//! The reference device: evaluates one operation at a time with `ir`'s evaluator, f32 carried in f64 inside an
//! operation. The oracle of the tests, and what keeps the interface between programs and devices honest. Slow on
//! purpose: no clever code.

mod array;
mod pools;
mod windows;

pub(crate) use array::{Array, apply};
pub(crate) use pools::Pools;
pub(crate) use windows::Windows;

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::compile::world::{Id, World};
use crate::program::Failure;

/// A graph to be evaluated node by node.
pub(crate) struct Graph {
    world: World,
    order: Vec<Id>,
    roots: Vec<Id>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph({} nodes)", self.order.len())
    }
}

impl Graph {
    pub fn new(world: World, roots: &[Id]) -> Graph {
        Graph { order: world.topological(roots, false), roots: roots.to_vec(), world }
    }

    /// The values of the roots.
    pub fn run(&self, inputs: &[Arc<Buffer>], scalars: &[u64]) -> Result<Vec<Arc<Buffer>>, Failure> {
        let mut values: Vec<Option<Array>> = vec![None; self.world.len()];
        for &id in &self.order {
            let i = id.index();
            let ty = &self.world.ty[i];
            let failed = |problem| Failure { origin: self.world.origin[i], problem };
            let value = match (self.world.bound[i], self.world.op[i].primitive()) {
                (Some(input), _) => {
                    // SAFETY: bound buffers were written whole, and nobody writes them while a program reads them.
                    Array::from_bytes(ty, unsafe { inputs[input as usize].bytes() })
                }
                (None, Some(op)) => {
                    let operands: Vec<&Array> =
                        self.world.inputs[i].iter().filter_map(|x| values[x.index()].as_ref()).collect();
                    op.evaluate(&operands, ty, scalars).map_err(failed)?.rounded(ty)
                }
                (None, None) => Array::fill(ty, 0.0),
            };
            values[i] = Some(value);
        }
        let failed = |problem| Failure { origin: 0, problem };
        self.roots
            .iter()
            .map(|r| {
                let bytes = values[r.index()].as_ref().map(Array::to_bytes).unwrap_or_default();
                Buffer::from_bytes(&bytes).map(Arc::new).map_err(failed)
            })
            .collect()
    }
}
