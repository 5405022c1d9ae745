//! Sums of cotangents. What slices of one value give is put together side by side: for a value that is sliced T times,
//! T values of its size would be made and added otherwise.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::world::{Id, World};
use crate::ops::concat::Concat;
use crate::ops::pad::{Part, as_part};
use crate::tensor::shape::Shape;

/// The cotangents of one reverse accumulation.
pub(super) struct Sums {
    total: Vec<Option<Id>>,
    /// What is zeros but for one part, in the order it came.
    parts: HashMap<Id, SmallVec<[Id; 4]>>,
}

impl Sums {
    pub fn new(nodes: usize) -> Sums {
        Sums { total: vec![None; nodes], parts: HashMap::new() }
    }

    /// Adds a contribution to the cotangent of `id`.
    pub fn add(&mut self, world: &mut World, id: Id, contribution: Id) {
        if as_part(world, contribution).is_some() {
            self.parts.entry(id).or_default().push(contribution);
            return;
        }
        let total = &mut self.total[id.index()];
        *total = Some(match *total {
            Some(sum) => world.add_values(sum, contribution),
            None => contribution,
        });
    }

    /// The cotangent of `id`, once everything that reads it has contributed.
    pub fn take(&mut self, world: &mut World, id: Id) -> Option<Id> {
        if let Some(padded) = self.parts.remove(&id) {
            let side_by_side = if padded.len() > 1 { joined(world, &padded) } else { None };
            for part in side_by_side.map_or(padded, |whole| SmallVec::from_slice(&[whole])) {
                let total = &mut self.total[id.index()];
                *total = Some(total.map_or(part, |sum| world.add_values(sum, part)));
            }
        }
        self.total[id.index()]
    }
}

/// The sum of values that are zeros but for parts which lie side by side along one axis.
fn joined(world: &mut World, padded: &[Id]) -> Option<Id> {
    let mut parts: Vec<Part> = padded.iter().map(|&id| as_part(world, id)).collect::<Option<_>>()?;
    let axis = parts[0].axis;
    if parts.iter().any(|p| p.axis != axis) {
        return None;
    }
    parts.sort_by_key(|p| p.start);
    let whole = world.ty[padded[0].index()].clone();
    let mut pieces: Vec<Id> = Vec::with_capacity(parts.len());
    let mut end = 0;
    let zeros = |world: &mut World, pieces: &mut Vec<Id>, length: usize| {
        if length > 0 {
            let mut shape = whole.shape.to_vec();
            shape[axis] = length;
            let ty = world.with_shape(padded[0], Shape::from(shape));
            pieces.push(world.constant(0.0, ty));
        }
    };
    for part in parts {
        zeros(world, &mut pieces, part.start.checked_sub(end)?);
        end = part.start + world.shape(part.value)[axis];
        pieces.push(part.value);
    }
    zeros(world, &mut pieces, whole.shape[axis] - end);
    Some(world.push(Concat::new(axis), &pieces, whole))
}
