//! The instructions of a body: for each micro-operation the machine's own, on the registers that `registers` chooses.

use iced_x86::code_asm::*;

use super::emit::{Accumulators, Done, Emitter, FRAME, Failure, K, Mode, XMM, YMM, ZMM, under};
use super::record::{Access, Bits, Format, Id, Kind, Micro, Pair, Relation};
use super::registers::{Evicted, Registers};
use crate::cpu::step::Slot;

/// The body that is being written.
struct Body<'a> {
    micros: &'a [Micro],
    accumulators: &'a Accumulators,
    mode: Mode,
    registers: Registers,
}

/// The number of an access's first element, and how many registers after it; `None` if it is one for all.
fn element(access: Access) -> Option<(AsmRegister64, i32)> {
    match access {
        Access::Lane(at) => Some((r9, i32::from(at))),
        Access::Column(at) => Some((r12, i32::from(at))),
        Access::Row | Access::Fixed => None,
    }
}

impl Emitter {
    /// Writes a body.
    pub fn body(&mut self, (micros, mode): (&[Micro], Mode), of: (Registers, &Accumulators)) -> Done {
        let (registers, accumulators) = of;
        let mut body = Body { micros, accumulators, mode, registers };
        for (index, &micro) in micros.iter().enumerate() {
            body.registers.begin(index);
            self.micro(&mut body, index as Id, micro)?;
            if body.registers.frame() > FRAME {
                return Err(Failure::Pressure);
            }
        }
        Ok(())
    }

    /// A register for the result `id`.
    fn take(&mut self, body: &mut Body<'_>, id: Id, kind: Kind) -> Done<usize> {
        let (number, evicted) = body.registers.take(id, kind).ok_or(Failure::Pressure)?;
        let number = number as usize;
        if let Evicted::Spilled(place) = evicted {
            match kind {
                Kind::Vector => self.a.vmovups(zmmword_ptr(rsp + place * 64), ZMM[number])?,
                Kind::Mask => self.a.kmovw(word_ptr(rsp + place * 64), K[number])?,
            }
        }
        Ok(number)
    }

    /// The register that holds `id`, which is brought there if it is not yet.
    fn get(&mut self, body: &mut Body<'_>, id: Id) -> Done<usize> {
        if let Some(number) = body.registers.find(id) {
            return Ok(number as usize);
        }
        let micro = body.micros[id as usize];
        let kind = micro.kind();
        let number = self.take(body, id, kind)?;
        match (micro, body.registers.spilled(id)) {
            (Micro::Constant(bits), _) => {
                let constant = self.constant(bits);
                self.a.vbroadcastss(ZMM[number], dword_ptr(rcx + constant))?;
            }
            (Micro::Load(slot, access, Format::Byte), _) => self.load_mask(body, number, slot, access)?,
            (Micro::Load(slot, access, format), _) => self.load(number, (slot, access, format), body.mode)?,
            (_, Some(place)) if kind == Kind::Vector => self.a.vmovups(ZMM[number], zmmword_ptr(rsp + place * 64))?,
            (_, Some(place)) => self.a.kmovw(K[number], word_ptr(rsp + place * 64))?,
            (_, None) => return Err(Failure::Pressure),
        }
        Ok(number)
    }

    fn load_mask(&mut self, body: &mut Body<'_>, dst: usize, slot: u16, access: Access) -> Done {
        if let Some((element, at)) = element(access) {
            let t = self.temporary(body, Kind::Vector)?;
            self.address(slot)?;
            match body.mode {
                Mode::Partial => self.a.vpmovzxbd(ZMM[t].k7().z(), xmmword_ptr(rax + element))?,
                _ => self.a.vpmovzxbd(ZMM[t], xmmword_ptr(rax + element + at * 16))?,
            }
            self.a.vptestmd(K[dst], ZMM[t], ZMM[t])?;
            return Ok(());
        }
        self.address(slot)?;
        match access {
            Access::Row => self.a.movzx(eax, byte_ptr(rax + r11))?,
            _ => self.a.movzx(eax, byte_ptr(rax))?,
        }
        self.pointer = None;
        self.a.neg(eax)?;
        self.a.kmovw(K[dst], eax)?;
        Ok(())
    }

