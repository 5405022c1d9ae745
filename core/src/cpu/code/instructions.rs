//! The instructions of a body: for each micro-operation the form's own, on the registers that `registers` chooses. Owns
//! where operands come from; which instructions there are is the form's.

use iced_x86::code_asm::*;
use tapeflow_ir::Reduce;

use super::emit::{Accumulators, Done, Emitter, FRAME, Failure, Mode};
use super::form::{Extent, Operand, Operands};
use super::record::{Access, Format, Id, Kind, Micro, Pair};
use super::registers::{Evicted, Registers};
use crate::cpu::step::Slot;

/// The body that is being written.
struct Body<'a> {
    micros: &'a [Micro],
    accumulators: &'a Accumulators,
    mode: Mode,
    registers: Registers,
}

impl Body<'_> {
    /// The number of a register, if it is one of a row's end.
    fn tail(&self, register: u8) -> Option<usize> {
        (self.mode == Mode::Partial).then_some(usize::from(register))
    }
}

/// The number of an access's first element, and how many registers after it; `None` if it is one for all.
fn element(access: Access) -> Option<(AsmRegister64, u8)> {
    match access {
        Access::Lane(at) => Some((r9, at)),
        Access::Column(at) => Some((r12, at)),
        Access::Row | Access::Fixed => None,
    }
}

