//! Bodies as instructions of one form. Owns the loops, the frame and what stays in registers.
//!
//! Registers: rdi the slots' addresses, rsi rows left, rdx elements of a row, rcx the constants, r8 the first element
//! of the row (at the call the elements from row to row, which go to the frame), r9 the current one, r12 the current
//! one of the row's, r10 elements of a row in whole sixteens, r11 the row; rax is the address of the slot used last,
//! rbx is free for one instruction. r13 to r15 are the form's.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use tapeflow_ir::Reduce;

use super::form::{Bank, Form, identity};
use super::interleave::{COPIES, Interleaved, interleave};
use super::nest::{Fold, Nest, Pass};
use super::record::{Access, Format, Id, Micro};
use super::registers::Registers;
use crate::cpu::step::Slot;

/// Places of the frame, of one register each.
pub const FRAME: usize = 32;
/// Where in the frame the elements of a row's end may lie, of one register.
pub const REST: i32 = FRAME as i32 * 64;
/// Where in the frame the elements from row to row are.
const PITCH: i32 = REST + 32;
/// Bytes of the frame.
const FRAME_BYTES: i32 = PITCH + 32;
/// Registers that single operations need beside what is alive.
const TEMPORARIES: usize = 3;

/// Why there is no code: the primitives serve then.
pub enum Failure {
    /// An instruction that cannot be written: a bug.
    Assembler(IcedError),
    /// More values at once than the frame and the registers hold.
    Pressure,
}

impl From<IcedError> for Failure {
    fn from(error: IcedError) -> Failure {
        Failure::Assembler(error)
    }
}

pub type Done<T = ()> = Result<T, Failure>;

/// The code of a nest, and the constants that it is called with; `None` if it needs too many values at once.
pub fn assemble(nest: &Nest, form: &'static dyn Form) -> Option<(Vec<u8>, Vec<u32>)> {
    let a = CodeAssembler::new(64).ok()?;
    let mut emitter = Emitter { a, form, constants: Vec::new(), streamed: Vec::new(), pointer: None };
    let code = emitter.function(nest).and_then(|()| Ok(emitter.a.assemble(0)?));
    if let Err(Failure::Assembler(error)) = &code {
        debug_assert!(false, "an instruction that there is not: {error}");
        tracing::debug!(%error, "no machine code");
    }
    let constants = emitter.constants.iter().flat_map(|&bits| std::iter::repeat_n(bits, form.repeats()));
    Some((code.ok()?, form.table().iter().copied().chain(constants).collect()))
}

/// Where a body stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Once per row.
    Outer,
    /// For registers that are whole.
    Whole,
    /// For those of a row's end, fewer than sixteen elements.
    Partial,
}

pub struct Emitter {
    /// Takes instructions.
    pub a: CodeAssembler,
    /// Which instructions they are.
    pub form: &'static dyn Form,
    /// Slots that are written past the caches.
    pub streamed: Vec<Slot>,
    constants: Vec<u32>,
    /// The slot whose address is in rax.
    pub pointer: Option<u16>,
}

/// The registers that a pass's reductions are made in: the last ones.
#[derive(Default)]
pub struct Accumulators(Vec<Accumulator>);

/// Of one reduction.
#[derive(Clone, Copy)]
pub struct Accumulator {
    pub reduce: Reduce,
    /// The first of its registers, which go downwards.
    pub first: usize,
    /// Those of sixteen elements: a sum has its order. Extremes of numbers may be found in any, several side by side.
    pub count: usize,
    /// The mask register that notes where a NaN was, the first of which is in the vector register after the others;
    /// the extremes of numbers are found beside it. `None` if there is no such mask.
    pub nan: Option<usize>,
}

impl Accumulators {
    fn new(folds: &[Fold], copies: usize, bank: &Bank) -> Accumulators {
        let (mut next, mut masks) = (bank.vectors as usize - 1, bank.nans.clone());
        let accumulator = |fold: &Fold| {
            let nan = if fold.reduce == Reduce::Sum { None } else { masks.next_back() };
            let (first, count) = (next, if nan.is_some() { copies } else { bank.parts() });
            next -= count + usize::from(nan.is_some());
            Accumulator { reduce: fold.reduce, first, count, nan }
        };
        Accumulators(folds.iter().map(accumulator).collect())
    }

