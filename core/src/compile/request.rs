//! What one request copies of the tape, under its lock: the reachable graph in canonical order, its key, what is bound
//! to the program's inputs and slots, and which memory may be taken over. Knows no passes.

use std::hash::Hash;
use std::sync::Arc;

use super::FUSE;
use super::key::{self, Key, KeyWriter};
use super::regions::Regions;
use super::world::{Id, Ids, World};
use crate::buffer::Buffer;
use crate::device::Kind;
use crate::ops::detach::Detach;
use crate::ops::scan::as_scan;
use crate::profile::{Phase, Recorder, span};
use crate::program::Program;
use crate::tape::site::Site;
use crate::tape::{self, Inputs, Locked, NodeId};
use crate::tensor::Tensor;

/// What is copied of the tape for one request.
pub(super) struct Request {
    pub key: Key,
    /// The nodes in canonical order: each after its inputs.
    pub order: Vec<NodeId>,
    pub regions: Regions,
    /// Those whose values are wanted, as canonical numbers, and for each the bound input it replaces.
    pub wanted: Vec<(u32, Option<u32>)>,
    pub inputs: Vec<Arc<Buffer>>,
    /// Canonical numbers of the bound nodes.
    pub bound: Vec<u32>,
    pub scalars: Vec<u64>,
    /// Nodes that lent their buffers.
    pub taken: Vec<NodeId>,
    /// Canonical numbers of the nodes that are computed only because an update overwrites what they depend on.
    pub kept: Vec<u32>,
    /// Realised nodes whose graphs end with the buffers that are taken.
    pub ending: Vec<NodeId>,
    pub device: Kind,
    /// Whether every value is kept and looked at.
    pub checked: bool,
    /// The recording that is going on, and where each node was recorded.
    pub recorder: Option<Recorder>,
    pub sites: Vec<Site>,
}

/// What a request leads to: a program there is, or a graph to compile.
pub(super) enum Copied {
    Program(Arc<Program>),
    World(Box<World>, Vec<Id>),
}

/// Walks the graph under the lock; `None` if everything is there already.
pub(super) fn collect(
    asked: &[&Tensor],
    replaces: &[Option<NodeId>],
    device: Kind,
    checked: bool,
    recorder: Option<&Recorder>,
) -> Option<(Request, Copied)> {
    let _span = span(recorder, Phase::LookUp);
    let mut tape = tape::lock();
    let (order, donated) = loop {
        let roots: Vec<NodeId> = asked.iter().map(|t| t.node()).filter(|n| tape.buffer[n.index()].is_none()).collect();
        if roots.is_empty() && replaces.iter().all(Option::is_none) {
            return None;
        }
        // Only memory that nobody else names can be taken over.
        let sole = |n: &NodeId| tape.buffer[n.index()].as_ref().is_some_and(|b| Arc::strong_count(b) == 1);
        let donated: Vec<Option<NodeId>> = replaces.iter().map(|r| r.filter(sole)).collect();
        match walk(&mut tape, &roots, &donated) {
            Some(order) => break (order, donated),
            None => tape = tape.wait(),
        }
    };
    let mut request = Request {
        key: Key::default(),
        regions: Regions::of(&tape, &order),
        order,
        wanted: Vec::new(),
        inputs: Vec::new(),
        bound: Vec::new(),
        scalars: Vec::new(),
        taken: Vec::new(),
        kept: Vec::new(),
        ending: Vec::new(),
        device,
        checked,
        recorder: recorder.cloned(),
        sites: Vec::new(),
    };
    if recorder.is_some() {
        request.sites = sites(&tape, &request.order);
    }
    write_key(&tape, &mut request, asked, replaces, &donated);
    let found = key::find(&request.key);
    let copied = match found {
        Some(program) => Copied::Program(program),
        None => {
            let (world, roots) = copy(&tape, &request);
            Copied::World(Box::new(world), roots)
        }
    };
    // From here on the nodes must outlive their handles, and taken buffers must not be read by anybody else.
    for &(number, _) in &request.wanted {
        tape.pin(request.order[number as usize]);
    }
    for &node in donated.iter().flatten() {
        let replaced = tape.marked(node).and_then(|n| request.bound.binary_search(&n).ok());
        if replaced.is_some() {
            tape.flags[node.index()].taken = true;
            tape.lent += 1;
            tape.buffer[node.index()] = None;
            request.taken.push(node);
            tape.pin(node);
        }
    }
    if !request.taken.is_empty() {
        request.ending = depending_on(&mut tape, &request.taken, |tape, n| {
            tape.buffer[n.index()].is_some() || tape.flags[n.index()].handle
        });
        for &node in &request.ending {
            tape.pin(node);
        }
    }
    Some((request, copied))
}

