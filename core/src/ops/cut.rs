//! Cuts: what a slice takes of each axis, and where it starts: as the shapes say, or as the host says. Owns where the
//! host's starts are kept on the tape, in a program and in a captured step.

use smallvec::SmallVec;

use super::Arguments;
use super::host::Host;
use crate::capture::{HostCell, Origin};

/// What a slice takes of one axis: every `step`th element from `start` on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cut {
    pub start: Start,
    pub step: usize,
}

/// One per axis.
pub(crate) type Cuts = SmallVec<[Cut; 2]>;

/// Where a slice starts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Start {
    /// Where the shapes say: the whole axis, one part of a concatenation, behind a padding.
    Fixed(usize),
    /// Where the host says: the same program serves every start.
    Host(Host<Given>),
}

/// A start that the host gives.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub start: usize,
    /// The cell that says where it is when a captured step runs again, and how far at most.
    pub cell: Option<Box<(HostCell, usize)>>,
}

impl Cut {
    /// The whole axis.
    pub const WHOLE: Cut = Cut::fixed(0);

    /// From a place that the shapes determine.
    pub const fn fixed(start: usize) -> Cut {
        Cut { start: Start::Fixed(start), step: 1 }
    }

    /// Where it starts, if the shapes say so and it leaves nothing out.
    pub fn plain(&self) -> Option<usize> {
        self.fixed_start().filter(|_| self.step == 1)
    }

    /// Where it starts, if the shapes say so.
    pub fn fixed_start(&self) -> Option<usize> {
        match self.start {
            Start::Fixed(start) => Some(start),
            Start::Host(_) => None,
        }
    }

    /// From a place that the host gives.
    pub const fn from_host(start: Given) -> Cut {
        Cut { start: Start::Host(Host::Value(start)), step: 1 }
    }

    fn start(&self, arguments: &[u64]) -> usize {
        match &self.start {
            Start::Fixed(start) => *start,
            Start::Host(start) => arguments[start.slot()] as usize,
        }
    }

    /// Which element of the axis is element `at` of the slice.
    pub fn place(&self, at: usize, arguments: &[u64]) -> usize {
        self.start(arguments) + at * self.step
    }
}

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.start {
            Start::Fixed(start) => write!(f, "{start}..")?,
            Start::Host(Host::Value(start)) => write!(f, "{}..", start.start)?,
            Start::Host(Host::Slot(slot)) => write!(f, "s{slot}..")?,
        }
        if self.step == 1 { Ok(()) } else { write!(f, "/{}", self.step) }
    }
}

/// The starts among `cuts` that the host gives.
pub(crate) fn starts_given<'c>(cuts: impl Iterator<Item = &'c Cut>) -> Arguments {
    let given = cuts.filter_map(|cut| match &cut.start {
        Start::Host(Host::Value(start)) => Some(start.start as u64),
        _ => None,
    });
    given.collect()
}

/// Where they come from when a captured program runs again.
pub(crate) fn origins_of<'c>(cuts: impl Iterator<Item = &'c Cut>) -> SmallVec<[Origin; 2]> {
    let given = cuts.filter_map(|cut| match &cut.start {
        Start::Host(Host::Value(given)) => Some(match given.cell.as_deref() {
            Some((cell, most)) => Origin::Start(cell.clone(), *most),
            None => Origin::Fixed,
        }),
        _ => None,
    });
    given.collect()
}

/// Lets `cuts` read the starts that the host gives from slot `first` on.
pub(crate) fn bind_starts<'c>(cuts: impl Iterator<Item = &'c mut Cut>, first: usize) {
    let given = cuts.filter(|cut| matches!(cut.start, Start::Host(_)));
    given.enumerate().for_each(|(i, cut)| cut.start = Start::Host(Host::Slot(first + i)));
}
