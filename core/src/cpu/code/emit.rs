//! Bodies as AVX-512 instructions. Owns the loops, the frame and the choice of instructions.
//!
//! Registers: rdi the slots' addresses, rsi rows left, rdx elements of a row, rcx the constants, r8 the first element
//! of the row, r9 the current one, r10 elements of a row in whole registers, r11 the row, rbx where whole registers
//! end; rax is free for one instruction. k7 masks the elements of a row's last, partial register.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use tapeflow_ir::Reduce;

use super::interleave::interleave;
use super::nest::{Fold, Nest, Pass};
use super::record::{Access, Id, Kind, Micro};
use super::registers::Registers;

/// Places of the frame, of one register each.
pub const FRAME: usize = 32;
/// Values that stay in registers for all elements of a row, at most.
const PINNED: usize = 10;

#[rustfmt::skip]
pub const ZMM: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15, zmm16, zmm17,
    zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
];
#[rustfmt::skip]
const YMM: [AsmRegisterYmm; 32] = [
    ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15, ymm16, ymm17,
    ymm18, ymm19, ymm20, ymm21, ymm22, ymm23, ymm24, ymm25, ymm26, ymm27, ymm28, ymm29, ymm30, ymm31,
];
#[rustfmt::skip]
pub const XMM: [AsmRegisterXmm; 32] = [
    xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15, xmm16, xmm17,
    xmm18, xmm19, xmm20, xmm21, xmm22, xmm23, xmm24, xmm25, xmm26, xmm27, xmm28, xmm29, xmm30, xmm31,
];
pub const K: [AsmRegisterK; 8] = [k0, k1, k2, k3, k4, k5, k6, k7];

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
pub fn assemble(nest: &Nest) -> Option<(Vec<u8>, Vec<u32>)> {
    let mut emitter = Emitter { a: CodeAssembler::new(64).ok()?, constants: Vec::new(), pointer: None };
    let code = emitter.function(nest).and_then(|()| Ok(emitter.a.assemble(0)?));
    if let Err(Failure::Assembler(error)) = &code {
        debug_assert!(false, "an instruction that there is not: {error}");
        tracing::debug!(%error, "no machine code");
    }
    Some((code.ok()?, emitter.constants))
}

/// Where a body stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Once per row.
    Outer,
    /// For sixteen elements.
    Whole,
    /// For those that are left.
    Partial,
}

pub struct Emitter {
    /// Takes instructions.
    pub a: CodeAssembler,
    constants: Vec<u32>,
    /// The slot whose address is in rax.
    pub pointer: Option<u16>,
}

/// A register under a mask.
pub fn under(register: AsmRegisterZmm, mask: usize) -> AsmRegisterZmm {
    match mask {
        1 => register.k1(),
        2 => register.k2(),
        3 => register.k3(),
        4 => register.k4(),
        5 => register.k5(),
        6 => register.k6(),
        _ => register.k7(),
    }
}

pub fn accumulator(fold: usize) -> usize {
    31 - fold
}

impl Emitter {
    fn function(&mut self, nest: &Nest) -> Done {
        // Registers from 16 on have no VEX form.
        self.a.set_prefer_vex(false);
        self.a.push(rbx)?;
        self.a.sub(rsp, (FRAME * 64) as i32)?;
        self.a.mov(eax, edx)?;
        self.a.and(eax, 15)?;
        self.a.mov(r9d, -1)?;
        self.a.bzhi(eax, r9d, eax)?;
        self.a.kmovw(k7, eax)?;
        self.a.mov(r10, rdx)?;
        self.a.and(r10, -16)?;
        self.a.xor(r8d, r8d)?;
        self.a.xor(r11d, r11d)?;
        let mut row = self.a.create_label();
        self.label(&mut row)?;
        for pass in &nest.passes {
            self.pass(pass)?;
        }
        self.a.add(r8, rdx)?;
        self.a.inc(r11)?;
        self.a.dec(rsi)?;
        self.a.jnz(row)?;
        self.a.add(rsp, (FRAME * 64) as i32)?;
        self.a.pop(rbx)?;
        self.a.vzeroupper()?;
        self.a.ret()?;
        Ok(())
    }

