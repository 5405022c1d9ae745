//! Which parts of one block are free. Owns the arithmetic of taking and giving back; knows no memory.

use std::collections::{BTreeMap, BTreeSet};

/// Every range begins at a multiple of this many bytes and is a multiple of it long.
pub const GRAIN: u64 = 256;

/// The free ranges of one block: the smallest that fits is taken, neighbours are joined when one is given back.
#[derive(Clone, Debug)]
pub struct Ranges {
    size: u64,
    /// Length by offset.
    free: BTreeMap<u64, u64>,
    /// The same as (length, offset).
    by_length: BTreeSet<(u64, u64)>,
}

impl Ranges {
    /// All of `size` bytes, a multiple of [`GRAIN`], free.
    pub fn new(size: u64) -> Ranges {
        let mut ranges = Ranges { size, free: BTreeMap::new(), by_length: BTreeSet::new() };
        if size > 0 {
            ranges.insert(0, size);
        }
        ranges
    }

    /// The length of the free range that `take` would cut.
    pub fn fit(&self, length: u64) -> Option<u64> {
        self.by_length.range((length, 0)..).next().map(|&(found, _)| found)
    }

    /// Takes `length` bytes, a multiple of [`GRAIN`] and not 0; gives their offset.
    pub fn take(&mut self, length: u64) -> Option<u64> {
        let (found, offset) = *self.by_length.range((length, 0)..).next()?;
        self.remove(offset, found);
        if found > length {
            self.insert(offset + length, found - length);
        }
        Some(offset)
    }

    /// Gives back what `take` gave.
    pub fn give(&mut self, offset: u64, length: u64) {
        let (mut start, mut end) = (offset, offset + length);
        if let Some((&before, &long)) = self.free.range(..offset).next_back()
            && before + long == offset
        {
            self.remove(before, long);
            start = before;
        }
        if let Some(&long) = self.free.get(&end) {
            self.remove(end, long);
            end += long;
        }
        self.insert(start, end - start);
    }

    /// The longest free range.
    pub fn largest(&self) -> u64 {
        self.by_length.last().map_or(0, |&(length, _)| length)
    }

    /// Whether nothing is taken.
    pub fn is_unused(&self) -> bool {
        self.largest() == self.size
    }

    fn insert(&mut self, offset: u64, length: u64) {
        self.free.insert(offset, length);
        self.by_length.insert((length, offset));
    }

    fn remove(&mut self, offset: u64, length: u64) {
        self.free.remove(&offset);
        self.by_length.remove(&(length, offset));
    }
}
