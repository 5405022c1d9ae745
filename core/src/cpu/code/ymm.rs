//! The instructions of AVX2 with FMA and F16C: registers of eight elements, two for the sixteen that sums are made of,
//! and masks in vector registers, all bits of an element alike. A row's end is read and written under masks from a
//! table before the constants, which r13 points into; what is smaller than a word, element by element.

use iced_x86::code_asm::*;
use tapeflow_ir::Reduce;

use super::emit::{Accumulator, Done, REST};
use super::form::{Bank, Extent, Form, Memory, Operand, Operands, Spare, XMM, YMM, pair, predicate};
use super::record::{Bits, Format, Kind, Micro, Pair};

/// AVX2, FMA and F16C.
#[derive(Debug)]
pub struct Ymm;

/// Bytes of a register.
const BYTES: i32 = 32;

/// The mask of the elements of a row's end: those of the register of that number.
fn mask(part: usize) -> AsmMemoryOperand {
    ymmword_ptr(r13 + (64 + BYTES * part as i32))
}

/// `to ← to ∘ x`
fn combine(a: &mut CodeAssembler, reduce: Reduce, to: usize, x: usize, (t, k): Spare, tail: Option<usize>) -> Done {
    match (reduce, tail) {
        (Reduce::Sum, None) => return Ok(a.vaddps(YMM[to], YMM[to], YMM[x])?),
        (Reduce::Sum, Some(_)) => a.vaddps(YMM[t], YMM[to], YMM[x])?,
        // Of equals the second is chosen: the sign of zeros is brought in where they are.
        (Reduce::Max, _) => {
            a.vmaxps(YMM[t], YMM[to], YMM[x])?;
            a.vcmpps(YMM[k], YMM[to], YMM[x], 0x04)?;
            a.vorps(YMM[k], YMM[k], YMM[to])?;
            a.vandps(YMM[t], YMM[t], YMM[k])?;
        }
        (Reduce::Min, _) => {
            a.vminps(YMM[t], YMM[to], YMM[x])?;
            a.vcmpps(YMM[k], YMM[to], YMM[x], 0x00)?;
            a.vandps(YMM[k], YMM[k], YMM[to])?;
            a.vorps(YMM[t], YMM[t], YMM[k])?;
        }
    }
    if reduce != Reduce::Sum {
        a.vcmpps(YMM[k], YMM[to], YMM[to], 0x03)?;
        match tail {
            None => return Ok(a.vblendvps(YMM[to], YMM[t], YMM[to], YMM[k])?),
            Some(_) => a.vblendvps(YMM[t], YMM[t], YMM[to], YMM[k])?,
        }
    }
    a.vmovups(YMM[k], mask(tail.unwrap_or(0)))?;
    Ok(a.vblendvps(YMM[to], YMM[to], YMM[t], YMM[k])?)
}

/// Copies the elements of a row's end, of one register: from memory to the frame, or back.
fn copy_rest(a: &mut CodeAssembler, memory: AsmMemoryOperand, size: i32, part: usize, to_frame: bool) -> Done {
    let (mut again, mut done) = (a.create_label(), a.create_label());
    a.mov(ebx, edx)?;
    a.and(ebx, 15)?;
    match part {
        0 => {
            a.mov(r15d, 8)?;
            a.cmp(ebx, r15d)?;
            a.cmova(ebx, r15d)?;
        }
        _ => {
            a.sub(ebx, 8)?;
            a.jbe(done)?;
        }
    }
    a.lea(r14, qword_ptr(memory))?;
    let (outside, frame) = (r14 + rbx * size - size, rsp + rbx * size + (REST - size));
    let (from, to) = if to_frame { (outside, frame) } else { (frame, outside) };
    a.set_label(&mut again)?;
    match size {
        1 => {
            a.movzx(r15d, byte_ptr(from))?;
            a.mov(byte_ptr(to), r15b)?;
        }
        _ => {
            a.movzx(r15d, word_ptr(from))?;
            a.mov(word_ptr(to), r15w)?;
        }
    }
    a.dec(ebx)?;
    a.jnz(again)?;
    a.set_label(&mut done)?;
    Ok(a.nop()?)
}

