//! The expand pass: writes out the steps of every scan, so that no later pass knows of scans, and what stands for
//! operations that others may stand for.
//!
//! Owns the copies of a body, one a step. All that happens to a scan afterwards (derivatives of any order, fusion,
//! memory) happens to its steps.

use smallvec::SmallVec;

use super::world::{Id, Ids, World};
use crate::ops::Op;
use crate::ops::concat::Concat;
use crate::ops::cut::{Cut, Cuts};
use crate::ops::movement::Movement;
use crate::ops::scan::{Scan, Value, as_scan, as_scan_of};
use crate::tape::TensorType;
use crate::tensor::shape::Shape;

/// What became of a node: of a scan, its results.
enum Became {
    One(Id),
    Many(Vec<Id>),
}

impl Became {
    fn one(&self) -> Id {
        match self {
            Became::One(id) => *id,
            Became::Many(_) => unreachable!("invariant: only results of a scan read the scan itself"),
        }
    }

    fn result(&self, index: usize) -> Id {
        match self {
            Became::Many(results) => results[index],
            Became::One(_) => unreachable!("invariant: the first input of a scan's result is the scan"),
        }
    }
}

fn expands(op: &Op) -> bool {
    op.primitive().is_some_and(|op| op.expands())
}

/// The world without scans, and with what stands for what `expands`. `origins`: how many canonical numbers there are;
/// those of bodies' nodes come behind them.
pub(super) fn expand(world: World, roots: Vec<Id>, origins: usize) -> (World, Vec<Id>) {
    if world.op.iter().all(|op| as_scan(op).is_none() && !expands(op)) {
        return (world, roots);
    }
    let mut new = World::default();
    (new.given, new.scalars) = (world.given, world.scalars);
    new.outer_regions.clone_from(&world.outer_regions);
    let mut pass = Expand { new };
    let mut became: Vec<Became> = Vec::with_capacity(world.len());
    let mut behind = origins as u32;
    for i in 0..world.len() {
        let new = &mut pass.new;
        (new.current_origin, new.current_region) = (world.origin[i], world.region[i]);
        let inputs = &world.inputs[i];
        became.push(if let Some(scan) = as_scan(&world.op[i]) {
            let inputs: Vec<Id> = inputs.iter().map(|x| became[x.index()].one()).collect();
            let results = pass.steps(scan, &inputs, behind);
            behind += scan.body.size() as u32;
            Became::Many(results)
        } else if let Some(index) = as_scan_of(&world.op[i]) {
            let id = became[inputs[0].index()].result(index);
            if world.bound[i].is_some() && !new.inputs[id.index()].is_empty() {
                new.bound[id.index()] = new.bound[id.index()].or(world.bound[i]);
            }
            Became::One(id)
        } else {
            let inputs: Ids = inputs.iter().map(|x| became[x.index()].one()).collect();
            let (op, ty) = (world.op[i].clone(), world.ty[i].clone());
            Became::One(match world.bound[i] {
                bound if expands(&op) && !inputs.is_empty() => {
                    let id = new.write_out(&op, &inputs, ty);
                    new.bound[id.index()] = new.bound[id.index()].or(bound);
                    id
                }
                Some(input) => new.bind(op, inputs, ty, input),
                None => new.push(op, &inputs, ty),
            })
        });
    }
    pass.new.current_region = 0;
    let roots = roots.iter().map(|r| became[r.index()].one()).collect();
    (pass.new, roots)
}

impl World {
    /// Adds a node, or what stands for it.
    fn write_out(&mut self, op: &Op, inputs: &[Id], ty: TensorType) -> Id {
        match op.primitive() {
            Some(primitive) if primitive.expands() => primitive.expanded(self, inputs, &ty),
            _ => self.push(op.clone(), inputs, ty),
        }
    }
}

struct Expand {
    new: World,
}

