//! The differentiate pass: replaces every `Gradient` by nodes that compute it, through the operations' vjp rules.
//!
//! Owns reverse accumulation. Inner gradients are expanded before outer ones look through them, so any order works.
//! Contributions are added in the order of the graph, which fixes the bits.

use smallvec::SmallVec;

use super::accumulate::Sums;
use super::recompute::Copies;
use super::world::{Id, Ids, Vjp, World};
use crate::error::Problem;
use crate::ops::gradient::{as_gradient, as_gradient_of};

/// Expands all gradients that `roots` need. Returns the roots with gradients replaced by what computes them.
pub(crate) fn differentiate(world: &mut World, roots: &[Id]) -> Result<Vec<Id>, (Id, Problem)> {
    // replacement[i]: what node i became; gradients of several results become lists.
    let mut pass = Pass { replacement: Vec::new(), cotangents: Vec::new() };
    let order = world.topological(roots, true);
    if order.iter().all(|id| as_gradient(&world.op[id.index()]).is_none()) {
        return Ok(roots.to_vec());
    }
    pass.replacement = vec![None; world.len()];
    for id in order {
        pass.visit(world, id)?;
    }
    Ok(roots.iter().map(|&r| pass.resolve(r)).collect())
}

struct Pass {
    replacement: Vec<Option<Id>>,
    /// Results of expanded gradients, by node.
    cotangents: Vec<(Id, Vec<Id>)>,
}

impl Pass {
    fn resolve(&self, id: Id) -> Id {
        self.replacement.get(id.index()).copied().flatten().unwrap_or(id)
    }

    fn visit(&mut self, world: &mut World, id: Id) -> Result<(), (Id, Problem)> {
        let inputs: Ids = world.inputs[id.index()].iter().map(|&i| self.resolve(i)).collect();
        world.current_origin = world.origin[id.index()];
        if let Some(gradient) = as_gradient(&world.op[id.index()]) {
            let (root, wrt) = (inputs[0], &inputs[gradient.first_wrt()..]);
            let seed = match gradient.seeded {
                true => inputs[1],
                false => {
                    let ty = world.ty[root.index()].clone();
                    world.constant(1.0, ty)
                }
            };
            let wrt = wrt.to_vec();
            let results = reverse(world, root, seed, &wrt)?;
            self.cotangents.push((id, results));
            return Ok(());
        }
        if let Some(index) = as_gradient_of(&world.op[id.index()]) {
            let gradient = world.inputs[id.index()][0];
            let found = self.cotangents.iter().find(|(g, _)| *g == gradient);
            self.replacement[id.index()] = found.map(|(_, results)| results[index]);
            return Ok(());
        }
        if inputs != world.inputs[id.index()] {
            let (op, ty) = (world.op[id.index()].clone(), world.ty[id.index()].clone());
            world.current_region = world.region[id.index()];
            let new = match world.bound[id.index()] {
                Some(input) => world.bind(op, inputs, ty, input),
                None => world.push(op, &inputs, ty),
            };
            world.current_region = 0;
            self.replacement[id.index()] = Some(new);
        }
        Ok(())
    }
}

/// The cotangents of `wrt` for the cotangent `seed` of `root`; zeros where `root` does not depend.
pub(crate) fn reverse(world: &mut World, root: Id, seed: Id, wrt: &[Id]) -> Result<Vec<Id>, (Id, Problem)> {
    let order = world.topological(&[root], true);
    let mut depends = vec![false; world.len()];
    for &w in wrt {
        depends[w.index()] = true;
    }
    for &id in &order {
        let on_inputs = world.inputs[id.index()].iter().any(|i| depends[i.index()]);
        depends[id.index()] |= on_inputs;
    }
    let mut sums = Sums::new(world.len());
    if depends[root.index()] {
        sums.add(world, root, seed);
    }
    let mut copies = Copies::default();
    for &id in order.iter().rev() {
        let Some(value) = sums.take(world, id) else { continue };
        let inputs = world.inputs[id.index()].clone();
        if inputs.is_empty() {
            continue;
        }
        let op = world.op[id.index()].clone();
        let Some(primitive) = op.primitive() else { continue };
        let wanted: SmallVec<[bool; 4]> =
            inputs.iter().map(|i| depends[i.index()] && world.dtype(*i).is_float()).collect();
        if !wanted.contains(&true) {
            continue;
        }
        world.current_origin = world.origin[id.index()];
        // A region's nodes are computed again for their rules.
        let seen = copies.seen_from(world, world.region[id.index()], id, value);
        let mut cx = Vjp::new(world, seen, value, wanted.clone());
        primitive.vjp(&mut cx);
        let (contributions, problem) = (cx.contributions, cx.problem);
        if let Some(problem) = problem {
            return Err((id, problem));
        }
        for (i, contribution) in contributions.into_iter().filter(|(i, _)| wanted[*i]) {
            sums.add(world, inputs[i], contribution);
        }
    }
    let zeros = |world: &mut World, w: Id| {
        let ty = world.ty[w.index()].clone();
        world.constant(0.0, ty)
    };
    Ok(wrt.iter().map(|&w| sums.take(world, w).unwrap_or_else(|| zeros(world, w))).collect())
}
