//! Field names that are not called, and calls of what has no forward.

use tapeflow::{Forward, Module, Parameter, Tensor};

#[derive(Module)]
#[module(forward = |x| x)]
struct Identity;

#[derive(Module)]
#[module(forward = |x| {
    let y = weight.tensor();
    x = identity(x);
    identity() + weight(x) + stages(y)
})]
struct Body {
    identity: Identity,
    weight: Parameter,
    stages: Vec<Vec<Identity>>,
}

fn run(body: &Body, x: &Tensor) -> Tensor {
    body.forward(x)
}

fn main() {}