impl Expand {
    /// The results of a scan of these inputs; `origin` is the number of its body's first node.
    fn steps(&mut self, scan: &Scan, inputs: &[Id], origin: u32) -> Vec<Id> {
        let body = &scan.body;
        let around = (self.new.current_origin, self.new.current_region);
        let mut carries: Vec<Id> = inputs[..body.carries].to_vec();
        let mut kept: Vec<Vec<Id>> = vec![Vec::with_capacity(scan.length); body.outputs.len() - body.carries];
        for step in 0..scan.length {
            let mut given: Vec<Id> = inputs.to_vec();
            given[..body.carries].copy_from_slice(&carries);
            for x in &mut given[body.carries..body.carries + body.scanned] {
                *x = self.element(*x, step);
            }
            // Each step's recompute regions are its own.
            let first_region = self.new.outer_regions.len() as u32;
            let region = |local: u32| if local == 0 { around.1 } else { first_region + local };
            self.new.outer_regions.extend(body.outer_regions.iter().map(|&outer| region(outer)));
            let mut became: Vec<Became> = Vec::with_capacity(body.nodes.len());
            let mut at = origin;
            for (node, op) in body.nodes.iter().zip(scan.ops_at(step)) {
                let value = |v: &Value| match *v {
                    Value::Input(i) => given[i],
                    Value::Node(n) => became[n].one(),
                };
                (self.new.current_origin, self.new.current_region) = (at, region(node.region));
                at += 1;
                let made = if let Some(inner) = as_scan(&op) {
                    let inputs: Vec<Id> = node.inputs.iter().map(value).collect();
                    let results = self.steps(inner, &inputs, at);
                    at += inner.body.size() as u32;
                    Became::Many(results)
                } else if let Some(index) = as_scan_of(&op) {
                    let Value::Node(whole) = node.inputs[0] else {
                        unreachable!("invariant: a scan in a body is a node of it")
                    };
                    Became::One(became[whole].result(index))
                } else {
                    let inputs: Ids = node.inputs.iter().map(value).collect();
                    Became::One(self.new.write_out(&op, &inputs, node.ty.clone()))
                };
                became.push(made);
            }
            (self.new.current_origin, self.new.current_region) = around;
            let results: Vec<Id> = body
                .outputs
                .iter()
                .map(|(v, _)| match *v {
                    Value::Input(i) => given[i],
                    Value::Node(n) => became[n].one(),
                })
                .collect();
            carries.copy_from_slice(&results[..body.carries]);
            kept.iter_mut().zip(&results[body.carries..]).for_each(|(all, &y)| all.push(y));
        }
        let stacked = kept.iter().zip(&body.outputs[body.carries..]).map(|(all, (_, ty))| {
            let shape = |n: usize| Shape::from([&[n], &ty.shape[..]].concat());
            let lifted: Vec<Id> = all.iter().map(|&y| self.new.reshape(y, shape(1))).collect();
            let whole = TensorType { shape: shape(scan.length), ..ty.clone() };
            match lifted[..] {
                [] => self.new.constant(0.0, whole),
                [one] => one,
                _ => self.new.push(Concat::new(0), &lifted, whole),
            }
        });
        let stacked: Vec<Id> = stacked.collect();
        carries.into_iter().chain(stacked).collect()
    }

    /// Element `step` of the first axis.
    fn element(&mut self, x: Id, step: usize) -> Id {
        let shape = self.new.shape(x).clone();
        let mut cuts: Cuts = smallvec::smallvec![Cut::WHOLE; shape.len()];
        cuts[0] = Cut::fixed(step);
        let one: SmallVec<[usize; 8]> = [&[1], &shape[1..]].concat().into_iter().collect();
        let ty = self.new.with_shape(x, Shape::from(&one[..]));
        let row = self.new.push(Movement::Slice(cuts), &[x], ty);
        self.new.reshape(row, Shape::from(&shape[1..]))
    }
}
