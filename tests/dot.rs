//! Graphs in Graphviz's language: modules as clusters, and what was computed told from what was not.

use expect_test::{Expect, expect};
use tapeflow::prelude::*;
use tapeflow::{ModuleExt, Result};

#[derive(Module)]
#[module(forward = |x| out(act(hidden(x))))]
struct Net {
    hidden: Linear,
    act: Tanh,
    out: Linear,
}

#[derive(Module)]
#[module(forward = |x| nets(x))]
struct Pair {
    nets: Vec<Net>,
}

fn net() -> Result<Net> {
    let generator = Generator::new(3);
    Ok(Net { hidden: Linear::drawn(2, 8, &generator)?, act: Tanh, out: Linear::drawn(8, 1, &generator)? })
}

fn data() -> (Tensor, Tensor) {
    (Tensor::ones([4, 2], DType::F32), Tensor::ones([4, 1], DType::F32))
}

fn check(tensor: &Tensor, expected: Expect) {
    expected.assert_eq(&tensor.to_dot());
}

/// The lines that begin with a node's number and its label.
fn boxes(dot: &str) -> Vec<&str> {
    dot.lines().map(str::trim).filter(|line| line.starts_with('n') && line.contains("[label=")).collect()
}

#[test]
fn a_loss_is_drawn_with_its_modules_as_clusters() -> Result<()> {
    let net = net()?;
    net.stamp_paths();
    let (x, y) = data();
    x.realize()?;
    check(
        &net.forward(&x).mse_loss(&y),
        expect![[r##"
        digraph {
          node [shape=box];
          n0 [label="constant 1\nf32 (4, 2)", style=filled, fillcolor="#eeeeee"];
          n12 [label="constant 1\nf32 (4, 1)", style=dashed];
          n13 [label="sub\nf32 (4, 1)", style=dashed];
          n14 [label="square\nf32 (4, 1)", style=dashed];
          n15 [label="sum [0, 1]\nf32 ()", style=dashed];
          n16 [label="scalar\nf32 ()", style=dashed];
          n17 [label="div\nf32 ()", style=dashed, penwidth=2];
          subgraph "cluster_hidden" {
            label="hidden";
            n1 [label="hidden.weight\nf32 (8, 2)", style=filled, fillcolor="#cfe2f3"];
            n2 [label="permute [1, 0]\nf32 (2, 8)", style=dashed];
            n3 [label="matmul\nf32 (4, 8)", style=dashed];
            n4 [label="hidden.bias\nf32 (8,)", style=filled, fillcolor="#cfe2f3"];
            n5 [label="add\nf32 (4, 8)", style=dashed];
          }
          subgraph "cluster_act" {
            label="act";
            n6 [label="tanh\nf32 (4, 8)", style=dashed];
          }
          subgraph "cluster_out" {
            label="out";
            n7 [label="out.weight\nf32 (1, 8)", style=filled, fillcolor="#cfe2f3"];
            n8 [label="permute [1, 0]\nf32 (8, 1)", style=dashed];
            n9 [label="matmul\nf32 (4, 1)", style=dashed];
            n10 [label="out.bias\nf32 (1,)", style=filled, fillcolor="#cfe2f3"];
            n11 [label="add\nf32 (4, 1)", style=dashed];
          }
          n1 -> n2;
          n0 -> n3;
          n2 -> n3;
          n3 -> n5;
          n4 -> n5;
          n5 -> n6;
          n7 -> n8;
          n6 -> n9;
          n8 -> n9;
          n9 -> n11;
          n10 -> n11;
          n11 -> n13;
          n12 -> n13;
          n13 -> n14;
          n14 -> n15;
          n15 -> n17;
          n16 -> n17;
        }
    "##]],
    );
    Ok(())
}

#[test]
fn clusters_lie_in_each_other() -> Result<()> {
    let pair = Pair { nets: vec![net()?] };
    let dot = pair.forward(&data().0).to_dot();
    let clusters: Vec<&str> = dot.lines().map(str::trim).filter(|line| line.starts_with("subgraph")).collect();
    assert_eq!(clusters.len(), 5, "{dot}");
    let at = |text: &str| dot.find(text).unwrap_or_else(|| panic!("{text} in {dot}"));
    assert!(
        at("\"cluster_nets\"") < at("\"cluster_nets.0\"") && at("\"cluster_nets.0\"") < at("\"cluster_nets.0.out\"")
    );
    Ok(())
}

#[test]
fn what_was_computed_is_filled_and_says_if_its_graph_is_gone() -> Result<()> {
    let x = Tensor::from_vec(vec![1f32, 2.0], [2]);
    let doubled = &x * 2.0;
    let waiting = doubled.to_dot();
    doubled.realize()?;
    check(
        &(&doubled + &x),
        expect![[r##"
        digraph {
          node [shape=box];
          n0 [label="computed\nits graph is dropped\nf32 (2,)", style=filled, fillcolor="#eeeeee"];
          n1 [label="leaf\nf32 (2,)", style=filled, fillcolor="#eeeeee"];
          n2 [label="add\nf32 (2,)", style=dashed, penwidth=2];
          n0 -> n2;
          n1 -> n2;
        }
    "##]],
    );
    assert!(waiting.contains("mul") && !doubled.to_dot().contains("mul"));
    Ok(())
}

#[test]
fn gradients_are_drawn_as_what_they_stand_for() -> Result<()> {
    let w = Tensor::from_vec(vec![1f32, 2.0], [2]).with_grad()?;
    let slope = grad(&w.square().sum(), &[&w])?.remove(0);
    check(
        &slope,
        expect![[r##"
            digraph {
              node [shape=box];
              n0 [label="leaf with gradient\nf32 (2,)", style=filled, fillcolor="#cfe2f3"];
              n1 [label="square\nf32 (2,)", style=dashed];
              n2 [label="sum [0]\nf32 ()", style=dashed];
              n3 [label="gradient\nf32 ()", style=dashed, fontcolor=red3];
              n4 [label="gradient of 0\nf32 (2,)", style=dashed, fontcolor=red3, penwidth=2];
              n0 -> n1;
              n1 -> n2;
              n2 -> n3;
              n0 -> n3;
              n3 -> n4;
            }
        "##]],
    );
    slope.realize()?;
    assert!(slope.to_dot().contains("style=filled"));
    Ok(())
}

#[test]
fn frozen_parameters_and_no_grad_are_said() -> Result<()> {
    let frozen = Parameter::new(Tensor::from_vec(vec![1f32], [1]))?;
    frozen.freeze(true)?;
    check(
        &no_grad(|| frozen.tensor() + 1.0),
        expect![[r##"
            digraph {
              node [shape=box];
              n0 [label="leaf with gradient (frozen)\nf32 (1,)", style=filled, fillcolor="#cfe2f3"];
              n1 [label="scalar\nf32 ()", style=dashed];
              n2 [label="add\nno_grad\nf32 (1,)", style=dashed, penwidth=2];
              n0 -> n2;
              n1 -> n2;
            }
        "##]],
    );
    Ok(())
}

#[test]
fn a_mistake_is_drawn_in_place_of_the_value() {
    let (x, _) = data();
    let dot = (x.matmul(&Tensor::ones([3, 16], DType::F32)) + 1.0).to_dot();
    let drawn = boxes(&dot);
    assert_eq!(drawn.len(), 1, "{dot}");
    assert!(drawn[0].starts_with("n0 [label=\"mistake\\nmatmul: the shapes (4, 2) and (3, 16)"), "{dot}");
}

#[test]
fn drawing_is_deterministic_computes_nothing_and_takes_no_stack() -> Result<()> {
    let (x, _) = data();
    let mut y = x.clone();
    for _ in 0..15_000 {
        y = y.exp();
    }
    let dot = y.to_dot();
    assert_eq!(dot, y.to_dot());
    assert_eq!(dot.matches("label=\"exp").count(), 15_000);
    assert!(!boxes(&dot).last().unwrap().contains("filled"), "nothing is computed");
    Ok(())
}
