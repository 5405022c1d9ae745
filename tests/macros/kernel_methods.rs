//! Methods that are misspelt, miscounted or not there.

use tapeflow::{Row, kernel};

#[kernel]
fn misspelt(x: f32) -> f32 {
    x.sqr() + x.log1p() + x.pow_i(2) + x.square() + x.frobnicate()
}

#[kernel]
fn miscounted(x: f32) -> f32 {
    x.powi() + x.exp(2.0) + x.mul_add(x)
}

#[kernel]
fn reduces_an_element(x: f32) -> f32 {
    x.sum() + x.max()
}

#[kernel]
fn miscounted_row(x: Row) -> Row {
    x.max(1.0, 2.0) + x.maen()
}

fn main() {}
