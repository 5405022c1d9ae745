//! How a shader reaches memory: the parameter block behind the push constants, addresses, loads and stores.
//! Addresses are u64; what lies where is decided by who asks.

use rspirv::dr::Operand;
use rspirv::spirv::{MemoryAccess, Op, StorageClass};
use tapeflow_ir::DType;

use super::asm::{Asm, Id, Ty};
use super::declare::Global;
use tapeflow_core::driver::Layout;

/// The members of [`crate::stage::Push`].
mod member {
    pub(super) const TABLE: u32 = 0;
    pub(super) const OPERANDS: u32 = 1;
    pub(super) const SCALARS: u32 = 2;
    pub(super) const PARTIAL: u32 = 3;
    pub(super) const STATUS_BLOCK: u32 = 4;
    pub(super) const STATUS: u32 = 5;
    pub(super) const GUARDED: u32 = 6;
}

impl Asm {
    fn member(&mut self, member: u32) -> Id {
        let ty = if member == member::TABLE { Ty::U64 } else { Ty::U32 };
        let (id, number) = (self.ty(ty), self.u32(member));
        let pointer = self.global(Global::Pointer(StorageClass::PushConstant, id));
        let place = self.emit(Op::AccessChain, pointer, vec![Operand::IdRef(self.push), Operand::IdRef(number)]);
        self.emit(Op::Load, id, vec![Operand::IdRef(place)])
    }

    /// Entry `push.member + number` of the parameter block. Read where it is first asked for: ask outside of branches
    /// and loops.
    fn entry(&mut self, member: u32, number: u32) -> Id {
        if let Some(&id) = self.entries.get(&(member, number)) {
            return id;
        }
        let id = self.read_entry(member, number);
        self.entries.insert((member, number), id);
        id
    }

    fn read_entry(&mut self, member: u32, number: u32) -> Id {
        let (table, first, number) = (self.member(member::TABLE), self.member(member), self.u32(number));
        let at = self.op(Op::IAdd, Ty::U32, &[first, number]);
        let address = self.element(table, Ty::U32, at, 8);
        self.load_as(Ty::U64, address)
    }

    /// The address of an operand. Ask for it outside of branches and loops, as for the three that follow.
    pub(super) fn operand(&mut self, number: usize) -> Id {
        self.entry(member::OPERANDS, number as u32)
    }

    /// A value given by the host, as u64.
    pub(super) fn scalar(&mut self, slot: usize) -> Id {
        self.entry(member::SCALARS, slot as u32)
    }

    /// The address of the partial results.
    pub(super) fn partial(&mut self) -> Id {
        self.entry(member::PARTIAL, 0)
    }

    /// The address of the status block.
    pub(super) fn status_block(&mut self) -> Id {
        self.entry(member::STATUS_BLOCK, 0)
    }

    /// The number of this step's first word in the status block.
    pub(super) fn status(&mut self) -> Id {
        self.member(member::STATUS)
    }

    /// Zeros of 32 and 64 bits that the device's compiler cannot know.
    pub(super) fn unknown_zeros(&mut self) -> [Id; 2] {
        // A number of a word in the status block: its highest bit is never set.
        let (status, top) = (self.status(), self.u32(1 << 31));
        let zero = self.op(Op::BitwiseAnd, Ty::U32, &[status, top]);
        [zero, self.op(Op::UConvert, Ty::U64, &[zero])]
    }

    /// A float that the device's compiler cannot find to be constant; `zeros` are unknown.
    pub(super) fn opaque(&mut self, ty: Ty, value: Id, zeros: [Id; 2]) -> Id {
        let bits = Self::bits_of(ty);
        let zero = if bits == Ty::U64 { zeros[1] } else { zeros[0] };
        let value = self.bits(ty, value);
        let value = self.op(Op::BitwiseXor, bits, &[value, zero]);
        self.float_of(ty, value)
    }

    /// Whether the step is guarded and a bad index was found.
    pub(super) fn stopped(&mut self) -> Id {
        let (guarded, zero) = (self.member(member::GUARDED), self.u32(0));
        let guarded = self.op(Op::INotEqual, Ty::Bool, &[guarded, zero]);
        // Only then is there a status block for certain.
        let check = |asm: &mut Asm| {
            let block = asm.read_entry(member::STATUS_BLOCK, 0);
            let bad = asm.load_as(Ty::U32, block);
            vec![asm.op(Op::INotEqual, Ty::Bool, &[bad, zero])]
        };
        self.either(guarded, &[Ty::Bool], check, |asm| vec![asm.bool(false)])[0]
    }

    /// `base + offset`, elements of the operand's `dtype`, with what the host adds: the address of index (0, …, 0).
    pub(super) fn base(&mut self, operand: usize, layout: &Layout, dtype: DType) -> Id {
        let address = self.operand(operand);
        let offset = self.offset(layout);
        self.element(address, Ty::U64, offset, dtype.size() as u32)
    }

