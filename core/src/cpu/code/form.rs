//! What a vector form is: registers of some width, and the instructions on them. Owns what the rest of the generator
//! knows of the two that there are, AVX-512 (`zmm`) and AVX2 with FMA and F16C (`ymm`).

use std::ops::Range;

use iced_x86::code_asm::*;
use tapeflow_ir::Reduce;

use super::emit::{Accumulator, Done};
use super::record::{Format, Kind, Micro};
use super::ymm::Ymm;
use super::zmm::Zmm;
use crate::cpu::isa::Isa;
use crate::cpu::vector::BLOCK;

#[rustfmt::skip]
pub const ZMM: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15, zmm16, zmm17,
    zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
];
#[rustfmt::skip]
pub const YMM: [AsmRegisterYmm; 32] = [
    ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15, ymm16, ymm17,
    ymm18, ymm19, ymm20, ymm21, ymm22, ymm23, ymm24, ymm25, ymm26, ymm27, ymm28, ymm29, ymm30, ymm31,
];
#[rustfmt::skip]
pub const XMM: [AsmRegisterXmm; 32] = [
    xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15, xmm16, xmm17,
    xmm18, xmm19, xmm20, xmm21, xmm22, xmm23, xmm24, xmm25, xmm26, xmm27, xmm28, xmm29, xmm30, xmm31,
];

/// The form of an instruction set; `None` if no code is made for it.
pub fn form(isa: Isa) -> Option<&'static dyn Form> {
    match isa.vectors() {
        Isa::Avx512 => Some(&Zmm),
        Isa::Avx2 => Some(&Ymm),
        _ => None,
    }
}

/// The registers of a form.
#[derive(Debug)]
pub struct Bank {
    /// Elements of a vector register.
    pub lanes: usize,
    /// Vector registers.
    pub vectors: u8,
    /// Mask registers from 1 up to this; if there are none, masks lie in vector registers.
    pub masks: u8,
    /// Of those, the ones that may note where a NaN was.
    pub nans: Range<usize>,
    /// Values that copies of a body may have alive at once.
    pub alive: usize,
    /// Reductions of one pass, at most.
    pub folds: usize,
}

impl Bank {
    /// Registers of the sixteen elements that sums are made of.
    pub fn parts(&self) -> usize {
        BLOCK / self.lanes
    }

    /// Whether masks have registers of their own.
    pub fn has_masks(&self) -> bool {
        self.masks > 0
    }
}

/// A second operand.
#[derive(Clone, Copy)]
pub enum Operand {
    Register(usize),
    /// The constant at this offset.
    Constant(i32),
}

impl Operand {
    /// Of operations that take no constants.
    pub fn register(self) -> usize {
        match self {
            Operand::Register(number) => number,
            Operand::Constant(_) => unreachable!("invariant: only pairs and comparisons read constants from memory"),
        }
    }
}

/// The registers of one operation.
#[derive(Clone, Copy)]
pub struct Operands {
    /// Of the result: none of the operands'.
    pub dst: usize,
    /// Of the operands, in order.
    pub x: usize,
    pub y: Operand,
    pub z: usize,
    /// For itself, if it asked for one.
    pub spare: usize,
    /// Where the constant lies that it always needs: of a sign everything else, of a number 1.
    pub constant: i32,
}

/// How an element's register is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// All of it, past the caches.
    Streamed,
    /// What is left of a row, of which this is the register of that number.
    Tail(usize),
}

/// The instructions of a form. Registers are given by number; rcx is the address of the constants, rdx has the elements
/// of a row, rbx is free, r13 to r15 are the form's own.
pub trait Form {
    /// Its registers.
    fn bank(&self) -> &'static Bank;

    /// What stands before the constants, in words.
    fn table(&self) -> &'static [u32];

    /// How often a constant stands there, so that an instruction can read it.
    fn repeats(&self) -> usize;

    /// Saves the registers that are its own and brings there what tells the elements of a row's end.
    fn enter(&self, a: &mut CodeAssembler) -> Done;

