//! Where an operation was recorded: the source location of the call and the path of the module it was made in.
//! Owns the thread's current module path and the interning of paths; knows no nodes.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::{LazyLock, Mutex};

use crate::locks;

/// A module path such as `h.3.mlp.fc`, interned; 0 is the empty path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct PathId(u32);

/// One step of a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Segment {
    Name(&'static str),
    Index(usize),
}

#[derive(Default)]
struct Paths {
    children: HashMap<(PathId, Segment), PathId>,
    parents: Vec<(PathId, Segment)>,
}

static PATHS: LazyLock<Mutex<Paths>> = LazyLock::new(Mutex::default);

thread_local! {
    static CURRENT: Cell<PathId> = const { Cell::new(PathId(0)) };
    /// The last child entered from a path, so that a steady forward takes no lock.
    static RECENT: std::cell::RefCell<HashMap<(PathId, Segment), PathId>> = std::cell::RefCell::default();
}

impl PathId {
    pub(crate) fn current() -> PathId {
        CURRENT.get()
    }

    fn child(self, segment: Segment) -> PathId {
        RECENT.with_borrow_mut(|recent| {
            *recent.entry((self, segment)).or_insert_with(|| {
                let mut paths = locks::lock(&PATHS);
                let next = PathId(paths.parents.len() as u32 + 1);
                let id = *paths.children.entry((self, segment)).or_insert(next);
                if id == next {
                    paths.parents.push((self, segment));
                }
                id
            })
        })
    }
}

/// How many paths were ever entered.
pub(crate) fn interned() -> usize {
    locks::lock(&PATHS).parents.len()
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut segments = Vec::new();
        {
            let paths = locks::lock(&PATHS);
            let mut at = *self;
            while at.0 != 0 {
                let (parent, segment) = paths.parents[at.0 as usize - 1];
                segments.push(segment);
                at = parent;
            }
        }
        for (i, segment) in segments.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            match segment {
                Segment::Name(name) => f.write_str(name)?,
                Segment::Index(index) => write!(f, "{index}")?,
            }
        }
        Ok(())
    }
}

/// Keeps a path segment entered until it is dropped.
#[must_use = "the scope ends when this is dropped"]
pub struct Scope {
    outer: PathId,
    // Leaving a scope on another thread would corrupt both threads' paths.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

fn enter(segments: &[Segment]) -> Scope {
    let outer = CURRENT.get();
    CURRENT.set(segments.iter().fold(outer, |at, &s| at.child(s)));
    Scope { outer, _not_send: std::marker::PhantomData }
}

/// Enters the submodule `name` on this thread: what is recorded until the scope drops carries its path.
pub fn scope(name: &'static str) -> Scope {
    enter(&[Segment::Name(name)])
}

/// Enters element `index` of the list of submodules `name`.
pub fn scope_index(name: &'static str, index: usize) -> Scope {
    enter(&[Segment::Name(name), Segment::Index(index)])
}

/// Where an operation was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub location: &'static Location<'static>,
    pub path: PathId,
}

impl Site {
    #[track_caller]
    pub(crate) fn here() -> Site {
        Site { location: Location::caller(), path: PathId::current() }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.location)?;
        if self.path != PathId::default() {
            write!(f, " in {}", self.path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_nest_and_unwind() {
        assert_eq!(PathId::current().to_string(), "");
        {
            let _h = scope_index("h", 3);
            let _mlp = scope("mlp");
            assert_eq!(PathId::current().to_string(), "h.3.mlp");
        }
        assert_eq!(PathId::current().to_string(), "");
    }
}
