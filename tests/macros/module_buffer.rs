//! A buffer that is none.

use tapeflow::{Module, Parameter};

#[derive(Module)]
struct Norm {
    #[module(buffer)]
    mean: Parameter,
}

fn main() {}
