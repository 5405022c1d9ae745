//! Rows and scalars taken for one another; rustc sees the types of a row kernel's body.

use tapeflow::{Row, kernel};

#[kernel]
fn scalar_for_row(x: Row) -> Row {
    x.max()
}

#[kernel]
fn row_for_scalar(x: Row) -> f32 {
    x * 2.0
}

#[kernel]
fn a_mask_is_a_row(x: Row) -> f32 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

fn main() {}