impl Form for Ymm {
    fn bank(&self) -> &'static Bank {
        // Twice as many as there are registers: to spill some costs less than to wait for results.
        &Bank { lanes: 8, vectors: 16, masks: 0, nans: 0..0, alive: 32, folds: 4 }
    }

    fn table(&self) -> &'static [u32] {
        const { &[[!0; 16], [0; 16]] }.as_flattened()
    }

    fn repeats(&self) -> usize {
        8
    }

    fn enter(&self, a: &mut CodeAssembler) -> Done {
        a.set_prefer_vex(true);
        a.push(r13)?;
        a.push(r14)?;
        a.push(r15)?;
        a.mov(eax, edx)?;
        a.and(eax, 15)?;
        a.shl(eax, 2)?;
        a.mov(r13, rcx)?;
        Ok(a.sub(r13, rax)?)
    }

    fn leave(&self, a: &mut CodeAssembler) -> Done {
        a.pop(r15)?;
        a.pop(r14)?;
        Ok(a.pop(r13)?)
    }

    fn load(&self, a: &mut CodeAssembler, dst: usize, from: Memory, spare: usize, tail: Option<usize>) -> Done {
        let (mut from, format) = from;
        match tail {
            Some(part) if format == Format::Word => {
                a.vmovups(YMM[dst], mask(part))?;
                return Ok(a.vmaskmovps(YMM[dst], YMM[dst], ymmword_ptr(from))?);
            }
            Some(part) => {
                copy_rest(a, from, format.size(), part, true)?;
                from = rsp + REST;
            }
            None => {}
        }
        match format {
            Format::Word => a.vmovups(YMM[dst], ymmword_ptr(from))?,
            Format::F16 => a.vcvtph2ps(YMM[dst], xmmword_ptr(from))?,
            Format::Bf16 => {
                a.vpmovzxwd(YMM[dst], xmmword_ptr(from))?;
                a.vpslld(YMM[dst], YMM[dst], 16)?;
            }
            Format::Byte => {
                a.vpmovzxbd(YMM[spare], qword_ptr(from))?;
                a.vpxor(YMM[dst], YMM[dst], YMM[dst])?;
                a.vpcmpgtd(YMM[dst], YMM[spare], YMM[dst])?;
            }
        }
        Ok(())
    }

    fn spread(&self, a: &mut CodeAssembler, dst: usize, from: Memory) -> Done {
        let (from, format) = from;
        match format {
            Format::Word => a.vbroadcastss(YMM[dst], dword_ptr(from))?,
            Format::Bf16 => {
                a.vpbroadcastw(YMM[dst], word_ptr(from))?;
                a.vpslld(YMM[dst], YMM[dst], 16)?;
            }
            Format::F16 => {
                a.vpbroadcastw(XMM[dst], word_ptr(from))?;
                a.vcvtph2ps(YMM[dst], XMM[dst])?;
            }
            Format::Byte => {
                a.movzx(ebx, byte_ptr(from))?;
                a.neg(ebx)?;
                a.vmovd(XMM[dst], ebx)?;
                a.vpbroadcastd(YMM[dst], XMM[dst])?;
            }
        }
        Ok(())
    }

    fn store(&self, a: &mut CodeAssembler, x: usize, to: Memory, [t, u]: [usize; 2], extent: Extent) -> Done {
        let (to, format) = to;
        let tail = if let Extent::Tail(part) = extent { Some(part) } else { None };
        match (format, extent) {
            (Format::Word, Extent::Whole) => return Ok(a.vmovups(ymmword_ptr(to), YMM[x])?),
            (Format::Word, Extent::Streamed) => return Ok(a.vmovntps(ymmword_ptr(to), YMM[x])?),
            (Format::Word, Extent::Tail(part)) => {
                a.vmovups(YMM[t], mask(part))?;
                return Ok(a.vmaskmovps(ymmword_ptr(to), YMM[t], YMM[x])?);
            }
            (Format::F16, _) => {
                let to = if tail.is_some() { rsp + REST } else { to };
                a.vcvtps2ph(xmmword_ptr(to), YMM[x], 0)?;
            }
            (Format::Bf16 | Format::Byte, _) => {
                // The words' upper halves, or their signs as 0 and 1; those packed.
                a.vpsrld(YMM[t], YMM[x], if format == Format::Bf16 { 16 } else { 31 })?;
                a.vextracti128(XMM[u], YMM[t], 1)?;
                a.vpackusdw(XMM[t], XMM[t], XMM[u])?;
                let to = if tail.is_some() { rsp + REST } else { to };
                match format {
                    Format::Bf16 => a.vmovdqu(xmmword_ptr(to), XMM[t])?,
                    _ => {
                        a.vpackuswb(XMM[t], XMM[t], XMM[t])?;
                        a.vmovq(qword_ptr(to), XMM[t])?;
                    }
                }
            }
        }
        tail.map_or(Ok(()), |part| copy_rest(a, to, format.size(), part, false))
    }

    fn store_one(&self, a: &mut CodeAssembler, x: usize, to: Memory) -> Done {
        let (to, format) = to;
        match format {
            Format::Word => a.vmovss(dword_ptr(to), XMM[x])?,
            Format::Byte => {
                a.vmovd(ebx, XMM[x])?;
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
                a.vcvtph2ps(XMM[x], XMM[x])?;
                a.vbroadcastss(YMM[x], XMM[x])?;
            }
        }
        Ok(())
    }

    fn spill(&self, a: &mut CodeAssembler, number: usize, _kind: Kind, place: AsmMemoryOperand) -> Done {
        Ok(a.vmovups(ymmword_ptr(place), YMM[number])?)
    }

    fn restore(&self, a: &mut CodeAssembler, number: usize, _kind: Kind, place: AsmMemoryOperand) -> Done {
        Ok(a.vmovups(YMM[number], ymmword_ptr(place))?)
    }

    fn spare(&self, micro: &Micro, is_tail: bool) -> usize {
        match micro {
            Micro::CopySign(..) => 1,
            Micro::Store(_, _, Format::Byte | Format::Bf16, _) => 2,
            Micro::Store(_, _, Format::Word, _) => usize::from(is_tail),
            _ => 0,
        }
    }

    fn compute(&self, a: &mut CodeAssembler, micro: Micro, of: Operands) -> Done {
        let Operands { dst, x, y, z, spare, constant } = of;
        match (micro, y) {
            (Micro::Pair(pair, ..), Operand::Register(y)) => pair!(a, pair, YMM[dst], YMM[x], YMM[y]),
            (Micro::Pair(pair, ..), Operand::Constant(at)) => pair!(a, pair, YMM[dst], YMM[x], ymmword_ptr(rcx + at)),
            (Micro::Compare(relation, ..), Operand::Register(y)) => {
                a.vcmpps(YMM[dst], YMM[x], YMM[y], predicate(relation))?;
            }
            (Micro::Compare(relation, ..), Operand::Constant(at)) => {
                a.vcmpps(YMM[dst], YMM[x], ymmword_ptr(rcx + at), predicate(relation))?;
            }
            (Micro::MulAdd(..), y) => {
                a.vmovaps(YMM[dst], YMM[x])?;
                a.vfmadd213ps(YMM[dst], YMM[y.register()], YMM[z])?;
            }
            (Micro::CopySign(..), y) => {
                a.vmovups(YMM[spare], ymmword_ptr(rcx + constant))?;
                a.vandps(YMM[dst], YMM[spare], YMM[x])?;
                a.vandnps(YMM[spare], YMM[spare], YMM[y.register()])?;
                a.vorps(YMM[dst], YMM[dst], YMM[spare])?;
            }
            (Micro::Sqrt(_), _) => a.vsqrtps(YMM[dst], YMM[x])?,
            (Micro::Round(_, mode), _) => a.vroundps(YMM[dst], YMM[x], i32::from(mode))?,
            (Micro::ShiftLeft(_, bits), _) => a.vpslld(YMM[dst], YMM[x], i32::from(bits))?,
            (Micro::ShiftRight(_, bits), _) => a.vpsrad(YMM[dst], YMM[x], i32::from(bits))?,
            (Micro::Select(..), y) => a.vblendvps(YMM[dst], YMM[z], YMM[y.register()], YMM[x])?,
            (Micro::Bits(bits, ..), y) => match bits {
                Bits::And => a.vandps(YMM[dst], YMM[x], YMM[y.register()])?,
                Bits::Or => a.vorps(YMM[dst], YMM[x], YMM[y.register()])?,
                Bits::Xor => a.vxorps(YMM[dst], YMM[x], YMM[y.register()])?,
            },
            (Micro::Not(_), _) => {
                a.vpcmpeqd(YMM[dst], YMM[dst], YMM[dst])?;
                a.vxorps(YMM[dst], YMM[dst], YMM[x])?;
            }
            (Micro::Float(_), _) => a.vandps(YMM[dst], YMM[x], ymmword_ptr(rcx + constant))?,
            (Micro::RoundF16(_), _) => {
                a.vcvtps2ph(XMM[dst], YMM[x], 0)?;
                a.vcvtph2ps(YMM[dst], XMM[dst])?;
            }
            (other, _) => unreachable!("{other:?} is not computed, or recorded as what there is instructions for"),
        }
        Ok(())
    }

    fn clear(&self, _a: &mut CodeAssembler, mask: usize) -> Done {
        unreachable!("invariant: there is no mask register {mask}")
    }

    fn fold(
        &self,
        a: &mut CodeAssembler,
        (accumulator, copy): (Accumulator, usize),
        x: usize,
        spare: Spare,
        tail: Option<usize>,
    ) -> Done {
        combine(a, accumulator.reduce, accumulator.register(copy), x, spare, tail)
    }

    fn join(&self, a: &mut CodeAssembler, accumulator: Accumulator) -> Done {
        let (to, upper) = (accumulator.register(0), accumulator.register(1));
        combine(a, accumulator.reduce, to, upper, (1, 2), None)?;
        for half in [4, 2, 1] {
            match half {
                4 => a.vextractf128(XMM[0], YMM[to], 1)?,
                2 => a.vpermilps(XMM[0], XMM[to], 0b0100_1110)?,
                _ => a.vpermilps(XMM[0], XMM[to], 0b1011_0001)?,
            }
            combine(a, accumulator.reduce, to, 0, (1, 2), None)?;
        }
        Ok(())
    }
}