    /// Restores them.
    fn leave(&self, a: &mut CodeAssembler) -> Done;

    /// Elements from memory; a mask's bytes go by the spare vector register. `tail` is the number of the register of a
    /// row's end.
    fn load(&self, a: &mut CodeAssembler, dst: usize, from: Memory, spare: usize, tail: Option<usize>) -> Done;

    /// One element from memory, for all lanes.
    fn spread(&self, a: &mut CodeAssembler, dst: usize, from: Memory) -> Done;

    /// Elements to memory; `spare` are as many vector registers as it asked for.
    fn store(&self, a: &mut CodeAssembler, x: usize, to: Memory, spare: [usize; 2], extent: Extent) -> Done;

    /// The first lane to memory.
    fn store_one(&self, a: &mut CodeAssembler, x: usize, to: Memory) -> Done;

    /// To a place of the frame, or back.
    fn spill(&self, a: &mut CodeAssembler, number: usize, kind: Kind, place: AsmMemoryOperand) -> Done;
    fn restore(&self, a: &mut CodeAssembler, number: usize, kind: Kind, place: AsmMemoryOperand) -> Done;

    /// Vector registers that an operation needs for itself.
    fn spare(&self, micro: &Micro, is_tail: bool) -> usize;

    /// The result of an operation that touches no memory.
    fn compute(&self, a: &mut CodeAssembler, micro: Micro, of: Operands) -> Done;

    /// Lets a mask register of its own note nothing.
    fn clear(&self, a: &mut CodeAssembler, mask: usize) -> Done;

    /// `accumulator ← accumulator ∘ x`, as `cpu::fold` combines; `x` is of the copy of that number. A spare vector and
    /// a spare mask register are needed by extremes and by what is left of a row.
    fn fold(
        &self,
        a: &mut CodeAssembler,
        to: (Accumulator, usize),
        x: usize,
        spare: Spare,
        tail: Option<usize>,
    ) -> Done;

    /// Combines the sixteen lanes pairwise; the result is in the first lane of the accumulator's first register.
    fn join(&self, a: &mut CodeAssembler, accumulator: Accumulator) -> Done;
}

/// Where elements lie, and how.
pub type Memory = (AsmMemoryOperand, Format);
/// A vector and a mask register.
pub type Spare = (usize, usize);

/// The value that changes none.
pub fn identity(reduce: Reduce) -> f32 {
    match reduce {
        Reduce::Sum => -0.0,
        Reduce::Max => f32::NEG_INFINITY,
        Reduce::Min => f32::INFINITY,
    }
}

/// The predicate of `VCMPPS`.
pub fn predicate(relation: super::record::Relation) -> i32 {
    use super::record::Relation::*;
    match relation {
        Eq => 0x00,
        Ne => 0x04,
        Lt => 0x11,
        Le => 0x12,
        Gt => 0x1e,
        Ge => 0x1d,
        Unordered => 0x03,
    }
}

/// The operation of a pair: every form has it.
macro_rules! pair {
    ($a:ident, $pair:expr, $dst:expr, $x:expr, $y:expr) => {
        match $pair {
            Pair::Add => $a.vaddps($dst, $x, $y)?,
            Pair::Sub => $a.vsubps($dst, $x, $y)?,
            Pair::Mul => $a.vmulps($dst, $x, $y)?,
            Pair::Div => $a.vdivps($dst, $x, $y)?,
            Pair::Larger => $a.vmaxps($dst, $x, $y)?,
            Pair::Smaller => $a.vminps($dst, $x, $y)?,
            Pair::And => $a.vandps($dst, $x, $y)?,
            Pair::Or => $a.vorps($dst, $x, $y)?,
            Pair::Xor => $a.vxorps($dst, $x, $y)?,
            Pair::IntAdd => $a.vpaddd($dst, $x, $y)?,
            Pair::IntSub => $a.vpsubd($dst, $x, $y)?,
        }
    };
}
pub(super) use pair;