/// Where the nodes were recorded, by canonical number; those of scans' bodies are numbered behind all others.
pub(super) fn sites(tape: &Locked, order: &[NodeId]) -> Vec<Site> {
    let bodies = order.iter().filter_map(|n| as_scan(&tape.op[n.index()])).map(|scan| &scan.body);
    let within = bodies.flat_map(|body| (0..body.size()).filter_map(|n| Some(body.node(n)?.site)));
    order.iter().map(|n| tape.site[n.index()]).chain(within).collect()
}

/// The nodes reachable from `roots`, inputs first, and from every live tensor that depends on a donated leaf: those
/// must be computed before the leaf is gone. `None`: another thread's program has taken a buffer that is needed.
fn walk(tape: &mut Locked, roots: &[NodeId], donated: &[Option<NodeId>]) -> Option<Vec<NodeId>> {
    let donated: Vec<NodeId> = donated.iter().flatten().copied().collect();
    let mut roots = roots.to_vec();
    if !donated.is_empty() {
        let live = |tape: &Locked, n: NodeId| tape.flags[n.index()].handle && tape.buffer[n.index()].is_none();
        roots.extend(depending_on(tape, &donated, live));
    }
    tape.begin_walk();
    const OPEN: u32 = u32::MAX;
    let mut order: Vec<NodeId> = Vec::new();
    let mut stack: Vec<NodeId> = roots.into_iter().rev().chain(donated).collect();
    while let Some(&node) = stack.last() {
        match tape.marked(node) {
            None => {
                if tape.flags[node.index()].taken {
                    return None;
                }
                tape.set_mark(node, OPEN);
                let inputs = Inputs::from_slice(&tape.inputs[node.index()]);
                stack.extend(inputs.iter().rev().filter(|i| tape.marked(**i).is_none()));
            }
            Some(OPEN) => {
                tape.set_mark(node, order.len() as u32);
                order.push(node);
                stack.pop();
            }
            Some(_) => {
                stack.pop();
            }
        }
    }
    Some(order)
}

/// The recorded nodes that depend on one of `leaves` and satisfy `is_wanted`, in order of recording.
pub(super) fn depending_on(
    tape: &mut Locked,
    leaves: &[NodeId],
    is_wanted: impl Fn(&Locked, NodeId) -> bool,
) -> Vec<NodeId> {
    tape.begin_walk();
    for &leaf in leaves {
        tape.set_mark(leaf, 0);
    }
    let recorded: Vec<NodeId> = tape.recorded().collect();
    let mut found = Vec::new();
    for node in recorded {
        if tape.inputs[node.index()].iter().any(|i| tape.marked(*i).is_some()) {
            tape.set_mark(node, 0);
            if is_wanted(tape, node) {
                found.push(node);
            }
        }
    }
    found
}

