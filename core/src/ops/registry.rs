//! The list of operations, which generic tests walk.
