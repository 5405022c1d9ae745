//! Products of matrices: from a [`Matmul`] to shaders.

mod block;
mod dot;
mod emit;
mod product;
mod tile;
mod tiles;

pub(super) use emit::matmul;