fn write_key(
    tape: &Locked,
    request: &mut Request,
    asked: &[&Tensor],
    replaces: &[Option<NodeId>],
    donated: &[Option<NodeId>],
) {
    let mut is_asked = vec![false; request.order.len()];
    for number in asked.iter().filter_map(|t| tape.marked(t.node())) {
        is_asked[number as usize] = true;
    }
    let keep_graphs = donated.iter().all(Option::is_none);
    let mut words = Vec::with_capacity(request.order.len() * 16);
    words.push(u64::from(FUSE.get()) | u64::from(request.checked) << 1);
    request.device.hash(&mut KeyWriter(&mut words));
    words.push(request.regions.outer.len() as u64);
    words.extend(request.regions.outer.iter().map(|&r| u64::from(r)));
    let kept_for_backward = request.regions.kept(tape, &request.order);
    for (number, &node) in request.order.iter().enumerate() {
        let i = node.index();
        let op = &tape.op[i];
        let arguments = op.arguments();
        op.hash(&mut KeyWriter(&mut words));
        request.scalars.extend(arguments);
        tape.ty[i].hash(&mut KeyWriter(&mut words));
        let region = u64::from(request.regions.at(number)) << 32;
        words.push(region | (tape.inputs[i].len() as u64) << 1 | u64::from(tape.flags[i].cut));
        words.extend(tape.inputs[i].iter().map(|&input| u64::from(tape.marked(input).unwrap_or(u32::MAX))));
        if let Some(buffer) = &tape.buffer[i] {
            request.bound.push(number as u32);
            request.inputs.push(buffer.clone());
            words.push(1);
            continue;
        }
        let flags = tape.flags[i];
        let primitive = op.primitive();
        let is_view = primitive.is_some_and(|p| p.is_view());
        let saved = keep_graphs && flags.grad && kept_for_backward[number] && primitive.is_some_and(|p| p.is_saved());
        if op.has_value() && (is_asked[number] || (flags.handle && (!is_view || !keep_graphs)) || saved) {
            words.push(2);
            request.wanted.push((number as u32, None));
            if !is_asked[number] && !keep_graphs {
                request.kept.push(number as u32);
            }
        } else {
            words.push(0);
        }
    }
    // Which leaf each updated tensor takes over.
    for (k, tensor) in asked.iter().enumerate() {
        let leaf = replaces.get(k).copied().flatten().filter(|l| donated.get(k).copied().flatten() == Some(*l));
        let (Some(leaf), Some(number)) = (leaf, tape.marked(tensor.node())) else { continue };
        let input = tape.marked(leaf).and_then(|n| request.bound.binary_search(&n).ok());
        let output = request.wanted.binary_search_by_key(&number, |w| w.0).ok();
        if let (Some(input), Some(output)) = (input, output) {
            request.wanted[output].1 = Some(input as u32);
            words.extend([3, u64::from(number), input as u64]);
        }
    }
    request.key = Key { words };
}

fn copy(tape: &Locked, request: &Request) -> (World, Vec<Id>) {
    let mut world = World::default();
    let mut ids: Vec<Id> = Vec::with_capacity(request.order.len());
    let mut slot = 0;
    for (number, &node) in request.order.iter().enumerate() {
        let i = node.index();
        world.current_origin = number as u32;
        world.current_region = request.regions.at(number);
        let op = tape.op[i].with_slots(slot);
        slot += tape.op[i].arguments().len();
        let mut inputs = Ids::new();
        for &input in &tape.inputs[i] {
            let Some(number) = tape.marked(input) else { continue };
            let id = ids[number as usize];
            // What was recorded under `no_grad` is a number to everything outside.
            let is_cut = tape.flags[input.index()].cut && !tape.inputs[input.index()].is_empty();
            inputs.push(match is_cut && !tape.flags[i].cut {
                true => world.push(Detach, &[id], tape.ty[input.index()].clone()),
                false => id,
            });
        }
        let ty = tape.ty[i].clone();
        let input = request.bound.binary_search(&(number as u32)).ok();
        ids.push(match input {
            Some(input) => world.bind(op, inputs, ty, input as u32),
            None => world.push(op, &inputs, ty),
        });
    }
    let roots = request.wanted.iter().map(|&(number, _)| ids[number as usize]).collect();
    world.current_region = 0;
    world.outer_regions.clone_from(&request.regions.outer);
    world.scalars = slot;
    world.given = request.bound.len();
    (world, roots)
}
