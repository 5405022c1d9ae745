//! Recomputation: while cotangents are accumulated, vjp rules in a region see copies of its nodes, which are made from
//! what the region was given once the first cotangent has come to it.
//!
//! Owns the copies. A copy has the arithmetic of its original, and random nodes keep their streams, so bits are the
//! same; a barrier keeps it from being merged with the original and from being computed before its time.

use std::collections::HashMap;

use super::world::{Id, Ids, World};
use crate::ops::barrier::Barrier;

/// The copies that one reverse accumulation has made.
#[derive(Default)]
pub(super) struct Copies {
    /// By original and region.
    made: HashMap<(Id, u32), Id>,
    /// The cotangent that came to a region first.
    began: HashMap<u32, Id>,
}

impl Copies {
    /// `id` as vjp rules in `region` see it, to which `cotangent` has come.
    pub fn seen_from(&mut self, world: &mut World, region: u32, id: Id, cotangent: Id) -> Id {
        let mut stack = vec![(id, region)];
        while let Some(&(id, region)) = stack.last() {
            if self.get(world, id, region).is_some() {
                stack.pop();
                continue;
            }
            // Outside it is what the region around sees; inside, a copy of copies.
            let inside = world.is_within(id, region);
            let needs: Vec<(Id, u32)> = match inside {
                true => world.inputs[id.index()].iter().map(|&i| (i, region)).collect(),
                false => vec![(id, world.outer(region))],
            };
            let there: Vec<Option<Id>> = needs.iter().map(|&(id, region)| self.get(world, id, region)).collect();
            let Some(inputs) = there.iter().copied().collect::<Option<Ids>>() else {
                stack.extend(needs.into_iter().zip(there).filter(|(_, there)| there.is_none()).map(|(need, _)| need));
                continue;
            };
            let ty = world.ty[id.index()].clone();
            let outside = std::mem::replace(&mut world.current_again, region);
            let copy = match inside {
                true => world.push(world.op[id.index()].clone(), &inputs, ty),
                false => {
                    let began = *self.began.entry(region).or_insert(cotangent);
                    world.push(Barrier, &[inputs[0], began], ty)
                }
            };
            world.current_again = outside;
            self.made.insert((id, region), copy);
            stack.pop();
        }
        self.get(world, id, region).unwrap_or(id)
    }

    fn get(&self, world: &World, id: Id, region: u32) -> Option<Id> {
        // Of what is in memory already nothing needs to be computed again; constants and random numbers take none.
        let kept = world.bound[id.index()].is_some() && world.is_within(id, region);
        let free = world.bound[id.index()].is_none() && world.inputs[id.index()].is_empty();
        if region == 0 || kept || free { Some(id) } else { self.made.get(&(id, region)).copied() }
    }
}
