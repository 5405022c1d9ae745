//! A tensor's graph as text for Graphviz. Owns how a node is drawn; reads the tape only.

use std::fmt::Write;

use super::Tensor;
use crate::device::Kind;
use crate::dot::{Clusters, quoted};
use crate::ops::Op;
use crate::tape::{self, Locked, NodeId, TensorType};

/// What is drawn of a node.
struct Drawn {
    label: Vec<String>,
    ty: TensorType,
    /// The module that it is drawn in.
    path: String,
    style: &'static str,
    inputs: Vec<u32>,
}

impl Tensor {
    /// What this value is computed from, in Graphviz's language: a box per node with its operation, dtype and shape,
    /// modules as clusters, arrows from operands to results. `dot -Tsvg` draws it.
    ///
    /// A dashed box has not been computed yet, a filled one has; a parameter's is blue and bears its path; one with red
    /// letters stands for gradients, which become operations when they are computed. Nothing is computed by drawing.
    ///
    /// ```
    /// use tapeflow_core::Tensor;
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0], [2]);
    /// assert_eq!(
    ///     x.exp().sum().to_dot(),
    ///     r##"digraph {
    ///   node [shape=box];
    ///   n0 [label="leaf\nf32 (2,)", style=filled, fillcolor="#eeeeee"];
    ///   n1 [label="exp\nf32 (2,)", style=dashed];
    ///   n2 [label="sum [0]\nf32 ()", style=dashed, penwidth=2];
    ///   n0 -> n1;
    ///   n1 -> n2;
    /// }
    /// "##
    /// );
    /// ```
    pub fn to_dot(&self) -> String {
        let mut nodes = drawn(self);
        if let (Some(mistake), Some(root)) = (&self.0.mistake, nodes.last_mut()) {
            root.label = vec!["mistake".into(), mistake.error.to_string()];
            root.style = "style=dashed, color=red3, fontcolor=red3";
        }
        let mut clusters = Clusters::default();
        for (number, node) in nodes.iter().enumerate() {
            let mut lines = node.label.clone();
            lines.push(crate::compile::describe(&node.ty));
            if node.ty.device.0 != Kind::Cpu {
                lines.push(format!("on {}", node.ty.device));
            }
            let root = if number + 1 == nodes.len() { ", penwidth=2" } else { "" };
            let statement = format!("n{number} [label={}, {}{root}];", quoted(&lines.join("\n")), node.style);
            clusters.add(&node.path, statement);
        }
        let mut text = String::from("digraph {\n  node [shape=box];\n");
        clusters.write(&mut text);
        for (number, node) in nodes.iter().enumerate() {
            for input in &node.inputs {
                // Writing into a String cannot fail.
                let _ = writeln!(text, "  n{input} -> n{number};");
            }
        }
        text.push_str("}\n");
        text
    }
}

/// The nodes that `tensor` depends on, each after its inputs; itself last.
fn drawn(tensor: &Tensor) -> Vec<Drawn> {
    const OPEN: u32 = u32::MAX;
    let mut tape = tape::lock();
    tape.begin_walk();
    let mut nodes: Vec<Drawn> = Vec::new();
    let mut stack = vec![tensor.node()];
    while let Some(&node) = stack.last() {
        match tape.marked(node) {
            None => {
                tape.set_mark(node, OPEN);
                let inputs = tape.inputs[node.index()].clone();
                stack.extend(inputs.iter().rev().filter(|i| tape.marked(**i).is_none()));
            }
            Some(OPEN) => {
                tape.set_mark(node, nodes.len() as u32);
                nodes.push(draw(&tape, node));
                stack.pop();
            }
            Some(_) => {
                stack.pop();
            }
        }
    }
    nodes
}

fn draw(tape: &Locked, node: NodeId) -> Drawn {
    let i = node.index();
    let (flags, path) = (tape.flags[i], tape.site[i].path.to_string());
    let inputs: Vec<u32> = tape.inputs[i].iter().filter_map(|&input| tape.marked(input)).collect();
    // A leaf's memory is lent while a program changes it.
    let is_there = tape.buffer[i].is_some() || flags.taken;
    let mut label = tape.op[i].name().into_owned();
    let style = match (&tape.op[i], is_there) {
        (Op::Gradient(_) | Op::GradientOf(_), false) => "style=dashed, fontcolor=red3",
        (Op::Gradient(_) | Op::GradientOf(_), true) => "style=filled, fillcolor=\"#eeeeee\", fontcolor=red3",
        (_, false) => "style=dashed",
        (_, true) => "style=filled, fillcolor=\"#eeeeee\"",
    };
    if let (Some(owner), true) = (&tape.owner[i], inputs.is_empty()) {
        let own = owner.path();
        let module = own.rsplit_once('.').map_or("", |(module, _)| module).to_owned();
        let name = if own.is_empty() { "leaf with gradient".to_owned() } else { own };
        let kind = if flags.grad { "" } else { " (frozen)" };
        let style = if is_there { "style=filled, fillcolor=\"#cfe2f3\"" } else { style };
        return Drawn { label: vec![name + kind], ty: tape.ty[i].clone(), path: module, style, inputs };
    }
    let mut lines = Vec::new();
    if inputs.is_empty() && (flags.released || flags.lost) {
        label = "computed".into();
        lines.push("its graph is dropped".to_owned());
    }
    if flags.cut && !inputs.is_empty() {
        lines.push("no_grad".to_owned());
    }
    lines.insert(0, label);
    Drawn { label: lines, ty: tape.ty[i].clone(), path, style, inputs }
}
