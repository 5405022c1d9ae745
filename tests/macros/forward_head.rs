//! Forwards that are no closure of tensors.

use tapeflow::{Module, Parameter};

#[derive(Module)]
#[module(forward = weight)]
struct NoClosure {
    weight: Parameter,
}

#[derive(Module)]
#[module(forward)]
struct Missing;

#[derive(Module)]
#[module(forward = || 1.0)]
struct NoInput;

#[derive(Module)]
#[module(forward = move |(a, b)| a)]
struct Patterns;

#[derive(Module)]
#[module(forward = |x| x + )]
struct Unfinished;

fn main() {}
