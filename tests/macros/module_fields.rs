//! Fields that hold no parameters.

use std::collections::HashMap;

use tapeflow::{Module, Parameter, Tensor};

#[derive(Module)]
struct Fields {
    n_head: usize,
    names: Vec<String>,
    activation: fn(&Tensor) -> Tensor,
    table: Tensor,
    by_name: HashMap<String, Parameter>,
    pair: (Parameter, bool),
    weight: Parameter,
}

fn main() {}