    /// A register for the time of one operation.
    fn temporary(&mut self, body: &mut Body<'_>, kind: Kind) -> Done<usize> {
        let id = body.registers.temporary();
        self.take(body, id, kind)
    }

    fn micro(&mut self, body: &mut Body<'_>, id: Id, micro: Micro) -> Done {
        /// `$op dst, a, b` with `b` in a register or a constant.
        macro_rules! with_constant {
            ($body:ident, $id:ident, $a:ident, $b:ident, $($pair:ident => $op:ident),*) => {{
                let x = ZMM[self.get($body, $a)?];
                match (self.constant_of($body, $b), micro) {
                    $((Some(at), Micro::Pair(Pair::$pair, ..)) => {
                        let dst = ZMM[self.take($body, $id, Kind::Vector)?];
                        self.a.$op(dst, x, dword_bcst(rcx + at))?;
                    })*
                    $((None, Micro::Pair(Pair::$pair, ..)) => {
                        let y = ZMM[self.get($body, $b)?];
                        let dst = ZMM[self.take($body, $id, Kind::Vector)?];
                        self.a.$op(dst, x, y)?;
                    })*
                    _ => {}
                }
            }};
        }
        match micro {
            Micro::Constant(_) | Micro::Load(..) => {}
            Micro::Pair(pair, a, b) => {
                // A constant goes second where the order does not matter.
                let swaps = matches!(pair, Pair::Add | Pair::Mul | Pair::And | Pair::Or | Pair::Xor | Pair::IntAdd);
                let (a, b) = if swaps && self.constant_of(body, a).is_some() { (b, a) } else { (a, b) };
                with_constant!(body, id, a, b, Add => vaddps, Sub => vsubps, Mul => vmulps, Div => vdivps,
                    Larger => vmaxps, Smaller => vminps, And => vandps, Or => vorps, Xor => vxorps,
                    IntAdd => vpaddd, IntSub => vpsubd);
            }
            Micro::MulAdd(a, b, c) => {
                let (x, y, z) = (self.get(body, a)?, self.get(body, b)?, self.get(body, c)?);
                let dst = self.take(body, id, Kind::Vector)?;
                self.a.vmovaps(ZMM[dst], ZMM[x])?;
                self.a.vfmadd213ps(ZMM[dst], ZMM[y], ZMM[z])?;
            }
            Micro::CopySign(a, b) => {
                let (x, y) = (self.get(body, a)?, self.get(body, b)?);
                let dst = self.take(body, id, Kind::Vector)?;
                let constant = self.constant(0x7fff_ffff);
                self.a.vmovaps(ZMM[dst], ZMM[y])?;
                // constant ? magnitude : sign
                self.a.vpternlogd(ZMM[dst], ZMM[x], dword_bcst(rcx + constant), 0xd8)?;
            }
            Micro::Scale(a, b) => {
                let (x, k) = (self.get(body, a)?, self.get(body, b)?);
                let dst = self.take(body, id, Kind::Vector)?;
                self.a.vscalefps(ZMM[dst], ZMM[x], ZMM[k])?;
            }
            Micro::Sqrt(a) => {
                let x = self.get(body, a)?;
                let dst = self.take(body, id, Kind::Vector)?;
                self.a.vsqrtps(ZMM[dst], ZMM[x])?;
            }
            Micro::Round(a, mode) => {
                let x = self.get(body, a)?;
                let dst = self.take(body, id, Kind::Vector)?;
                self.a.vrndscaleps(ZMM[dst], ZMM[x], i32::from(mode))?;
            }
            Micro::ShiftLeft(a, bits) => {
                let x = self.get(body, a)?;
                let dst = self.take(body, id, Kind::Vector)?;
                self.a.vpslld(ZMM[dst], ZMM[x], i32::from(bits))?;
            }
            Micro::ShiftRight(a, bits) => {
                let x = self.get(body, a)?;
                let dst = self.take(body, id, Kind::Vector)?;
                self.a.vpsrad(ZMM[dst], ZMM[x], i32::from(bits))?;
            }
            Micro::Compare(relation, a, b) => {
                let predicate = match relation {
                    Relation::Eq => 0x00,
                    Relation::Ne => 0x04,
                    Relation::Lt => 0x11,
                    Relation::Le => 0x12,
                    Relation::Gt => 0x1e,
                    Relation::Ge => 0x1d,
                    Relation::Unordered => 0x03,
                };
                let (x, y) = (self.get(body, a)?, self.get(body, b)?);
                let dst = self.take(body, id, Kind::Mask)?;
                self.a.vcmpps(K[dst], ZMM[x], ZMM[y], predicate)?;
            }
            Micro::Select(mask, yes, no) => {
                let (k, x, y) = (self.get(body, mask)?, self.get(body, yes)?, self.get(body, no)?);
                let dst = self.take(body, id, Kind::Vector)?;
                self.a.vblendmps(under(ZMM[dst], k), ZMM[y], ZMM[x])?;
            }
            Micro::Bits(bits, a, b) => {
                let (x, y) = (self.get(body, a)?, self.get(body, b)?);
                let dst = self.take(body, id, Kind::Mask)?;
                match bits {
                    Bits::And => self.a.kandw(K[dst], K[x], K[y])?,
                    Bits::Or => self.a.korw(K[dst], K[x], K[y])?,
                    Bits::Xor => self.a.kxorw(K[dst], K[x], K[y])?,
                }
            }
            Micro::Not(a) => {
                let x = self.get(body, a)?;
                let dst = self.take(body, id, Kind::Mask)?;
                self.a.knotw(K[dst], K[x])?;
            }
            Micro::Float(a) => {
                let k = self.get(body, a)?;
                let dst = self.take(body, id, Kind::Vector)?;
                let constant = self.constant(1f32.to_bits());
                self.a.vbroadcastss(under(ZMM[dst], k).z(), dword_ptr(rcx + constant))?;
            }
            Micro::RoundF16(a) => {
                let x = self.get(body, a)?;
                let dst = self.take(body, id, Kind::Vector)?;
                self.a.vcvtps2ph(YMM[dst], ZMM[x], 0)?;
                self.a.vcvtph2ps(ZMM[dst], YMM[dst])?;
            }
            Micro::Store(slot, access, format, a) => self.store(body, (slot, access, format), a)?,
            Micro::Fetch(slot, access) => {
                if let (Some((element, at)), Mode::Whole) = (element(access), body.mode) {
                    self.address(slot)?;
                    self.a.lea(rbx, qword_ptr(element + rdx))?;
                    self.a.prefetcht0(byte_ptr(rax + rbx * 4 + at * 64))?;
                }
            }
            Micro::Fold(number, copy, a) => {
                let x = self.get(body, a)?;
                let (accumulator, copy) = (body.accumulators.of(number), copy as usize);
                let partial = body.mode == Mode::Partial;
                if let Some(nan) = accumulator.nan {
                    let k = self.temporary(body, Kind::Mask)?;
                    self.combine_numbers((accumulator, nan), copy, (x, k), partial)?;
                } else {
                    let t = self.temporary(body, Kind::Vector)?;
                    let k = self.temporary(body, Kind::Mask)?;
                    self.combine(accumulator.reduce, accumulator.register(copy), x, (t, k), partial)?;
                }
            }
        }
        Ok(())
    }

