//! Machine code for the steps of a tile: neighbouring calls of primitives become one loop whose intermediate results
//! never leave the registers. Owns the choice of what is compiled, and switching it off; the arithmetic is that of the
//! primitives, bit for bit, so they remain the oracle, and the way for everything that is not compiled.
//!
//! Calls become bodies of micro-operations (`nest`, `native`, `record`), bodies become instructions (`emit`,
//! `instructions`, `registers`) of a vector form (`form`: `zmm`, `ymm`), and those are put where they can be run
//! (`memory`).

#[cfg(target_arch = "x86_64")]
mod emit;
#[cfg(target_arch = "x86_64")]
mod form;
#[cfg(target_arch = "x86_64")]
mod instructions;
#[cfg(target_arch = "x86_64")]
mod interleave;
#[cfg(target_arch = "x86_64")]
mod memory;
mod native;
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing writes instructions"))]
mod nest;
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing writes instructions"))]
mod record;
#[cfg(target_arch = "x86_64")]
mod registers;
#[cfg(target_arch = "x86_64")]
mod ymm;
#[cfg(target_arch = "x86_64")]
mod zmm;

use std::cell::Cell;
use std::sync::OnceLock;

use super::isa::{Isa, IsaError};
use super::lower::Context;
use super::step::{Class, Lowered, Place, Shape, Slot, Step};

thread_local! {
    static ENABLED: Cell<bool> = const { Cell::new(true) };
}

/// What `f` compiles on this thread is run by primitives only: the bits are the same, which is what tests check with
/// it.
#[cfg(test)]
pub fn without<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ENABLED.set(self.0);
        }
    }
    let _restore = Restore(ENABLED.replace(false));
    f()
}

/// Whether code is made: not for paths that have no form, and not if `TAPEFLOW_JIT` is `0`.
pub fn is_enabled(isa: Isa) -> Result<bool, IsaError> {
    static WANTED: OnceLock<Result<bool, IsaError>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| match std::env::var_os("TAPEFLOW_JIT") {
        None => Ok(true),
        Some(value) if value.is_empty() || value == "1" => Ok(true),
        Some(value) if value == "0" => Ok(false),
        Some(value) => Err(IsaError::Jit(value.to_string_lossy().into_owned())),
    });
    Ok(wanted.clone()? && matches!(isa.vectors(), Isa::Avx512 | Isa::Avx2) && ENABLED.get())
}

/// Which outputs may lie where operands lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InPlace {
    /// Those of elements: every element is written after all that is read of its row.
    pub elements: bool,
    /// Those of rows.
    pub rows: bool,
}

/// Compiled steps.
#[derive(Debug)]
pub struct Code {
    /// Slots whose memory it reads.
    pub reads: Vec<Slot>,
    /// Slots whose memory it writes.
    pub writes: Vec<Slot>,
    /// Whether the rows of a tile are taken as one.
    flat: bool,
    /// Which of its outputs may lie where its operands lie.
    pub in_place: InPlace,
    #[cfg(target_arch = "x86_64")]
    entry: memory::Executable,
}

impl Code {
    /// Runs it on `rows` rows of `cols` elements each, `pitch` elements from row to row.
    ///
    /// # Safety
    /// `addresses` is the table of the slots' addresses; those that it reads and writes have as many elements as their
    /// class says for such a tile.
    pub unsafe fn run(&self, addresses: *const *mut u8, rows: usize, cols: usize, pitch: usize) {
        let flat = self.flat && pitch == cols;
        let (rows, cols, pitch) = if flat { (1, rows * cols, rows * cols) } else { (rows, cols, pitch) };
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as our caller promised; the instruction set is there, or the code would not have been made.
        unsafe {
            self.entry.run(addresses, rows, cols, pitch)
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (addresses, rows, cols, pitch);
    }
}

/// Puts code in the place of runs of calls that can be compiled. Where it cannot be made (no executable memory), the
/// calls stay.
///
/// # Errors
/// A setting that is none.
pub fn fuse(lowered: &mut Lowered, context: &Context<'_>) -> Result<(), IsaError> {
    if !is_enabled(context.isa)? {
        return Ok(());
    }
    // Loads depend on nothing, and nothing of the tile depends on folds and scatters: calls become neighbours.
    let (mut loads, mut calls, mut sinks) = (Vec::new(), Vec::new(), Vec::new());
    for step in lowered.body.drain(..) {
        match step {
            Step::Load { .. } => loads.push(step),
            Step::Fold { .. } | Step::Scatter { .. } => sinks.push(step),
            _ => calls.push(step),
        }
    }
    let mut body = loads;
    let (early, calls) = per_row_first(calls, lowered.places.len());
    body.extend(early);
    let mut at = 0;
    while at < calls.len() {
        let found = nest::longest(&calls[at..], (&body, &sinks), lowered, context);
        match found.and_then(|mut found| Some((code(std::mem::take(&mut found.nest), context.isa)?, found))) {
            Some((code, found)) => {
                body.push(Step::Code(lowered.codes.len()));
                lowered.codes.push(code);
                lowered.places.extend(found.places);
                for slot in found.columns {
                    if let Place::Register(number) = lowered.places[slot as usize] {
                        lowered.registers[number].class = Class::Column;
                    }
                }
                let mut number = 0..;
                sinks.retain(|_| number.next().is_none_or(|number| !found.folds.contains(&number)));
                at += found.count;
            }
            None => {
                body.push(calls[at]);
                at += 1;
            }
        }
    }
    body.extend(sinks);
    // What code reads in its own place need not be loaded.
    let read: Vec<Slot> = body.iter().flat_map(|step| step.slots(&lowered.codes).1).copied().collect();
    body.retain(|step| !matches!(step, Step::Load { dst, .. } if !read.contains(dst)));
    lowered.body = body;
    Ok(())
}

/// The calls for rows that wait for no elements, which are better made for many rows at once; and the others.
fn per_row_first(calls: Vec<Step>, slots: usize) -> (Vec<Step>, Vec<Step>) {
    let mut late = vec![false; slots];
    calls.into_iter().partition(|step| {
        let Step::Call { dst, src, shape, .. } = *step else { return false };
        let early = shape == Shape::Rows && !src.iter().any(|&slot| late[slot as usize]);
        late[dst as usize] = !early;
        early
    })
}

#[cfg(target_arch = "x86_64")]
fn code(nest: nest::Nest, isa: Isa) -> Option<Code> {
    let (bytes, constants) = emit::assemble(&nest, form::form(isa)?)?;
    let entry = memory::Executable::new(&bytes, &constants)?;
    Some(Code { reads: nest.reads, writes: nest.writes, flat: nest.flat, in_place: nest.in_place, entry })
}

#[cfg(not(target_arch = "x86_64"))]
fn code(_nest: nest::Nest, _isa: Isa) -> Option<Code> {
    None
}