    /// That of a reduction.
    pub fn of(&self, fold: usize) -> Accumulator {
        self.0[fold]
    }

    /// The first vector register and the first mask register that are taken.
    fn begin(&self, bank: &Bank) -> (u8, u8) {
        let taken = |accumulator: &Accumulator| accumulator.count + usize::from(accumulator.nan.is_some());
        let vectors = self.0.iter().map(taken).sum::<usize>() as u8;
        let masks = self.0.iter().filter_map(|accumulator| accumulator.nan).min();
        (bank.vectors - vectors, masks.map_or(bank.masks, |mask| mask as u8))
    }
}

impl Accumulator {
    /// The register that one of several copies of a body reduces to.
    pub fn register(&self, copy: usize) -> usize {
        self.first - copy % self.count
    }
}

impl Emitter {
    /// The whole function. What is large is written past the caches, if it begins at cache lines: a second version
    /// serves where it does not.
    fn function(&mut self, nest: &Nest) -> Done {
        self.a.push(rbx)?;
        self.a.push(r12)?;
        self.form.enter(&mut self.a)?;
        self.a.sub(rsp, FRAME_BYTES)?;
        self.a.mov(qword_ptr(rsp + PITCH), r8)?;
        self.a.mov(r10, rdx)?;
        self.a.and(r10, -16)?;
        if !nest.streams.is_empty() {
            self.a.lea(rbx, qword_ptr(r8 * 4))?;
            self.a.lea(rax, qword_ptr(rdx * 4))?;
            self.a.or(rbx, rax)?;
        }
        self.a.xor(r8d, r8d)?;
        self.a.xor(r11d, r11d)?;
        if !nest.streams.is_empty() {
            let mut misaligned = self.a.create_label();
            for &slot in &nest.streams {
                self.a.or(rbx, qword_ptr(rdi + i32::from(slot) * 8))?;
            }
            self.a.test(bl, 63)?;
            self.a.jnz(misaligned)?;
            self.streamed.clone_from(&nest.streams);
            self.rows(nest)?;
            self.streamed.clear();
            self.label(&mut misaligned)?;
        }
        self.rows(nest)
    }

    /// The loop over the rows, and the return.
    fn rows(&mut self, nest: &Nest) -> Done {
        let mut row = self.a.create_label();
        self.label(&mut row)?;
        for pass in &nest.passes {
            self.pass(pass)?;
        }
        self.a.add(r8, qword_ptr(rsp + PITCH))?;
        self.a.inc(r11)?;
        self.a.dec(rsi)?;
        self.a.jnz(row)?;
        if !self.streamed.is_empty() {
            // Others must see what was written past the caches before they are told that it is there.
            self.a.sfence()?;
        }
        self.a.add(rsp, FRAME_BYTES)?;
        self.form.leave(&mut self.a)?;
        self.a.pop(r12)?;
        self.a.pop(rbx)?;
        self.a.vzeroupper()?;
        Ok(self.a.ret()?)
    }

    fn pass(&mut self, pass: &Pass) -> Done {
        let bank = self.form.bank();
        if pass.folds.len() > bank.folds {
            return Err(Failure::Pressure);
        }
        let outer = (Registers::new(&pass.outer, bank.vectors, bank.masks), &Accumulators::default());
        self.body((&pass.outer, Mode::Outer), outer)?;
        if pass.lanes.is_empty() {
            return Ok(());
        }
        let several = interleave(&pass.lanes, bank, COPIES);
        let accumulators = Accumulators::new(&pass.folds, several.copies, bank);
        for accumulator in &accumulators.0 {
            let constant = self.constant(identity(accumulator.reduce).to_bits());
            for copy in 0..accumulator.count {
                self.form.spread(&mut self.a, accumulator.register(copy), (rcx + constant, Format::Word))?;
            }
            if let Some(nan) = accumulator.nan {
                self.form.clear(&mut self.a, nan)?;
            }
        }
        self.lanes(pass, &several, &accumulators)?;
        for (accumulator, fold) in accumulators.0.iter().zip(&pass.folds) {
            self.form.join(&mut self.a, *accumulator)?;
            self.address(fold.slot)?;
            let to = (rax + r11 * 4, Format::Word);
            self.form.store_one(&mut self.a, accumulator.register(0), to)?;
        }
        Ok(())
    }

