//! From samples to batches: data sets, token streams, and the thread that prepares the next batch meanwhile.
//!
//! A batch is a pure function of (seed, step): what was trained on does not depend on how fast the loader was.

mod collate;
mod data_loader;
mod dataset;
mod draw;
mod loader;
mod tokens;

pub use collate::{Cells, Collate};
pub use data_loader::DataLoader;
pub use dataset::Dataset;
pub use loader::Loader;
pub use tokens::{Blocks, Split, TokenDataset};
