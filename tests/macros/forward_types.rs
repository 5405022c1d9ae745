//! Mistakes that only types show are reported where the user wrote them.

use tapeflow::{Module, Parameter, Tensor};

#[derive(Module)]
struct NoForward {
    weight: Parameter,
}

#[derive(Module)]
#[module(forward = |x| inner(x))]
struct Outer {
    inner: NoForward,
}

#[derive(Module)]
#[module(forward = |x| { let n = x.ndim(); n })]
struct WrongResult;

#[derive(Module)]
#[module(forward = |x, n: usize| inner(x, n))]
struct Gpt {
    inner: WrongArguments,
}

#[derive(Module)]
#[module(forward = |x, y: &Tensor| x + y)]
struct WrongArguments;

fn main() {}