    /// The offset of a value that is a constant and in no register.
    fn constant_of(&mut self, body: &Body<'_>, id: Id) -> Option<i32> {
        match body.micros[id as usize] {
            Micro::Constant(bits) if !body.registers.is_held(id) => Some(self.constant(bits)),
            _ => None,
        }
    }

    fn store(&mut self, body: &mut Body<'_>, to: (Slot, Access, Format), a: Id) -> Done {
        let (slot, access, format) = to;
        let x = self.get(body, a)?;
        let Some((element, at)) = element(access) else { return self.store_row(slot, format, x) };
        let partial = body.mode == Mode::Partial;
        let mut t = 0;
        if matches!(format, Format::Byte | Format::Bf16) {
            t = self.temporary(body, Kind::Vector)?;
        }
        self.address(slot)?;
        let to = rax + element * format.size() + at * 16 * format.size();
        match format {
            Format::Word if partial => self.a.vmovups(zmmword_ptr(to).k7(), ZMM[x])?,
            Format::Word if self.streamed.contains(&slot) => self.a.vmovntps(zmmword_ptr(to), ZMM[x])?,
            Format::Word => self.a.vmovups(zmmword_ptr(to), ZMM[x])?,
            Format::Byte => {
                self.a.vpmovm2b(XMM[t], K[x])?;
                self.a.vpabsb(XMM[t], XMM[t])?;
                match partial {
                    true => self.a.vmovdqu8(xmmword_ptr(to).k7(), XMM[t])?,
                    false => self.a.vmovdqu8(xmmword_ptr(to), XMM[t])?,
                }
            }
            Format::Bf16 => {
                self.a.vpsrld(ZMM[t], ZMM[x], 16)?;
                match partial {
                    true => self.a.vpmovdw(ymmword_ptr(to).k7(), ZMM[t])?,
                    false => self.a.vpmovdw(ymmword_ptr(to), ZMM[t])?,
                }
            }
            Format::F16 if partial => self.a.vcvtps2ph(ymmword_ptr(to).k7(), ZMM[x], 0)?,
            Format::F16 => self.a.vcvtps2ph(ymmword_ptr(to), ZMM[x], 0)?,
        }
        Ok(())
    }

