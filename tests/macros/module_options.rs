//! Options that are misspelt, contradict each other or stand in the wrong place.

use tapeflow::{Buffer, Module, Parameter};

#[derive(Module)]
#[module(skip, foward = |x| x)]
struct Options {
    #[module(skp)]
    a: Parameter,
    #[module(rename = 3)]
    b: Parameter,
    #[module(rename = "x.y")]
    c: Parameter,
    #[module(skip, buffer)]
    d: Buffer,
    #[module(skip, rename = "f")]
    e: f32,
    #[module(rename = "a")]
    g: Parameter,
    #[module(forward = |x| x)]
    h: Parameter,
    #[module(recompute)]
    i: Parameter,
    #[module(recompute, skip)]
    j: f32,
}

fn main() {}