    /// The loops over the elements of a row.
    fn lanes(&mut self, pass: &Pass, several: &Interleaved, accumulators: &Accumulators) -> Done {
        let bank = self.form.bank();
        let (free, masks) = accumulators.begin(bank);
        let pins = self.pin(pass, several, free)?;
        let registers = |micros: &[Micro]| {
            let mut registers = Registers::new(micros, free, masks);
            for (id, micro) in micros.iter().enumerate() {
                if let Some(at) = pins.iter().position(|pinned| pass.lanes[*pinned as usize] == *micro) {
                    registers.pin(id as Id, free - 1 - at as u8);
                }
            }
            registers
        };
        let sixteen = interleave(&pass.lanes, bank, bank.parts());
        let mut rest = self.a.create_label();
        self.a.mov(r9, r8)?;
        self.a.xor(r12d, r12d)?;
        for (number, Interleaved { micros, copies, .. }) in [several, &sixteen].into_iter().enumerate() {
            if number == 1 && *copies == several.copies {
                continue;
            }
            let elements = (bank.lanes * copies) as i32;
            let (mut again, mut after) = (self.a.create_label(), self.a.create_label());
            self.label(&mut again)?;
            self.a.lea(rax, qword_ptr(r12 + elements))?;
            self.a.cmp(rax, r10)?;
            self.a.ja(after)?;
            self.body((micros, Mode::Whole), (registers(micros), accumulators))?;
            self.a.add(r9, elements)?;
            self.a.add(r12, elements)?;
            self.a.jmp(again)?;
            self.label(&mut after)?;
        }
        self.a.test(edx, 15)?;
        self.a.jz(rest)?;
        self.body((&sixteen.micros, Mode::Partial), (registers(&sixteen.micros), accumulators))?;
        self.label(&mut rest)?;
        Ok(self.a.nop()?)
    }

    /// Brings what is the same for all elements of a row to registers, where it stays: the last before `free`, in
    /// order. Constants are read where they are used if there is no room.
    fn pin(&mut self, pass: &Pass, several: &Interleaved, free: u8) -> Done<Vec<Id>> {
        let mut uses = vec![0; pass.lanes.len()];
        pass.lanes.iter().flat_map(Micro::operands).flatten().for_each(|id| uses[id as usize] += 1);
        let ids = |wanted: fn(&Micro) -> bool| (0..pass.lanes.len()).filter(move |&id| wanted(&pass.lanes[id]));
        let per_row = |micro: &Micro| matches!(micro, Micro::Load(_, Access::Row | Access::Fixed, Format::Word));
        let mut pins: Vec<usize> = ids(per_row).take(usize::from(self.form.bank().vectors) / 3).collect();
        let mut constants: Vec<usize> = ids(|micro| matches!(micro, Micro::Constant(_))).collect();
        constants.sort_by_key(|&id| std::cmp::Reverse(uses[id]));
        let room = (free as usize).saturating_sub(several.alive + TEMPORARIES + pins.len());
        pins.extend(constants.into_iter().take(room));
        for (at, &id) in pins.iter().enumerate() {
            let number = free as usize - 1 - at;
            match pass.lanes[id] {
                Micro::Load(slot, access, format) => self.spread(number, (slot, access, format))?,
                Micro::Constant(bits) => {
                    let constant = self.constant(bits);
                    self.form.spread(&mut self.a, number, (rcx + constant, Format::Word))?;
                }
                _ => {}
            }
        }
        Ok(pins.into_iter().map(|id| id as Id).collect())
    }

    /// The offset of a constant.
    pub fn constant(&mut self, bits: u32) -> i32 {
        let at = self.constants.iter().position(|&known| known == bits).unwrap_or_else(|| {
            self.constants.push(bits);
            self.constants.len() - 1
        });
        ((self.form.table().len() + at * self.form.repeats()) * 4) as i32
    }

    /// A place that can be jumped to: nothing is known of rax there.
    fn label(&mut self, label: &mut CodeLabel) -> Done {
        self.pointer = None;
        // The assembler takes one label per instruction.
        self.a.nop()?;
        Ok(self.a.set_label(label)?)
    }

    /// The address of a slot's memory, in rax.
    pub fn address(&mut self, slot: u16) -> Done {
        if self.pointer != Some(slot) {
            self.a.mov(rax, qword_ptr(rdi + i32::from(slot) * 8))?;
            self.pointer = Some(slot);
        }
        Ok(())
    }
}
