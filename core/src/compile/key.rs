//! Structural keys: the canonical encoding of a graph, and the cache of programs under it.
//! A hash finds a program, a full comparison confirms it; the least recently used go first when they take too many
//! bytes.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::{Arc, Mutex};

use crate::locks;
use crate::program::Program;

/// What makes two requests the same program: words written by [`KeyWriter`].
#[derive(Default, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub words: Vec<u64>,
}

/// Writes whatever can be hashed into a key, word by word: nothing is lost, so equal words are equal graphs.
pub(crate) struct KeyWriter<'k>(pub &'k mut Vec<u64>);

impl Hasher for KeyWriter<'_> {
    fn finish(&self) -> u64 {
        hash(self.0)
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.push(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0.push(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, v: u8) {
        self.0.push(u64::from(v));
    }
    fn write_u16(&mut self, v: u16) {
        self.0.push(u64::from(v));
    }
    fn write_u32(&mut self, v: u32) {
        self.0.push(u64::from(v));
    }
    fn write_u64(&mut self, v: u64) {
        self.0.push(v);
    }
    fn write_usize(&mut self, v: usize) {
        self.0.push(v as u64);
    }
    fn write_isize(&mut self, v: isize) {
        self.0.push(v as u64);
    }
}

/// FxHash's step (Firefox): one rotation, one exclusive or, one multiplication a word.
fn hash(words: &[u64]) -> u64 {
    words.iter().fold(0, |h: u64, &w| (h.rotate_left(5) ^ w).wrapping_mul(0x517c_c1b7_2722_0a95))
}

struct Entry {
    key: Key,
    program: Arc<Program>,
    used: u64,
}

/// Programs by key.
pub(crate) struct Cache {
    buckets: HashMap<u64, Vec<Entry>>,
    hash: fn(&[u64]) -> u64,
    clock: u64,
    bytes: usize,
    limit: usize,
    /// How many programs were ever added.
    inserted: u64,
}

impl Cache {
    fn new(limit: usize, hash: fn(&[u64]) -> u64) -> Cache {
        Cache { buckets: HashMap::new(), hash, clock: 0, bytes: 0, limit, inserted: 0 }
    }

    fn get(&mut self, key: &Key) -> Option<Arc<Program>> {
        self.clock += 1;
        let clock = self.clock;
        let entry = self.buckets.get_mut(&(self.hash)(&key.words))?.iter_mut().find(|e| e.key == *key)?;
        entry.used = clock;
        Some(entry.program.clone())
    }

    fn insert(&mut self, key: Key, program: Arc<Program>) {
        self.clock += 1;
        self.inserted += 1;
        self.bytes += size(&key, &program);
        let entry = Entry { key, program, used: self.clock };
        self.buckets.entry((self.hash)(&entry.key.words)).or_default().push(entry);
        while self.bytes > self.limit && self.len() > 1 {
            self.evict_oldest();
        }
    }

    fn len(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }

    fn evict_oldest(&mut self) {
        let oldest = self.buckets.iter().flat_map(|(h, es)| es.iter().map(|e| (e.used, *h))).min();
        if let Some((used, hash)) = oldest
            && let Some(entries) = self.buckets.get_mut(&hash)
            && let Some(at) = entries.iter().position(|e| e.used == used)
        {
            let entry = entries.swap_remove(at);
            self.bytes -= size(&entry.key, &entry.program);
            if entries.is_empty() {
                self.buckets.remove(&hash);
            }
        }
    }
}

fn size(key: &Key, program: &Program) -> usize {
    key.words.len() * 8 + program.footprint()
}

static CACHE: Mutex<Option<Cache>> = Mutex::new(None);
const LIMIT: usize = 256 << 20;

fn with_cache<T>(f: impl FnOnce(&mut Cache) -> T) -> T {
    let mut guard = locks::lock(&CACHE);
    f(guard.get_or_insert_with(|| Cache::new(LIMIT, hash)))
}

pub(crate) fn find(key: &Key) -> Option<Arc<Program>> {
    with_cache(|c| c.get(key))
}

pub(crate) fn insert(key: Key, program: Arc<Program>) {
    with_cache(|c| c.insert(key, program));
}

/// Puts every program of the process into one bucket, so that only the full comparison tells them apart.
pub fn collide_program_hashes() {
    with_cache(|c| {
        c.hash = |_| 0;
        let all: Vec<Entry> = c.buckets.drain().flat_map(|(_, entries)| entries).collect();
        c.buckets.insert(0, all);
    });
}

/// How many programs were ever compiled, and how many are kept.
pub(crate) fn counts() -> (u64, usize) {
    with_cache(|c| (c.inserted, c.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(words: &[u64]) -> Key {
        Key { words: words.to_vec() }
    }

    #[test]
    fn a_forced_hash_collision_still_finds_the_right_program() {
        let mut cache = Cache::new(usize::MAX, |_| 42);
        let (a, b) = (Arc::new(Program::empty()), Arc::new(Program::empty()));
        cache.insert(key(&[1, 2]), a.clone());
        cache.insert(key(&[2, 1]), b.clone());
        assert!(Arc::ptr_eq(&cache.get(&key(&[1, 2])).unwrap(), &a));
        assert!(Arc::ptr_eq(&cache.get(&key(&[2, 1])).unwrap(), &b));
        assert!(cache.get(&key(&[1])).is_none());
    }

    #[test]
    fn the_least_recently_used_program_goes_first() {
        let one = size(&key(&[0]), &Program::empty());
        let mut cache = Cache::new(2 * one, hash);
        cache.insert(key(&[1]), Arc::new(Program::empty()));
        cache.insert(key(&[2]), Arc::new(Program::empty()));
        assert!(cache.get(&key(&[1])).is_some());
        cache.insert(key(&[3]), Arc::new(Program::empty()));
        assert!(cache.get(&key(&[2])).is_none());
        assert!(cache.get(&key(&[1])).is_some() && cache.get(&key(&[3])).is_some());
    }
}
