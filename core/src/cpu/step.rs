//! The steps that a tile runs, and where their values lie. Owns the forms and the sharing of registers; `lower` writes
//! steps, `tile` runs them.

use std::slice;

use tapeflow_ir::{DType, Op};

use super::code::Code;
use super::vector::Primitive;

/// How often a value occurs; in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Once: constants, host scalars, operands of stride 0.
    Fixed,
    /// Once per tile: operands of stride 0 along the axis that tiles are cut from.
    Tile,
    /// Once per row.
    Row,
    /// Once per element of a row, for all rows: registers that only code reads.
    Column,
    /// Once per element.
    Lane,
}

/// Where a value lies while a tile is computed; a number of an entry in the table of addresses.
pub type Slot = u16;

/// How a parameter is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Its elements lie in memory as the tile wants them.
    Direct,
    /// They must be gathered or generated.
    Load,
    /// One row of them lies in memory, for all rows: gathered for those who need it again and again.
    Repeated,
}

/// How an output takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The tile's elements (`Lane`) or rows (`Row`) follow each other in memory.
    Direct(Class),
    /// They must be scattered.
    Scatter(Class),
    /// They are folded.
    Fold,
}

/// What an address in the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A register, by number.
    Register(usize),
    /// Bits of a constant.
    Constant(u64),
    /// A parameter read in place.
    Input(usize),
    /// An output written in place.
    Output(usize),
    /// The row that an output's elements are folded into.
    Fold(usize),
    /// Nowhere: compiled code has it in a machine register only.
    Nowhere,
}

/// What a call computes, for those who make machine code of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// An operation on operands of the first dtype (of a selection: of the values), with a result of the second.
    Op(Op, DType, DType),
    /// The operand, repeated or copied.
    Same(DType),
}

/// The counts a primitive is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One element.
    One,
    /// One row of one element per row of the tile.
    Rows,
    /// One row of all elements of the tile.
    Lanes,
    /// The rows of the tile.
    LanesByRow,
    /// One row of as many elements as a tile can have: to spread once for all tiles.
    Most,
}

/// One step of a tile.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Calls a primitive.
    Call {
        /// Which one.
        primitive: Primitive,
        /// Its result.
        dst: Slot,
        /// Its operands.
        src: [Slot; 3],
        /// Elements from row to row of splat operands.
        step: [u8; 3],
        /// Its counts.
        shape: Shape,
        /// Which operands are one element per row.
        splat: [bool; 3],
        /// What it computes.
        meaning: Meaning,
    },
    /// Runs machine code made of several calls, by its number.
    Code(usize),
    /// Gathers or generates a parameter into a register.
    Load {
        /// Which parameter.
        input: usize,
        /// The register.
        dst: Slot,
        /// At which class.
        class: Class,
    },
    /// Folds a value into an output.
    Fold {
        /// Which output.
        output: usize,
        /// The value, of class `Lane`.
        src: Slot,
    },
    /// Scatters a value to an output.
    Scatter {
        /// Which output.
        output: usize,
        /// The value.
        src: Slot,
        /// Its class.
        class: Class,
    },
}

impl Step {
    /// The slots it writes and those it reads.
    pub fn slots<'a>(&'a self, codes: &'a [Code]) -> (&'a [Slot], &'a [Slot]) {
        match self {
            Step::Call { dst, src, .. } => (slice::from_ref(dst), src),
            Step::Load { dst, .. } => (slice::from_ref(dst), &[]),
            Step::Fold { src, .. } | Step::Scatter { src, .. } => (&[], slice::from_ref(src)),
            Step::Code(number) => (&codes[*number].writes, &codes[*number].reads),
        }
    }
}

/// A register: an element count class and the size of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// How many elements: 1 (`Fixed`, `Tile`), rows, or elements of a tile.
    pub class: Class,
    /// Bytes of each.
    pub size: usize,
}

/// A function as steps.
#[derive(Debug)]
pub struct Lowered {
    /// What each slot is.
    pub places: Vec<Place>,
    /// The registers.
    pub registers: Vec<Register>,
    /// Run once per chunk.
    pub prologue: Vec<Step>,
    /// Run for each tile.
    pub body: Vec<Step>,
    /// The machine code among them.
    pub codes: Vec<Code>,
    /// Estimated nanoseconds per element.
    pub cost: f64,
}

impl Lowered {
    /// Lets registers that are not alive at once share one. Those of the prologue, and those whose slot became an
    /// output, are left out of it.
    pub fn assign_registers(&mut self) {
        let mut last = vec![0; self.places.len()];
        for (index, step) in self.body.iter().enumerate() {
            step.slots(&self.codes).1.iter().for_each(|&slot| last[slot as usize] = index);
        }
        let mut kept: Vec<Register> = Vec::new();
        let mut number = |register: Register, free: &mut Vec<usize>| {
            if let Some(at) = free.iter().position(|&n: &usize| kept[n] == register) {
                return free.swap_remove(at);
            }
            kept.push(register);
            kept.len() - 1
        };
        let mut written = vec![false; self.places.len()];
        for step in &self.prologue {
            for &dst in step.slots(&self.codes).0 {
                if let Place::Register(old) = self.places[dst as usize] {
                    let new = number(self.registers[old], &mut Vec::new());
                    self.places[dst as usize] = Place::Register(new);
                    written[dst as usize] = true;
                }
            }
        }
        let mut free: Vec<usize> = Vec::new();
        let mut body = vec![false; self.places.len()];
        for (index, step) in self.body.iter().enumerate() {
            let (dst, src) = step.slots(&self.codes);
            for &dst in dst {
                if let Place::Register(old) = self.places[dst as usize] {
                    self.places[dst as usize] = Place::Register(number(self.registers[old], &mut free));
                    body[dst as usize] = true;
                    written[dst as usize] = true;
                }
            }
            // The results were placed first: they never share a register with an operand.
            for &slot in src {
                if let (true, Place::Register(n)) =
                    (body[slot as usize] && last[slot as usize] == index, self.places[slot as usize])
                    && !free.contains(&n)
                {
                    free.push(n);
                }
            }
        }
        for (place, written) in self.places.iter_mut().zip(written) {
            if matches!(place, Place::Register(_)) && !written {
                *place = Place::Nowhere;
            }
        }
        self.registers = kept;
    }
}
