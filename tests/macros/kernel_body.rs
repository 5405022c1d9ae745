//! Expressions that no kernel has.

use tapeflow::kernel;

#[kernel]
fn loops(x: f32) -> f32 {
    let mut sum = 0.0;
    for i in 0..3 {
        sum += x;
    }
    while sum < 1.0 {
        sum += x;
    }
    sum
}

#[kernel]
fn flow(x: f32, n: i32) -> f32 {
    if x > 0.0 {
        return x;
    }
    match n {
        0 => x,
        _ => 1.0,
    }
}

#[kernel]
fn data(x: f32) -> f32 {
    let list = [x, x];
    let text = "text";
    println!("{x}");
    let borrowed = &x;
    let index = x as usize;
    list[index]
}

#[kernel]
fn no_value(x: f32) -> f32 {
    x * 2.0;
}

#[kernel]
fn recursion(x: f32) -> f32 {
    recursion(x - 1.0)
}

fn main() {}