/// A place of the frame.
fn place(number: usize) -> AsmMemoryOperand {
    rsp + number * 64
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
        if let Evicted::Spilled(at) = evicted {
            self.form.spill(&mut self.a, number, kind, place(at))?;
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
                self.form.spread(&mut self.a, number, (rcx + constant, Format::Word))?;
            }
            (Micro::Load(slot, access, format), _) => self.load(body, number, (slot, access, format))?,
            (_, Some(at)) => self.form.restore(&mut self.a, number, kind, place(at))?,
            (_, None) => return Err(Failure::Pressure),
        }
        Ok(number)
    }

    /// A register for the time of one operation.
    fn temporary(&mut self, body: &mut Body<'_>, kind: Kind) -> Done<usize> {
        let id = body.registers.temporary();
        self.take(body, id, kind)
    }

    fn micro(&mut self, body: &mut Body<'_>, id: Id, micro: Micro) -> Done {
        match micro {
            Micro::Constant(_) | Micro::Load(..) => Ok(()),
            Micro::Store(slot, access, format, a) => self.store(body, (slot, access, format), a),
            Micro::Fetch(slot, access) => self.fetch(body.mode, slot, access),
            Micro::Fold(number, copy, a) => self.fold(body, (number, copy), a),
            _ => self.compute(body, id, micro),
        }
    }

    /// An operation that touches no memory but constants.
    fn compute(&mut self, body: &mut Body<'_>, id: Id, micro: Micro) -> Done {
        // A constant goes second where the order does not matter.
        let micro = match micro {
            Micro::Pair(pair @ (Pair::Add | Pair::Mul | Pair::And | Pair::Or | Pair::Xor | Pair::IntAdd), a, b)
                if self.constant_of(body, a).is_some() =>
            {
                Micro::Pair(pair, b, a)
            }
            other => other,
        };
        let reads_constants = matches!(micro, Micro::Pair(..) | Micro::Compare(..));
        let [a, b, c] = micro.operands();
        let x = a.map_or(Ok(0), |a| self.get(body, a))?;
        let y = match b {
            None => Operand::Register(0),
            Some(b) => match self.constant_of(body, b).filter(|_| reads_constants) {
                Some(at) => Operand::Constant(at),
                None => Operand::Register(self.get(body, b)?),
            },
        };
        let z = c.map_or(Ok(0), |c| self.get(body, c))?;
        let constant = match micro {
            Micro::CopySign(..) => self.constant(0x7fff_ffff),
            Micro::Float(_) => self.constant(1f32.to_bits()),
            _ => 0,
        };
        let dst = self.take(body, id, micro.kind())?;
        let [spare, _] = self.spare(body, &micro)?;
        self.form.compute(&mut self.a, micro, Operands { dst, x, y, z, spare, constant })
    }

    /// The vector registers that an operation needs for itself.
    fn spare(&mut self, body: &mut Body<'_>, micro: &Micro) -> Done<[usize; 2]> {
        let mut spare = [0; 2];
        for spare in spare.iter_mut().take(self.form.spare(micro, body.mode == Mode::Partial)) {
            *spare = self.temporary(body, Kind::Vector)?;
        }
        Ok(spare)
    }

    /// The offset of a value that is a constant and in no register.
    fn constant_of(&mut self, body: &Body<'_>, id: Id) -> Option<i32> {
        match body.micros[id as usize] {
            Micro::Constant(bits) if !body.registers.is_held(id) => Some(self.constant(bits)),
            _ => None,
        }
    }

    fn fold(&mut self, body: &mut Body<'_>, (number, copy): (usize, u8), a: Id) -> Done {
        let x = self.get(body, a)?;
        let (accumulator, tail) = (body.accumulators.of(number), body.tail(copy));
        let mut spare = (0, 0);
        if accumulator.reduce != Reduce::Sum || tail.is_some() {
            if accumulator.nan.is_none() {
                spare.0 = self.temporary(body, Kind::Vector)?;
            }
            spare.1 = self.temporary(body, Kind::Mask)?;
        }
        self.form.fold(&mut self.a, (accumulator, copy as usize), x, spare, tail)
    }

    /// Asks for the next row of what another pass reads: once per cache line.
    fn fetch(&mut self, mode: Mode, slot: Slot, access: Access) -> Done {
        let bank = self.form.bank();
        if let (Some((element, at)), Mode::Whole) = (element(access), mode)
            && usize::from(at).is_multiple_of(bank.parts())
        {
            self.address(slot)?;
            self.a.lea(rbx, qword_ptr(element + rdx))?;
            self.a.prefetcht0(byte_ptr(rax + rbx * 4 + usize::from(at) * bank.lanes * 4))?;
        }
        Ok(())
    }

    fn store(&mut self, body: &mut Body<'_>, to: (Slot, Access, Format), a: Id) -> Done {
        let (slot, access, format) = to;
        let x = self.get(body, a)?;
        let Some((element, at)) = element(access) else {
            self.address(slot)?;
            return self.form.store_one(&mut self.a, x, (rax + r11 * format.size(), format));
        };
        let extent = match body.tail(at) {
            Some(part) => Extent::Tail(part),
            None if self.streamed.contains(&slot) => Extent::Streamed,
            None => Extent::Whole,
        };
        let spare = self.spare(body, &Micro::Store(slot, access, format, a))?;
        self.address(slot)?;
        let to = self.elements((element, at), format);
        self.form.store(&mut self.a, x, (to, format), spare, extent)
    }

    /// A vector or a mask from memory.
    fn load(&mut self, body: &mut Body<'_>, dst: usize, from: (Slot, Access, Format)) -> Done {
        let (slot, access, format) = from;
        let Some((element, at)) = element(access) else { return self.spread(dst, from) };
        let spare = if format == Format::Byte { self.temporary(body, Kind::Vector)? } else { 0 };
        self.address(slot)?;
        let from = self.elements((element, at), format);
        self.form.load(&mut self.a, dst, (from, format), spare, body.tail(at))
    }

    /// Where the elements of a register lie in the memory at rax.
    fn elements(&self, (element, at): (AsmRegister64, u8), format: Format) -> AsmMemoryOperand {
        let size = format.size();
        rax + element * size + i32::from(at) * self.form.bank().lanes as i32 * size
    }

    /// What is the same for all lanes.
    pub fn spread(&mut self, dst: usize, from: (Slot, Access, Format)) -> Done {
        let (slot, access, format) = from;
        self.address(slot)?;
        let from = if access == Access::Row { rax + r11 * format.size() } else { rax + 0 };
        self.form.spread(&mut self.a, dst, (from, format))
    }
}
