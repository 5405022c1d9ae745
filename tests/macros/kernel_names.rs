//! Names that are no local and no constant.

use tapeflow::kernel;

#[kernel]
fn misspelt(scale: f32) -> f32 {
    scal * 2.0
}

#[kernel]
fn lower_case_constant(x: f32) -> f32 {
    x * factor
}

#[kernel]
fn a_value_is_no_function(x: f32) -> f32 {
    x(1.0)
}

#[kernel]
fn tuples(x: f32) -> (f32, f32) {
    let (a, b, c) = (x, x);
    (a, b, c)
}

fn main() {}
