//! Modules are structs.

use tapeflow::Module;

#[derive(Module)]
enum Either {
    Left,
    Right,
}

#[derive(Module)]
union Bits {
    float: f32,
    int: u32,
}

fn main() {}
