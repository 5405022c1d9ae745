//! The recompute regions of a request, numbered in the order they are met. Owns the numbers; the key holds them, since
//! they change the program.

use std::collections::HashMap;
use std::sync::Arc;

use crate::tape::region::Region;
use crate::tape::{Locked, NodeId};

/// Numbers from 1 on; 0 is no region.
#[derive(Default)]
pub(super) struct Regions {
    /// Of each node, in canonical order; empty if no node has one.
    of: Vec<u32>,
    /// The region that each lies in: entry 0 is that of region 1.
    pub outer: Vec<u32>,
}

impl Regions {
    /// The regions of the nodes in `order`.
    pub fn of(tape: &Locked, order: &[NodeId]) -> Regions {
        let mut regions = Regions::default();
        if order.iter().all(|n| tape.region[n.index()].is_none()) {
            return regions;
        }
        let mut numbers: HashMap<*const Region, u32> = HashMap::new();
        for node in order {
            // The chain outwards up to a region that has a number, then back.
            let chain = std::iter::successors(tape.region[node.index()].as_ref(), |r| r.outer());
            let new: Vec<&Arc<Region>> = chain.take_while(|r| !numbers.contains_key(&Arc::as_ptr(r))).collect();
            for region in new.into_iter().rev() {
                regions.outer.push(region.outer().map_or(0, |r| numbers[&Arc::as_ptr(r)]));
                numbers.insert(Arc::as_ptr(region), regions.outer.len() as u32);
            }
            regions.of.push(tape.region[node.index()].as_ref().map_or(0, |r| numbers[&Arc::as_ptr(r)]));
        }
        regions
    }

    /// The region of the node with this canonical number.
    pub fn at(&self, number: usize) -> u32 {
        self.of.get(number).copied().unwrap_or(0)
    }

    /// For each node, whether its value is kept for backward: not if it only serves its own region.
    pub fn kept(&self, tape: &Locked, order: &[NodeId]) -> Vec<bool> {
        let mut kept = vec![true; order.len()];
        if self.outer.is_empty() {
            return kept;
        }
        let outermost = |number: usize| {
            let chain = std::iter::successors(Some(self.at(number)), |&r| (r != 0).then(|| self.outer[r as usize - 1]));
            chain.take_while(|&r| r != 0).last().unwrap_or(0)
        };
        (0..order.len()).for_each(|n| kept[n] = self.at(n) == 0);
        for (number, node) in order.iter().enumerate() {
            for input in tape.inputs[node.index()].iter().filter_map(|&i| tape.marked(i)) {
                kept[input as usize] |= outermost(number) != outermost(input as usize);
            }
        }
        kept
    }
}
