//! Declarations of a module: types, constants, built-in variables, shared arrays. Each is made at its first use.

use rspirv::dr::{Instruction, Operand};
use rspirv::spirv::{BuiltIn, Capability, Decoration, Op, StorageClass};
use tapeflow_ir::{Const, DType};

use super::asm::{Asm, Id, Ty};

/// Which declaration of a module an id stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Global {
    Type(Ty),
    Void,
    Main,
    Vector(Ty, u32),
    Pair(Ty),
    Array(Ty, u32),
    Push,
    Pointer(StorageClass, Id),
    Constant(Ty, u64),
    Variable(BuiltIn),
}

impl Asm {
    /// A u32 specialization constant.
    pub(super) fn specialization(&mut self, number: u32, default: u32) -> Id {
        let (ty, id) = (self.ty(Ty::U32), self.id());
        self.declare(Instruction::new(Op::SpecConstant, Some(ty), Some(id), vec![Operand::LiteralBit32(default)]));
        self.decorate(id, Decoration::SpecId, vec![Operand::LiteralBit32(number)]);
        id
    }

    pub(super) fn declare(&mut self, instruction: Instruction) {
        self.module.types_global_values.push(instruction);
    }

    pub(super) fn decorate(&mut self, id: Id, decoration: Decoration, mut more: Vec<Operand>) {
        let mut operands = vec![Operand::IdRef(id), Operand::Decoration(decoration)];
        operands.append(&mut more);
        self.module.annotations.push(Instruction::new(Op::Decorate, None, None, operands));
    }

    fn decorate_member(&mut self, id: Id, member: u32, offset: u32) {
        let operands = vec![
            Operand::IdRef(id),
            Operand::LiteralBit32(member),
            Operand::Decoration(Decoration::Offset),
            Operand::LiteralBit32(offset),
        ];
        self.module.annotations.push(Instruction::new(Op::MemberDecorate, None, None, operands));
    }

    /// The id of a type.
    pub(super) fn ty(&mut self, ty: Ty) -> Id {
        self.global(Global::Type(ty))
    }

    /// A type, constant or variable, declared at its first use.
    pub(super) fn global(&mut self, global: Global) -> Id {
        if let Some(&id) = self.globals.get(&global) {
            return id;
        }
        let literal = Operand::LiteralBit32;
        let instruction = match global {
            Global::Void => (Op::TypeVoid, None, vec![]),
            Global::Main => (Op::TypeFunction, None, vec![Operand::IdRef(self.global(Global::Void))]),
            Global::Type(ty) => match ty {
                Ty::Bool => (Op::TypeBool, None, vec![]),
                Ty::U8 => (Op::TypeInt, None, vec![literal(8), literal(0)]),
                Ty::U16 => (Op::TypeInt, None, vec![literal(16), literal(0)]),
                Ty::U32 => (Op::TypeInt, None, vec![literal(32), literal(0)]),
                Ty::U64 => (Op::TypeInt, None, vec![literal(64), literal(0)]),
                Ty::I32 => (Op::TypeInt, None, vec![literal(32), literal(1)]),
                Ty::I64 => (Op::TypeInt, None, vec![literal(64), literal(1)]),
                Ty::F32 => (Op::TypeFloat, None, vec![literal(32)]),
                Ty::F64 => (Op::TypeFloat, None, vec![literal(64)]),
            },
            Global::Vector(ty, n) => (Op::TypeVector, None, vec![Operand::IdRef(self.ty(ty)), literal(n)]),
            Global::Pair(ty) => (Op::TypeStruct, None, vec![Operand::IdRef(self.ty(ty)); 2]),
            Global::Array(ty, n) => {
                let length = self.u32(n);
                (Op::TypeArray, None, vec![Operand::IdRef(self.ty(ty)), Operand::IdRef(length)])
            }
            Global::Push => {
                let (wide, narrow) = (self.ty(Ty::U64), self.ty(Ty::U32));
                (Op::TypeStruct, None, [&[wide][..], &[narrow; 6]].concat().into_iter().map(Operand::IdRef).collect())
            }
            Global::Pointer(class, to) => {
                (Op::TypePointer, None, vec![Operand::StorageClass(class), Operand::IdRef(to)])
            }
            Global::Constant(ty, bits) => {
                let id = self.ty(ty);
                match ty {
                    Ty::Bool => (if bits != 0 { Op::ConstantTrue } else { Op::ConstantFalse }, Some(id), vec![]),
                    Ty::U64 | Ty::I64 | Ty::F64 => (Op::Constant, Some(id), vec![Operand::LiteralBit64(bits)]),
                    _ => (Op::Constant, Some(id), vec![literal(bits as u32)]),
                }
            }
            Global::Variable(built_in) => {
                let ty = match built_in {
                    BuiltIn::WorkgroupId | BuiltIn::NumWorkgroups => self.global(Global::Vector(Ty::U32, 3)),
                    _ => self.ty(Ty::U32),
                };
                let pointer = self.global(Global::Pointer(StorageClass::Input, ty));
                (Op::Variable, Some(pointer), vec![Operand::StorageClass(StorageClass::Input)])
            }
        };
        match global {
            Global::Type(Ty::U8) => self.capability(Capability::StorageBuffer8BitAccess),
            Global::Type(Ty::U16) => self.capability(Capability::StorageBuffer16BitAccess),
            Global::Type(Ty::F64) => self.capability(Capability::Float64),
            _ => {}
        }
        let id = self.id();
        self.declare(Instruction::new(instruction.0, instruction.1, Some(id), instruction.2));
        if let Global::Variable(built_in) = global {
            self.interface.push(id);
            self.decorate(id, Decoration::BuiltIn, vec![Operand::BuiltIn(built_in)]);
        }
        self.globals.insert(global, id);
        id
    }

