//! Which machine register holds which value while a body is written out: values enter when they are first needed, and
//! the one needed last gives way (Belady 1966). Owns the books; `emit` writes the instructions.

use std::ops::Range;

use super::record::{Id, Kind, Micro};

/// What must be done so that a register can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// Nothing: its value is not needed, or can be had again from memory.
    Dropped,
    /// Its value goes to this place of the frame first.
    Spilled(usize),
}

/// A set of registers of one kind.
#[derive(Debug)]
struct File {
    /// Numbers that may be given out.
    numbers: Vec<u8>,
    /// Value in each register.
    holds: [Option<Id>; 32],
}

impl File {
    fn new(numbers: impl Iterator<Item = u8>) -> File {
        File { numbers: numbers.collect(), holds: [None; 32] }
    }
}

/// The books of one body.
#[derive(Debug)]
pub struct Registers {
    /// Of vectors, and of masks if they have registers of their own.
    files: [File; 2],
    /// Register of each value.
    at: Vec<Option<u8>>,
    /// Place in the frame of each spilled value.
    spilled: Vec<Option<usize>>,
    /// What each operation reads.
    operands: Vec<[Option<Id>; 3]>,
    /// Those of the current operation.
    temporaries: Vec<Id>,
    /// Where values are read, those of one side by side and backwards: the next is last.
    reads: Vec<usize>,
    /// Each value's reads that are still to come.
    uses: Vec<Range<usize>>,
    /// Whether each value can be had from memory.
    in_memory: Vec<bool>,
    frame: usize,
    /// Values that must stay where they are while an operation is written.
    locked: Vec<Id>,
}

impl Registers {
    /// For a body; vector registers from `vectors` on and mask registers from `masks` on are taken. Without mask
    /// registers masks lie in vector registers.
    pub fn new(micros: &[Micro], vectors: u8, masks: u8) -> Registers {
        let operands: Vec<_> = micros.iter().map(Micro::operands).collect();
        let mut uses = vec![0..0; micros.len()];
        operands.iter().flatten().flatten().for_each(|&id| uses[id as usize].end += 1);
        let mut at = 0;
        for uses in &mut uses {
            let count = uses.end;
            *uses = at..at;
            at += count;
        }
        let mut reads = vec![0; at];
        for (index, operands) in operands.iter().enumerate().rev() {
            for &id in operands.iter().flatten() {
                let end = &mut uses[id as usize].end;
                reads[*end] = index;
                *end += 1;
            }
        }
        Registers {
            files: [File::new(0..vectors), File::new(1..masks)],
            at: vec![None; micros.len()],
            spilled: vec![None; micros.len()],
            operands,
            temporaries: Vec::new(),
            reads,
            uses,
            in_memory: micros.iter().map(|m| matches!(m, Micro::Load(..) | Micro::Constant(_))).collect(),
            frame: 0,
            locked: Vec::new(),
        }
    }

    /// Begins the writing of operation `index`: what was read last before it gives its register back.
    pub fn begin(&mut self, index: usize) {
        let before = index.checked_sub(1);
        let read = before.map_or([None; 3], |before| self.operands[before]);
        let ended = read.into_iter().flatten().chain(before.map(|before| before as Id));
        let temporaries = std::mem::take(&mut self.temporaries);
        for id in ended.chain(temporaries) {
            while self.next(id).is_some_and(|at| at < index) {
                self.uses[id as usize].end -= 1;
            }
            if self.next(id).is_none() && self.at[id as usize].take().is_some() {
                for file in &mut self.files {
                    file.holds.iter_mut().filter(|held| **held == Some(id)).for_each(|held| *held = None);
                }
            }
        }
        self.locked.clear();
    }

    /// Where a value is read next.
    fn next(&self, id: Id) -> Option<usize> {
        self.reads[self.uses[id as usize].clone()].last().copied()
    }

    /// Where what is of this kind lies.
    fn file(&self, kind: Kind) -> usize {
        usize::from(kind == Kind::Mask && !self.files[1].numbers.is_empty())
    }

    /// The register of a value, which stays there until the next `begin`.
    pub fn find(&mut self, id: Id) -> Option<u8> {
        self.locked.push(id);
        self.at[id as usize]
    }

    /// The place of a spilled value.
    pub fn spilled(&self, id: Id) -> Option<usize> {
        self.spilled[id as usize]
    }

    /// Gives a register to `id`, and says what becomes of what was in it; `None` if all are locked.
    pub fn take(&mut self, id: Id, kind: Kind) -> Option<(u8, Evicted)> {
        let at = self.file(kind);
        let file = &self.files[at];
        let free = file.numbers.iter().copied().find(|&n| file.holds[n as usize].is_none());
        let (number, evicted) = match free {
            Some(number) => (number, Evicted::Dropped),
            None => {
                let candidates = file.numbers.iter().filter_map(|&n| Some((n, file.holds[n as usize]?)));
                let (number, victim) = candidates
                    .filter(|(_, held)| !self.locked.contains(held))
                    .max_by_key(|(_, held)| self.next(*held).unwrap_or(usize::MAX))?;
                let victim = victim as usize;
                self.at[victim] = None;
                let lost =
                    !self.in_memory[victim] && self.spilled[victim].is_none() && self.next(victim as Id).is_some();
                if lost {
                    self.spilled[victim] = Some(self.frame);
                    self.frame += 1;
                    (number, Evicted::Spilled(self.frame - 1))
                } else {
                    (number, Evicted::Dropped)
                }
            }
        };
        self.files[at].holds[number as usize] = Some(id);
        self.at[id as usize] = Some(number);
        self.locked.push(id);
        Some((number, evicted))
    }

    /// A name for a value of one operation, which nothing reads later.
    pub fn temporary(&mut self) -> Id {
        self.at.push(None);
        self.spilled.push(None);
        self.uses.push(0..0);
        self.in_memory.push(false);
        let id = (self.at.len() - 1) as Id;
        self.temporaries.push(id);
        id
    }

    /// A value that has this register for the whole body; it is not given out.
    pub fn pin(&mut self, id: Id, number: u8) {
        self.files[0].numbers.retain(|&n| n != number);
        self.at[id as usize] = Some(number);
    }

    /// Whether a value is in a register now.
    pub fn is_held(&self, id: Id) -> bool {
        self.at[id as usize].is_some()
    }

    /// Places of the frame that were needed.
    pub fn frame(&self) -> usize {
        self.frame
    }
}
