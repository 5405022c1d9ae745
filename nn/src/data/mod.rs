//! From numbers in memory to batches: token streams, and the thread that prepares the next batch meanwhile.
//!
//! A batch is a pure function of (seed, step): what was trained on does not depend on how fast the loader was.

mod loader;
mod tokens;

pub use loader::Loader;
pub use tokens::{Blocks, Split, TokenDataset};