    pub(super) fn declare_push(&mut self) {
        let block = self.global(Global::Push);
        self.decorate(block, Decoration::Block, vec![]);
        for (member, offset) in [0, 8, 12, 16, 20, 24, 28].into_iter().enumerate() {
            self.decorate_member(block, member as u32, offset);
        }
        let pointer = self.global(Global::Pointer(StorageClass::PushConstant, block));
        let id = self.id();
        let class = vec![Operand::StorageClass(StorageClass::PushConstant)];
        self.declare(Instruction::new(Op::Variable, Some(pointer), Some(id), class));
        self.interface.push(id);
        self.push = id;
    }

    /// An array in the memory that a workgroup shares.
    pub(super) fn shared(&mut self, ty: Ty, length: u32) -> Id {
        let array = self.global(Global::Array(ty, length));
        let pointer = self.global(Global::Pointer(StorageClass::Workgroup, array));
        let id = self.id();
        let class = vec![Operand::StorageClass(StorageClass::Workgroup)];
        self.declare(Instruction::new(Op::Variable, Some(pointer), Some(id), class));
        self.interface.push(id);
        id
    }

    /// The value of a built-in variable.
    pub(super) fn built_in(&mut self, built_in: BuiltIn) -> Id {
        let variable = self.global(Global::Variable(built_in));
        let ty = match built_in {
            BuiltIn::WorkgroupId | BuiltIn::NumWorkgroups => self.global(Global::Vector(Ty::U32, 3)),
            _ => self.ty(Ty::U32),
        };
        self.emit(Op::Load, ty, vec![Operand::IdRef(variable)])
    }

    pub(super) fn u32(&mut self, value: u32) -> Id {
        self.global(Global::Constant(Ty::U32, value.into()))
    }

    pub(super) fn u64(&mut self, value: u64) -> Id {
        self.global(Global::Constant(Ty::U64, value))
    }

    pub(super) fn f32(&mut self, value: f32) -> Id {
        self.global(Global::Constant(Ty::F32, value.to_bits().into()))
    }

    pub(super) fn f64(&mut self, value: f64) -> Id {
        self.global(Global::Constant(Ty::F64, value.to_bits()))
    }

    pub(super) fn bool(&mut self, value: bool) -> Id {
        self.global(Global::Constant(Ty::Bool, value.into()))
    }

    /// An integer constant of `ty` (u32 or u64), wrapped.
    pub(super) fn int(&mut self, ty: Ty, value: i64) -> Id {
        let bits = if ty == Ty::U64 { value as u64 } else { u64::from(value as u32) };
        self.global(Global::Constant(ty, bits))
    }

    /// A float constant of `ty`.
    pub(super) fn float(&mut self, ty: Ty, value: f64) -> Id {
        if ty == Ty::F32 { self.f32(value as f32) } else { self.f64(value) }
    }

    /// A constant of the scalar IR.
    pub(super) fn constant(&mut self, constant: Const, dtype: DType) -> Id {
        match constant {
            Const::Bool(value) => self.bool(value),
            Const::Int(value) => self.int(Ty::of(dtype), value),
            Const::Float(bits) => self.float(Ty::of(dtype), f64::from_bits(bits)),
        }
    }
}
