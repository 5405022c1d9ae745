//! Expansions of `#[derive(Module)]` as snapshots, and its errors.

mod borrowing;
mod errors;
mod forward;
mod visit;

use super::module;