    /// The offset of a layout with what the host adds, as u64.
    pub(super) fn offset(&mut self, layout: &Layout) -> Id {
        let mut offset = self.u64(layout.offset as u64);
        for shift in &layout.shifts {
            let (start, stride) = (self.scalar(shift.slot), self.u64(shift.stride as u64));
            let moved = self.op(Op::IMul, Ty::U64, &[start, stride]);
            offset = self.op(Op::IAdd, Ty::U64, &[offset, moved]);
        }
        offset
    }

    /// `address + index · size`; the index is a signed integer of type `ty` (u32 or u64).
    pub(super) fn element(&mut self, address: Id, ty: Ty, index: Id, size: u32) -> Id {
        let wide = self.widened(ty, index);
        let scaled = match size {
            1 => wide,
            _ => {
                let shift = self.u32(size.trailing_zeros());
                self.op(Op::ShiftLeftLogical, Ty::U64, &[wide, shift])
            }
        };
        self.op(Op::IAdd, Ty::U64, &[address, scaled])
    }

    /// A signed integer of type `ty` as u64, to be added to an address. (What is compared is extended otherwise: see
    /// `number::sign_extended`.)
    pub(super) fn widened(&mut self, ty: Ty, value: Id) -> Id {
        if ty == Ty::U64 { value } else { self.op(Op::SConvert, Ty::U64, &[value]) }
    }

    /// A pointer to a value of type `ty`.
    pub(super) fn pointer(&mut self, ty: Ty, address: Id) -> Id {
        let to = self.ty(ty);
        let pointer = self.global(Global::Pointer(StorageClass::PhysicalStorageBuffer, to));
        self.emit(Op::ConvertUToPtr, pointer, vec![Operand::IdRef(address)])
    }

    fn aligned(ty: Ty) -> [Operand; 2] {
        [Operand::MemoryAccess(MemoryAccess::ALIGNED), Operand::LiteralBit32(ty.size())]
    }

    /// Loads a value as it lies in memory.
    pub(super) fn load_as(&mut self, ty: Ty, address: Id) -> Id {
        let (pointer, id) = (self.pointer(ty, address), self.ty(ty));
        let [access, alignment] = Self::aligned(ty);
        self.emit(Op::Load, id, vec![Operand::IdRef(pointer), access, alignment])
    }

    /// Stores a value as it shall lie in memory.
    pub(super) fn store_as(&mut self, ty: Ty, address: Id, value: Id) {
        let pointer = self.pointer(ty, address);
        let [access, alignment] = Self::aligned(ty);
        self.emit_void(Op::Store, vec![Operand::IdRef(pointer), Operand::IdRef(value), access, alignment]);
    }

    /// Loads an element into a register.
    pub(super) fn load(&mut self, dtype: DType, address: Id) -> Id {
        let value = self.load_as(Ty::stored(dtype), address);
        match dtype {
            DType::Bool => {
                let (wide, zero) = (self.op(Op::UConvert, Ty::U32, &[value]), self.u32(0));
                self.op(Op::INotEqual, Ty::Bool, &[wide, zero])
            }
            DType::U8 | DType::F16 | DType::BF16 => self.op(Op::UConvert, Ty::U32, &[value]),
            _ => value,
        }
    }

    /// Stores an element from a register.
    pub(super) fn store(&mut self, dtype: DType, address: Id, value: Id) {
        let value = match dtype {
            DType::Bool => {
                let (zero, one) = (self.u32(0), self.u32(1));
                let wide = self.select(Ty::U32, value, one, zero);
                self.op(Op::UConvert, Ty::U8, &[wide])
            }
            DType::U8 => self.op(Op::UConvert, Ty::U8, &[value]),
            DType::F16 | DType::BF16 => self.op(Op::UConvert, Ty::U16, &[value]),
            _ => value,
        };
        self.store_as(Ty::stored(dtype), address, value);
    }

    /// A pointer to element `index` of a shared array.
    fn shared_place(&mut self, ty: Ty, array: Id, index: Id) -> Id {
        let to = self.ty(ty);
        let pointer = self.global(Global::Pointer(StorageClass::Workgroup, to));
        self.emit(Op::AccessChain, pointer, vec![Operand::IdRef(array), Operand::IdRef(index)])
    }

    /// Loads element `index` (u32) of a shared array.
    pub(super) fn load_shared(&mut self, ty: Ty, array: Id, index: Id) -> Id {
        let (place, id) = (self.shared_place(ty, array, index), self.ty(ty));
        self.emit(Op::Load, id, vec![Operand::IdRef(place)])
    }

    /// Stores element `index` (u32) of a shared array.
    pub(super) fn store_shared(&mut self, ty: Ty, array: Id, index: Id, value: Id) {
        let place = self.shared_place(ty, array, index);
        self.emit_void(Op::Store, vec![Operand::IdRef(place), Operand::IdRef(value)]);
    }
}