    fn pass(&mut self, pass: &Pass) -> Done {
        if pass.folds.len() > 8 {
            return Err(Failure::Pressure);
        }
        let free = (32 - pass.folds.len()) as u8;
        self.body(&pass.outer, pass, Mode::Outer, Registers::new(&pass.outer, free))?;
        if pass.lanes.is_empty() {
            return Ok(());
        }
        for (number, fold) in pass.folds.iter().enumerate() {
            let identity = match fold.reduce {
                Reduce::Sum => -0.0,
                Reduce::Max => f32::NEG_INFINITY,
                Reduce::Min => f32::INFINITY,
            };
            let constant = self.constant(identity.to_bits());
            self.a.vbroadcastss(ZMM[accumulator(number)], dword_ptr(rcx + constant))?;
        }
        // What is the same for all elements of a row stays in registers.
        let mut pins: Vec<(Id, u8)> = Vec::new();
        for (id, micro) in pass.lanes.iter().enumerate() {
            if let Micro::Load(slot, access @ (Access::Row | Access::Fixed), Kind::Vector) = *micro
                && pins.len() < PINNED
            {
                let number = free - 1 - pins.len() as u8;
                self.load(number as usize, slot, access, Mode::Outer)?;
                pins.push((id as Id, number));
            }
        }
        let registers = |micros: &[Micro]| {
            let mut registers = Registers::new(micros, free);
            for (id, micro) in micros.iter().enumerate() {
                if let Some((_, number)) = pins.iter().find(|(pinned, _)| pass.lanes[*pinned as usize] == *micro) {
                    registers.pin(id as Id, *number);
                }
            }
            registers
        };
        let (several, copies) = interleave(&pass.lanes);
        let mut rest = self.a.create_label();
        self.a.mov(r9, r8)?;
        self.a.lea(rbx, qword_ptr(r8 + r10))?;
        for (micros, copies) in [(&several, copies), (&pass.lanes, 1)] {
            if copies == 1 && std::ptr::eq(micros, &several) {
                continue;
            }
            let (mut again, mut after) = (self.a.create_label(), self.a.create_label());
            self.label(&mut again)?;
            self.a.lea(rax, qword_ptr(r9 + 16 * copies))?;
            self.a.cmp(rax, rbx)?;
            self.a.ja(after)?;
            self.body(micros, pass, Mode::Whole, registers(micros))?;
            self.a.add(r9, 16 * copies as i32)?;
            self.a.jmp(again)?;
            self.label(&mut after)?;
        }
        self.a.test(edx, 15)?;
        self.a.jz(rest)?;
        self.body(&pass.lanes, pass, Mode::Partial, registers(&pass.lanes))?;
        self.label(&mut rest)?;
        self.a.nop()?;
        for (number, fold) in pass.folds.iter().enumerate() {
            self.finish(number, fold)?;
        }
        Ok(())
    }

    /// The offset of a constant.
    pub fn constant(&mut self, bits: u32) -> i32 {
        let at = self.constants.iter().position(|&known| known == bits).unwrap_or_else(|| {
            self.constants.push(bits);
            self.constants.len() - 1
        });
        (at * 4) as i32
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

    /// `accumulator ← accumulator ∘ x`, as `fold` combines.
    pub fn combine(&mut self, reduce: Reduce, to: usize, x: usize, (t, k): (usize, usize), partial: bool) -> Done {
        let target = if partial { ZMM[to].k7() } else { ZMM[to] };
        match reduce {
            Reduce::Sum => return Ok(self.a.vaddps(target, ZMM[to], ZMM[x])?),
            Reduce::Max => self.a.vmaxps(ZMM[t], ZMM[to], ZMM[x])?,
            Reduce::Min => self.a.vminps(ZMM[t], ZMM[to], ZMM[x])?,
        }
        self.a.vcmpps(K[k], ZMM[to], ZMM[x], 0x00)?;
        match reduce {
            Reduce::Min => self.a.vorps(under(ZMM[t], k), ZMM[to], ZMM[x])?,
            _ => self.a.vandps(under(ZMM[t], k), ZMM[to], ZMM[x])?,
        }
        self.a.vcmpps(K[k], ZMM[to], ZMM[to], 0x03)?;
        self.a.vmovaps(under(ZMM[t], k), ZMM[to])?;
        Ok(self.a.vmovaps(target, ZMM[t])?)
    }

    /// Combines the sixteen lanes pairwise and stores the row's result.
    fn finish(&mut self, number: usize, fold: &Fold) -> Done {
        let to = accumulator(number);
        for half in [8, 4, 2, 1] {
            match half {
                8 => self.a.vextractf32x8(YMM[0], ZMM[to], 1)?,
                4 => self.a.vextractf32x4(XMM[0], YMM[to], 1)?,
                2 => self.a.vpermilps(XMM[0], XMM[to], 0b0100_1110)?,
                _ => self.a.vpermilps(XMM[0], XMM[to], 0b1011_0001)?,
            }
            self.combine(fold.reduce, to, 0, (1, 1), false)?;
        }
        self.address(fold.slot)?;
        Ok(self.a.vmovss(dword_ptr(rax + r11 * 4), XMM[to])?)
    }
}
