//! Signatures that are no kernel's.

use tapeflow::{Row, kernel};

#[kernel]
async fn asynchronous(x: f32) -> f32 {
    x
}

#[kernel]
fn generic<T>(x: T) -> T {
    x
}

#[kernel]
fn no_result(x: f32) {
    x;
}

#[kernel]
fn nothing() -> f32 {
    1.0
}

#[kernel]
fn references(x: &f32, y: &[f32]) -> f32 {
    *x + y[0]
}

#[kernel]
fn two_floats(x: f32, y: f64) -> f32 {
    x + y as f32
}

#[kernel]
fn unknown_types(x: f32, n: usize, name: String) -> f32 {
    x
}

#[kernel]
fn a_row_of_nothing(x: f32) -> Row {
    x
}

#[kernel(fast)]
fn arguments(x: f32) -> f32 {
    x
}

#[kernel]
struct NotAFunction;

fn main() {}
