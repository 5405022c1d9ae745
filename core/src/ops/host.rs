//! Host values: what the host gives a program each time it runs, so that it is no part of the program's key.
//! Owns that rule; what the values are used for stands with the operations.

use std::hash::{Hash, Hasher};

/// Where a host value is: with the node while it is on the tape, in a slot once it is part of a program.
#[derive(Clone, Debug)]
pub(crate) enum Host<T> {
    Value(T),
    Slot(usize),
}

// Equality and hash see the slot alone: a host value is no part of a program's key.
impl<T> PartialEq for Host<T> {
    fn eq(&self, other: &Self) -> bool {
        matches!((self, other), (Host::Slot(a), Host::Slot(b)) if a == b)
    }
}
impl<T> Eq for Host<T> {}
impl<T> Hash for Host<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Host::Slot(slot) = self {
            slot.hash(state);
        }
    }
}

impl<T> Host<T> {
    /// Where the value is while a program runs.
    pub fn slot(&self) -> usize {
        match self {
            Host::Slot(slot) => *slot,
            Host::Value(_) => unreachable!("invariant: a compilation world's host values are bound to slots"),
        }
    }
}
