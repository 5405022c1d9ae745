//! Bodies as AVX-512 instructions. Owns the loops, the frame and the choice of instructions.
//!
//! Registers: rdi the slots' addresses, rsi rows left, rdx elements of a row, rcx the constants, r8 the first element
//! of the row, r9 the current one, r12 the current one of the row's, r10 elements of a row in whole registers, r11 the
//! row; rax and rbx are free for one instruction. k7 masks the elements of a row's last, partial register.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use tapeflow_ir::Reduce;

use super::interleave::{Interleaved, interleave};
use super::nest::{Fold, Nest, Pass};
use super::record::{Access, Format, Id, Micro};
use super::registers::Registers;
use crate::cpu::step::Slot;

/// Places of the frame, of one register each.
pub const FRAME: usize = 32;
/// Values that stay in registers for all elements of a row, at most.
const PINNED: usize = 10;
/// Registers that single operations need beside what is alive.
const TEMPORARIES: usize = 3;

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
    let mut emitter =
        Emitter { a: CodeAssembler::new(64).ok()?, constants: Vec::new(), streamed: Vec::new(), pointer: None };
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
    /// Slots that are written past the caches.
    pub streamed: Vec<Slot>,
    constants: Vec<u32>,
    /// The slot whose address is in rax.
    pub pointer: Option<u16>,
}

