//! The instructions of AVX-512: registers of sixteen elements, and masks in registers of their own, of which k7 has the
//! elements of a row's end.

use iced_x86::code_asm::*;
use tapeflow_ir::Reduce;

use super::emit::{Accumulator, Done};
use super::form::{Bank, Extent, Form, Memory, Operand, Operands, Spare, XMM, YMM, ZMM, pair, predicate};
use super::record::{Bits, Format, Kind, Micro, Pair};

/// AVX-512 F, BW, DQ and VL.
#[derive(Debug)]
pub struct Zmm;

const K: [AsmRegisterK; 8] = [k0, k1, k2, k3, k4, k5, k6, k7];

/// A register under a mask.
fn under(register: AsmRegisterZmm, mask: usize) -> AsmRegisterZmm {
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

/// The immediate of `VRANGEPS`, which knows the sign of zeros.
fn range(reduce: Reduce) -> i32 {
    if reduce == Reduce::Min { 0x04 } else { 0x05 }
}

impl Accumulator {
    /// The register of the first NaN of each lane.
    fn first_nan(&self) -> usize {
        self.first - self.count
    }
}

/// `to ← to ∘ x`
fn combine(a: &mut CodeAssembler, reduce: Reduce, to: usize, x: usize, (t, k): Spare, is_tail: bool) -> Done {
    let target = if is_tail { ZMM[to].k7() } else { ZMM[to] };
    match reduce {
        Reduce::Sum => return Ok(a.vaddps(target, ZMM[to], ZMM[x])?),
        Reduce::Max => a.vmaxps(ZMM[t], ZMM[to], ZMM[x])?,
        Reduce::Min => a.vminps(ZMM[t], ZMM[to], ZMM[x])?,
    }
    a.vcmpps(K[k], ZMM[to], ZMM[x], 0x00)?;
    match reduce {
        Reduce::Min => a.vorps(under(ZMM[t], k), ZMM[to], ZMM[x])?,
        _ => a.vandps(under(ZMM[t], k), ZMM[to], ZMM[x])?,
    }
    a.vcmpps(K[k], ZMM[to], ZMM[to], 0x03)?;
    a.vmovaps(under(ZMM[t], k), ZMM[to])?;
    Ok(a.vmovaps(target, ZMM[t])?)
}

impl Form for Zmm {
    fn bank(&self) -> &'static Bank {
        &Bank { lanes: 16, vectors: 32, masks: 7, nans: 5..7, alive: 28, folds: 8 }
    }

    fn table(&self) -> &'static [u32] {
        &[]
    }

    fn repeats(&self) -> usize {
        1
    }

    fn enter(&self, a: &mut CodeAssembler) -> Done {
        // Registers from 16 on have no VEX form.
        a.set_prefer_vex(false);
        a.mov(eax, edx)?;
        a.and(eax, 15)?;
        a.mov(ebx, -1)?;
        a.bzhi(eax, ebx, eax)?;
        Ok(a.kmovw(k7, eax)?)
    }

    fn leave(&self, _a: &mut CodeAssembler) -> Done {
        Ok(())
    }

    fn load(&self, a: &mut CodeAssembler, dst: usize, from: Memory, spare: usize, tail: Option<usize>) -> Done {
        let (from, format) = from;
        // What is left of a row is read under a mask.
        let target = |number: usize| if tail.is_some() { ZMM[number].k7().z() } else { ZMM[number] };
        match format {
            Format::Word => a.vmovups(target(dst), zmmword_ptr(from))?,
            Format::F16 => a.vcvtph2ps(target(dst), ymmword_ptr(from))?,
            Format::Bf16 => {
                a.vpmovzxwd(target(dst), ymmword_ptr(from))?;
                a.vpslld(ZMM[dst], ZMM[dst], 16)?;
            }
            Format::Byte => {
                a.vpmovzxbd(target(spare), xmmword_ptr(from))?;
                a.vptestmd(K[dst], ZMM[spare], ZMM[spare])?;
            }
        }
        Ok(())
    }

    fn spread(&self, a: &mut CodeAssembler, dst: usize, from: Memory) -> Done {
        let (from, format) = from;
        match format {
            Format::Word => a.vbroadcastss(ZMM[dst], dword_ptr(from))?,
            Format::Bf16 => {
                a.vpbroadcastw(ZMM[dst], word_ptr(from))?;
                a.vpslld(ZMM[dst], ZMM[dst], 16)?;
            }
            Format::F16 => {
                a.vpbroadcastw(YMM[dst], word_ptr(from))?;
                a.vcvtph2ps(ZMM[dst], YMM[dst])?;
            }
            Format::Byte => {
                a.movzx(ebx, byte_ptr(from))?;
                a.neg(ebx)?;
                a.kmovw(K[dst], ebx)?;
            }
        }
        Ok(())
    }

    fn store(&self, a: &mut CodeAssembler, x: usize, to: Memory, [t, _]: [usize; 2], extent: Extent) -> Done {
        let (to, format) = to;
        let masked = |to: AsmMemoryOperand| if matches!(extent, Extent::Tail(_)) { to.k7() } else { to };
        match format {
            Format::Word if extent == Extent::Streamed => a.vmovntps(zmmword_ptr(to), ZMM[x])?,
            Format::Word => a.vmovups(masked(zmmword_ptr(to)), ZMM[x])?,
            Format::F16 => a.vcvtps2ph(masked(ymmword_ptr(to)), ZMM[x], 0)?,
            Format::Bf16 => {
                a.vpsrld(ZMM[t], ZMM[x], 16)?;
                a.vpmovdw(masked(ymmword_ptr(to)), ZMM[t])?;
            }
            Format::Byte => {
                a.vpmovm2b(XMM[t], K[x])?;
                a.vpabsb(XMM[t], XMM[t])?;
                a.vmovdqu8(masked(xmmword_ptr(to)), XMM[t])?;
            }
        }
        Ok(())
    }

    fn store_one(&self, a: &mut CodeAssembler, x: usize, to: Memory) -> Done {
        let (to, format) = to;
        match format {
            Format::Word => a.vmovss(dword_ptr(to), XMM[x])?,
            Format::Byte => {
                a.kmovw(ebx, K[x])?;
                a.and(ebx, 1)?;
                a.mov(byte_ptr(to), bl)?;
            }
            Format::Bf16 => {
                a.vmovd(ebx, XMM[x])?;
                a.shr(ebx, 16)?;
                a.mov(word_ptr(to), bx)?;
            }
            Format::F16 => {
                // The value remains what it is: it is a number of f16.
                a.vcvtps2ph(XMM[x], XMM[x], 0)?;
                a.vmovd(ebx, XMM[x])?;
                a.mov(word_ptr(to), bx)?;
                a.vcvtph2ps(ZMM[x], YMM[x])?;
                a.vbroadcastss(ZMM[x], XMM[x])?;
            }
        }
        Ok(())
    }

    fn spill(&self, a: &mut CodeAssembler, number: usize, kind: Kind, place: AsmMemoryOperand) -> Done {
        match kind {
            Kind::Vector => Ok(a.vmovups(zmmword_ptr(place), ZMM[number])?),
            Kind::Mask => Ok(a.kmovw(word_ptr(place), K[number])?),
        }
    }

    fn restore(&self, a: &mut CodeAssembler, number: usize, kind: Kind, place: AsmMemoryOperand) -> Done {
        match kind {
            Kind::Vector => Ok(a.vmovups(ZMM[number], zmmword_ptr(place))?),
            Kind::Mask => Ok(a.kmovw(K[number], word_ptr(place))?),
        }
    }

    fn spare(&self, micro: &Micro, _is_tail: bool) -> usize {
        usize::from(matches!(micro, Micro::Store(_, _, Format::Byte | Format::Bf16, _)))
    }

    fn compute(&self, a: &mut CodeAssembler, micro: Micro, of: Operands) -> Done {
        let Operands { dst, x, y, z, constant, .. } = of;
        match (micro, y) {
            (Micro::Pair(pair, ..), Operand::Register(y)) => pair!(a, pair, ZMM[dst], ZMM[x], ZMM[y]),
            (Micro::Pair(pair, ..), Operand::Constant(at)) => pair!(a, pair, ZMM[dst], ZMM[x], dword_bcst(rcx + at)),
            (Micro::Compare(relation, ..), Operand::Register(y)) => {
                a.vcmpps(K[dst], ZMM[x], ZMM[y], predicate(relation))?;
            }
            (Micro::Compare(relation, ..), Operand::Constant(at)) => {
                a.vcmpps(K[dst], ZMM[x], dword_bcst(rcx + at), predicate(relation))?;
            }
            (Micro::MulAdd(..), y) => {
                a.vmovaps(ZMM[dst], ZMM[x])?;
                a.vfmadd213ps(ZMM[dst], ZMM[y.register()], ZMM[z])?;
            }
            (Micro::CopySign(..), y) => {
                a.vmovaps(ZMM[dst], ZMM[y.register()])?;
                // constant ? magnitude : sign
                a.vpternlogd(ZMM[dst], ZMM[x], dword_bcst(rcx + constant), 0xd8)?;
            }
            (Micro::Scale(..), y) => a.vscalefps(ZMM[dst], ZMM[x], ZMM[y.register()])?,
            (Micro::Sqrt(_), _) => a.vsqrtps(ZMM[dst], ZMM[x])?,
            (Micro::Round(_, mode), _) => a.vrndscaleps(ZMM[dst], ZMM[x], i32::from(mode))?,
            (Micro::ShiftLeft(_, bits), _) => a.vpslld(ZMM[dst], ZMM[x], i32::from(bits))?,
            (Micro::ShiftRight(_, bits), _) => a.vpsrad(ZMM[dst], ZMM[x], i32::from(bits))?,
            (Micro::Select(..), y) => a.vblendmps(under(ZMM[dst], x), ZMM[z], ZMM[y.register()])?,
            (Micro::Bits(bits, ..), y) => match bits {
                Bits::And => a.kandw(K[dst], K[x], K[y.register()])?,
                Bits::Or => a.korw(K[dst], K[x], K[y.register()])?,
                Bits::Xor => a.kxorw(K[dst], K[x], K[y.register()])?,
            },
            (Micro::Not(_), _) => a.knotw(K[dst], K[x])?,
            (Micro::Float(_), _) => a.vbroadcastss(under(ZMM[dst], x).z(), dword_ptr(rcx + constant))?,
            (Micro::RoundF16(_), _) => {
                a.vcvtps2ph(YMM[dst], ZMM[x], 0)?;
                a.vcvtph2ps(ZMM[dst], YMM[dst])?;
            }
            (other, _) => unreachable!("{other:?} is not computed"),
        }
        Ok(())
    }

    fn clear(&self, a: &mut CodeAssembler, mask: usize) -> Done {
        Ok(a.kxorw(K[mask], K[mask], K[mask])?)
    }

    fn fold(
        &self,
        a: &mut CodeAssembler,
        (accumulator, copy): (Accumulator, usize),
        x: usize,
        (t, k): Spare,
        tail: Option<usize>,
    ) -> Done {
        let to = accumulator.register(copy);
        let Some(noted) = accumulator.nan else {
            return combine(a, accumulator.reduce, to, x, (t, k), tail.is_some());
        };
        // The extremes are those of numbers; the first NaN is put aside.
        let (target, nan) = if tail.is_some() { (ZMM[to].k7(), K[k].k7()) } else { (ZMM[to], K[k]) };
        a.vrangeps(target, ZMM[to], ZMM[x], range(accumulator.reduce))?;
        a.vcmpps(nan, ZMM[x], ZMM[x], 0x03)?;
        a.kandnw(K[k], K[noted], K[k])?;
        a.vmovaps(under(ZMM[accumulator.first_nan()], k), ZMM[x])?;
        Ok(a.korw(K[noted], K[noted], K[k])?)
    }

    fn join(&self, a: &mut CodeAssembler, accumulator: Accumulator) -> Done {
        let (to, reduce) = (accumulator.register(0), accumulator.reduce);
        for copy in 1..accumulator.count {
            a.vrangeps(ZMM[to], ZMM[to], ZMM[accumulator.register(copy)], range(reduce))?;
        }
        if let Some(nan) = accumulator.nan {
            a.vmovaps(under(ZMM[to], nan), ZMM[accumulator.first_nan()])?;
        }
        for half in [8, 4, 2, 1] {
            match half {
                8 => a.vextractf32x8(YMM[0], ZMM[to], 1)?,
                4 => a.vextractf32x4(XMM[0], YMM[to], 1)?,
                2 => a.vpermilps(XMM[0], XMM[to], 0b0100_1110)?,
                _ => a.vpermilps(XMM[0], XMM[to], 0b1011_0001)?,
            }
            combine(a, reduce, to, 0, (1, 1), false)?;
        }
        Ok(())
    }
}