    /// Stores the element of a row. Outside the loop over elements rbx and the accumulators are free.
    fn store_row(&mut self, slot: Slot, format: Format, x: usize) -> Done {
        self.address(slot)?;
        match format {
            Format::Word => self.a.vmovss(dword_ptr(rax + r11 * 4), XMM[x])?,
            Format::Byte => {
                self.a.kmovw(ebx, K[x])?;
                self.a.and(ebx, 1)?;
                self.a.mov(byte_ptr(rax + r11), bl)?;
            }
            Format::Bf16 => {
                self.a.vmovd(ebx, XMM[x])?;
                self.a.shr(ebx, 16)?;
                self.a.mov(word_ptr(rax + r11 * 2), bx)?;
            }
            Format::F16 => {
                // The value remains what it is: it is a number of f16.
                self.a.vcvtps2ph(XMM[x], XMM[x], 0)?;
                self.a.vmovd(ebx, XMM[x])?;
                self.a.mov(word_ptr(rax + r11 * 2), bx)?;
                self.a.vcvtph2ps(ZMM[x], YMM[x])?;
                self.a.vbroadcastss(ZMM[x], XMM[x])?;
            }
        }
        Ok(())
    }

    /// A vector from memory.
    pub fn load(&mut self, dst: usize, from: (Slot, Access, Format), mode: Mode) -> Done {
        let (slot, access, format) = from;
        self.address(slot)?;
        let size = format.size();
        if let Some((element, at)) = element(access) {
            let from = rax + element * size + at * 16 * size;
            // What is left of a row is read under a mask.
            let target = if mode == Mode::Partial { ZMM[dst].k7().z() } else { ZMM[dst] };
            match format {
                Format::Word | Format::Byte => self.a.vmovups(target, zmmword_ptr(from))?,
                Format::F16 => self.a.vcvtph2ps(target, ymmword_ptr(from))?,
                Format::Bf16 => {
                    self.a.vpmovzxwd(target, ymmword_ptr(from))?;
                    self.a.vpslld(ZMM[dst], ZMM[dst], 16)?;
                }
            }
            return Ok(());
        }
        let from = if access == Access::Row { rax + r11 * size } else { rax + 0 };
        match format {
            Format::Word | Format::Byte => self.a.vbroadcastss(ZMM[dst], dword_ptr(from))?,
            Format::Bf16 => {
                self.a.vpbroadcastw(ZMM[dst], word_ptr(from))?;
                self.a.vpslld(ZMM[dst], ZMM[dst], 16)?;
            }
            Format::F16 => {
                self.a.vpbroadcastw(YMM[dst], word_ptr(from))?;
                self.a.vcvtph2ps(ZMM[dst], YMM[dst])?;
            }
        }
        Ok(())
    }
}