/// The immediate of `VRANGEPS`, which knows the sign of zeros.
fn range(reduce: Reduce) -> i32 {
    if reduce == Reduce::Min { 0x04 } else { 0x05 }
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

/// The registers that a pass's reductions are made in: the last ones.
#[derive(Default)]
pub struct Accumulators(Vec<Accumulator>);

/// Of one reduction.
#[derive(Clone, Copy)]
pub struct Accumulator {
    pub reduce: Reduce,
    /// The first of its registers, which go downwards.
    first: usize,
    /// A sum has its order; extremes may be found in any, several side by side.
    count: usize,
    /// The mask register that notes where a NaN was, the first of which is in the vector register after the others;
    /// the extremes of numbers are found beside it. `None` if there was no mask left.
    pub nan: Option<usize>,
}

impl Accumulators {
    fn new(folds: &[Fold], copies: usize) -> Accumulators {
        let (mut next, mut masks) = (31, 5..7);
        let accumulator = |fold: &Fold| {
            let nan = if fold.reduce == Reduce::Sum { None } else { masks.next_back() };
            let (first, count) = (next, if nan.is_some() { copies } else { 1 });
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
    fn begin(&self) -> (u8, u8) {
        let taken = |accumulator: &Accumulator| accumulator.count + usize::from(accumulator.nan.is_some());
        let vectors = 32 - self.0.iter().map(taken).sum::<usize>();
        let masks = self.0.iter().filter_map(|accumulator| accumulator.nan).min().unwrap_or(7);
        (vectors as u8, masks as u8)
    }
}

impl Accumulator {
    /// The register that one of several copies of a body reduces to.
    pub fn register(&self, copy: usize) -> usize {
        self.first - copy % self.count
    }

    /// The register of the first NaN of each lane.
    fn first_nan(&self) -> usize {
        self.first - self.count
    }
}

impl Emitter {
    /// The whole function. What is large is written past the caches, if it begins at cache lines: a second version
    /// serves where it does not.
    fn function(&mut self, nest: &Nest) -> Done {
        // Registers from 16 on have no VEX form.
        self.a.set_prefer_vex(false);
        self.a.push(rbx)?;
        self.a.push(r12)?;
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
        if !nest.streams.is_empty() {
            let mut misaligned = self.a.create_label();
            self.a.lea(rbx, qword_ptr(rdx * 4))?;
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
        self.a.add(r8, rdx)?;
        self.a.inc(r11)?;
        self.a.dec(rsi)?;
        self.a.jnz(row)?;
        if !self.streamed.is_empty() {
            // Others must see what was written past the caches before they are told that it is there.
            self.a.sfence()?;
        }
        self.a.add(rsp, (FRAME * 64) as i32)?;
        self.a.pop(r12)?;
        self.a.pop(rbx)?;
        self.a.vzeroupper()?;
        Ok(self.a.ret()?)
    }

    fn pass(&mut self, pass: &Pass) -> Done {
        if pass.folds.len() > 8 {
            return Err(Failure::Pressure);
        }
        let outer = (Registers::new(&pass.outer, 32, 7), &Accumulators::default());
        self.body((&pass.outer, Mode::Outer), outer)?;
        if pass.lanes.is_empty() {
            return Ok(());
        }
        let several = interleave(&pass.lanes);
        let accumulators = Accumulators::new(&pass.folds, several.copies);
        for accumulator in &accumulators.0 {
            let identity = match accumulator.reduce {
                Reduce::Sum => -0.0,
                Reduce::Max => f32::NEG_INFINITY,
                Reduce::Min => f32::INFINITY,
            };
            let constant = self.constant(identity.to_bits());
            for copy in 0..accumulator.count {
                self.a.vbroadcastss(ZMM[accumulator.register(copy)], dword_ptr(rcx + constant))?;
            }
            if let Some(nan) = accumulator.nan {
                self.a.kxorw(K[nan], K[nan], K[nan])?;
            }
        }
        self.lanes(pass, &several, &accumulators)?;
        for (accumulator, fold) in accumulators.0.iter().zip(&pass.folds) {
            self.finish(*accumulator, fold)?;
        }
        Ok(())
    }

    /// The loops over the elements of a row.
    fn lanes(&mut self, pass: &Pass, several: &Interleaved, accumulators: &Accumulators) -> Done {
        let (free, masks) = accumulators.begin();
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
        let mut rest = self.a.create_label();
        self.a.mov(r9, r8)?;
        self.a.xor(r12d, r12d)?;
        for (micros, copies) in [(&several.micros, several.copies), (&pass.lanes, 1)] {
            if copies == 1 && std::ptr::eq(micros, &several.micros) {
                continue;
            }
            let (mut again, mut after) = (self.a.create_label(), self.a.create_label());
            self.label(&mut again)?;
            self.a.lea(rax, qword_ptr(r12 + 16 * copies))?;
            self.a.cmp(rax, r10)?;
            self.a.ja(after)?;
            self.body((micros, Mode::Whole), (registers(micros), accumulators))?;
            self.a.add(r9, 16 * copies as i32)?;
            self.a.add(r12, 16 * copies as i32)?;
            self.a.jmp(again)?;
            self.label(&mut after)?;
        }
        self.a.test(edx, 15)?;
        self.a.jz(rest)?;
        self.body((&pass.lanes, Mode::Partial), (registers(&pass.lanes), accumulators))?;
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
        let mut pins: Vec<usize> = ids(per_row).take(PINNED).collect();
        let mut constants: Vec<usize> = ids(|micro| matches!(micro, Micro::Constant(_))).collect();
        constants.sort_by_key(|&id| std::cmp::Reverse(uses[id]));
        let room = (free as usize).saturating_sub(several.alive + TEMPORARIES + pins.len());
        pins.extend(constants.into_iter().take(room));
        for (at, &id) in pins.iter().enumerate() {
            let number = free as usize - 1 - at;
            match pass.lanes[id] {
                Micro::Load(slot, access, format) => self.load(number, (slot, access, format), Mode::Outer)?,
                Micro::Constant(bits) => {
                    let constant = self.constant(bits);
                    self.a.vbroadcastss(ZMM[number], dword_ptr(rcx + constant))?;
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

    /// The same for numbers: the first NaN is put aside.
    pub fn combine_numbers(
        &mut self,
        of: (Accumulator, usize),
        copy: usize,
        (x, k): (usize, usize),
        partial: bool,
    ) -> Done {
        let (accumulator, noted) = of;
        let to = accumulator.register(copy);
        let (target, nan) = if partial { (ZMM[to].k7(), K[k].k7()) } else { (ZMM[to], K[k]) };
        self.a.vrangeps(target, ZMM[to], ZMM[x], range(accumulator.reduce))?;
        self.a.vcmpps(nan, ZMM[x], ZMM[x], 0x03)?;
        self.a.kandnw(K[k], K[noted], K[k])?;
        self.a.vmovaps(under(ZMM[accumulator.first_nan()], k), ZMM[x])?;
        Ok(self.a.korw(K[noted], K[noted], K[k])?)
    }

    /// Combines the sixteen lanes pairwise and stores the row's result.
    fn finish(&mut self, accumulator: Accumulator, fold: &Fold) -> Done {
        let to = accumulator.register(0);
        for copy in 1..accumulator.count {
            self.a.vrangeps(ZMM[to], ZMM[to], ZMM[accumulator.register(copy)], range(fold.reduce))?;
        }
        if let Some(nan) = accumulator.nan {
            self.a.vmovaps(under(ZMM[to], nan), ZMM[accumulator.first_nan()])?;
        }
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
