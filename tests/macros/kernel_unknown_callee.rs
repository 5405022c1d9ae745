//! A call of a function that is no kernel.

use tapeflow::kernel;

fn plain(x: f32) -> f32 {
    x
}

#[kernel]
fn caller(x: f32) -> f32 {
    plain(x)
}

fn main() {}
