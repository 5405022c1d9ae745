//! A thin assembler: one compute shader, built instruction by instruction. Owns the module's layout and the entry
//! point; `declare.rs` adds types and constants, `control.rs` branches and loops, `memory.rs` the parameter block,
//! loads and stores. Knows nothing of kernels.

use std::collections::HashMap;

use rspirv::binary::Assemble;
use rspirv::dr::{Block, Function, Instruction, Module, ModuleHeader, Operand};
use rspirv::spirv::{
    AddressingModel, BuiltIn, Capability, Decoration, ExecutionMode, ExecutionModel, FunctionControl,
    GlslStd450Op as GLOp, MemoryModel, MemorySemantics, Op, Scope, Word,
};
use tapeflow_ir::DType;

pub(super) use super::declare::Global;
use super::number;
use crate::stage::{Shader, Target};

/// A result of an instruction.
pub(super) type Id = Word;

/// A type of a register. Integers have no sign: instructions do. `U8` and `U16` exist in memory only, `I32` and `I64`
/// only between a bitcast and a conversion, where Mesa goes by the type's sign and not by the instruction's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ty {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I32,
    I64,
    F32,
    F64,
}

impl Ty {
    /// Of a value of `dtype` in a register; a u8 is carried as a u32 below 256, and half
    /// precision as a u32 with its 16 bits.
    pub(super) fn of(dtype: DType) -> Ty {
        match dtype {
            DType::Bool => Ty::Bool,
            DType::U8 | DType::F16 | DType::BF16 | DType::I32 | DType::U32 => Ty::U32,
            DType::I64 => Ty::U64,
            DType::F32 => Ty::F32,
            DType::F64 => Ty::F64,
        }
    }

    /// Of a value of `dtype` in memory.
    pub(super) fn stored(dtype: DType) -> Ty {
        match dtype.size() {
            1 => Ty::U8,
            2 => Ty::U16,
            _ => Ty::of(dtype),
        }
    }

    /// Bytes in memory.
    pub(super) fn size(self) -> u32 {
        match self {
            Ty::Bool | Ty::U8 => 1,
            Ty::U16 => 2,
            Ty::U32 | Ty::I32 | Ty::F32 => 4,
            Ty::U64 | Ty::I64 | Ty::F64 => 8,
        }
    }
}

/// The id of the specialization constant with the workgroup's size.
pub(super) const WORKGROUP_SIZE: u32 = 0;

/// The id of the first specialization constant with how much a workgroup takes: the tile of a pass over elements, rows
/// or columns, the part of a product's sum. (Rows and columns of products are held in registers, so their extents are
/// part of the code.)
const SHARE: u32 = 3;

/// A shader in the making.
pub(super) struct Asm {
    pub(super) target: Target,
    pub(super) module: Module,
    next: Word,
    pub(super) globals: HashMap<Global, Id>,
    capabilities: Vec<Capability>,
    pub(super) interface: Vec<Id>,
    glsl: Id,
    pub(super) blocks: Vec<Block>,
    workgroup_size: Id,
    workgroup: u32,
    shares: Vec<(u32, Id)>,
    pub(super) push: Id,
    pub(super) entries: HashMap<(u32, u32), Id>,
    /// The workgroup's number, below `groups`, as u32.
    pub(super) group: Id,
    /// The invocation's number in its workgroup, as u32.
    pub(super) local: Id,
}

impl Asm {
    /// Begins a shader for `groups` workgroups of `workgroup` invocations. What is emitted next runs in workgroups
    /// below `groups` only, and not at all if the step is guarded and a bad index was found.
    pub(super) fn new(target: &Target, workgroup: u32, groups: u64) -> Asm {
        let mut asm = Asm {
            target: target.clone(),
            module: Module::new(),
            next: 1,
            globals: HashMap::new(),
            capabilities: Vec::new(),
            interface: Vec::new(),
            glsl: 0,
            blocks: Vec::new(),
            workgroup_size: 0,
            workgroup,
            shares: Vec::new(),
            push: 0,
            entries: HashMap::new(),
            group: 0,
            local: 0,
        };
        asm.glsl = asm.id();
        asm.capability(Capability::Shader);
        asm.capability(Capability::PhysicalStorageBufferAddresses);
        asm.capability(Capability::Int64);
        let u32 = asm.ty(Ty::U32);
        asm.workgroup_size = asm.specialization(WORKGROUP_SIZE, workgroup);
        let one = [asm.specialization(WORKGROUP_SIZE + 1, 1), asm.specialization(WORKGROUP_SIZE + 2, 1)];
        let vector = asm.global(Global::Vector(Ty::U32, 3));
        let size = asm.id();
        let parts = [asm.workgroup_size, one[0], one[1]].map(Operand::IdRef);
        asm.declare(Instruction::new(Op::SpecConstantComposite, Some(vector), Some(size), parts.to_vec()));
        asm.decorate(size, Decoration::BuiltIn, vec![Operand::BuiltIn(BuiltIn::WorkgroupSize)]);
        asm.begin();
        asm.declare_push();

        // The workgroup's number, from two dimensions.
        let (id, count) = (asm.built_in(BuiltIn::WorkgroupId), asm.built_in(BuiltIn::NumWorkgroups));
        let part = |asm: &mut Asm, from: Id, axis: u32| {
            asm.emit(Op::CompositeExtract, u32, vec![Operand::IdRef(from), Operand::LiteralBit32(axis)])
        };
        let (x, y, width) = (part(&mut asm, id, 0), part(&mut asm, id, 1), part(&mut asm, count, 0));
        let before = asm.op(Op::IMul, Ty::U32, &[y, width]);
        asm.group = asm.op(Op::IAdd, Ty::U32, &[before, x]);
        asm.local = asm.built_in(BuiltIn::LocalInvocationIndex);
        let limit = asm.u32(u32::try_from(groups).unwrap_or(u32::MAX));
        let beyond = asm.op(Op::UGreaterThanEqual, Ty::Bool, &[asm.group, limit]);
        let stop = asm.stopped();
        let idle = asm.op(Op::LogicalOr, Ty::Bool, &[beyond, stop]);
        asm.return_if(idle);
        asm
    }

    /// A fresh id.
    pub(super) fn id(&mut self) -> Id {
        self.next += 1;
        self.next - 1
    }

    /// How many invocations a workgroup has, as a specialization constant.
    pub(super) fn workgroup_size(&self) -> Id {
        self.workgroup_size
    }

    pub(super) fn capability(&mut self, capability: Capability) {
        if !self.capabilities.contains(&capability) {
            self.capabilities.push(capability);
            let operands = vec![Operand::Capability(capability)];
            self.module.capabilities.push(Instruction::new(Op::Capability, None, None, operands));
        }
    }

    /// Appends an instruction with a result of type `ty`.
    pub(super) fn emit(&mut self, op: Op, ty: Id, operands: Vec<Operand>) -> Id {
        let id = self.id();
        self.append(Instruction::new(op, Some(ty), Some(id), operands));
        id
    }

    /// Appends an instruction without a result.
    pub(super) fn emit_void(&mut self, op: Op, operands: Vec<Operand>) {
        self.append(Instruction::new(op, None, None, operands));
    }

    fn append(&mut self, instruction: Instruction) {
        if let Some(block) = self.blocks.last_mut() {
            block.instructions.push(instruction);
        }
    }

    /// An operation on registers.
    pub(super) fn op(&mut self, op: Op, ty: Ty, operands: &[Id]) -> Id {
        let ty = self.ty(ty);
        self.emit(op, ty, operands.iter().copied().map(Operand::IdRef).collect())
    }

    /// A float operation that is rounded as it stands: not contracted with its neighbours.
    pub(super) fn rounded(&mut self, op: Op, ty: Ty, operands: &[Id]) -> Id {
        let id = self.op(op, ty, operands);
        self.decorate(id, Decoration::NoContraction, vec![]);
        id
    }

    /// A conversion of a signed integer, or to one (`target`).
    pub(super) fn convert_signed(&mut self, op: Op, source: Ty, target: Ty, value: Id) -> Id {
        if op == Op::SConvert && (source, target) == (Ty::U32, Ty::U64) {
            return number::sign_extended(self, value);
        }
        let signed = |ty: Ty| match ty {
            Ty::U32 => Ty::I32,
            Ty::U64 => Ty::I64,
            other => other,
        };
        let (from, to) = (signed(source), signed(target));
        let value = if from == source { value } else { self.op(Op::Bitcast, from, &[value]) };
        let value = self.op(op, to, &[value]);
        if to == target { value } else { self.op(Op::Bitcast, target, &[value]) }
    }

    /// An operation of the set GLSL.std.450.
    pub(super) fn glsl(&mut self, op: GLOp, ty: Ty, operands: &[Id]) -> Id {
        let ty = self.ty(ty);
        let mut all = vec![Operand::IdRef(self.glsl), Operand::LiteralExtInstInteger(op as u32)];
        all.extend(operands.iter().copied().map(Operand::IdRef));
        self.emit(Op::ExtInst, ty, all)
    }

    /// `if condition { a } else { b }`, both computed.
    pub(super) fn select(&mut self, ty: Ty, condition: Id, a: Id, b: Id) -> Id {
        self.op(Op::Select, ty, &[condition, a, b])
    }

    /// Ends the function and gives the shader.
    pub(super) fn finish(mut self) -> Shader {
        self.emit_void(Op::Return, vec![]);
        let (void, ty) = (self.global(Global::Void), self.global(Global::Main));
        let main = self.id();
        let mut function = Function::new();
        let operands = vec![Operand::FunctionControl(FunctionControl::NONE), Operand::IdRef(ty)];
        function.def = Some(Instruction::new(Op::Function, Some(void), Some(main), operands));
        function.end = Some(Instruction::new(Op::FunctionEnd, None, None, vec![]));
        function.blocks = std::mem::take(&mut self.blocks);

        let mut entry = vec![
            Operand::ExecutionModel(ExecutionModel::GLCompute),
            Operand::IdRef(main),
            Operand::LiteralString("main".into()),
        ];
        entry.extend(self.interface.iter().copied().map(Operand::IdRef));
        let module = &mut self.module;
        module.entry_points.push(Instruction::new(Op::EntryPoint, None, None, entry));
        let mut mode = |mode: ExecutionMode, width: u32| {
            let operands = vec![Operand::IdRef(main), Operand::ExecutionMode(mode), Operand::LiteralBit32(width)];
            module.execution_modes.push(Instruction::new(Op::ExecutionMode, None, None, operands));
        };
        let mut controls = Vec::new();
        let wide = self.capabilities.contains(&Capability::Float64);
        for (width, float) in [(32, self.target.f32), (64, self.target.f64)] {
            if width == 32 || wide {
                if float.signed_zero_inf_nan {
                    mode(ExecutionMode::SignedZeroInfNanPreserve, width);
                    controls.push(Capability::SignedZeroInfNanPreserve);
                }
                if float.denorms {
                    mode(ExecutionMode::DenormPreserve, width);
                    controls.push(Capability::DenormPreserve);
                }
                if float.rounding {
                    mode(ExecutionMode::RoundingModeRTE, width);
                    controls.push(Capability::RoundingModeRTE);
                }
            }
        }
        controls.into_iter().for_each(|control| self.capability(control));
        let import = vec![Operand::LiteralString("GLSL.std.450".into())];
        let mut module = self.module;
        module.ext_inst_imports.push(Instruction::new(Op::ExtInstImport, None, Some(self.glsl), import));
        let model = vec![
            Operand::AddressingModel(AddressingModel::PhysicalStorageBuffer64),
            Operand::MemoryModel(MemoryModel::GLSL450),
        ];
        module.memory_model = Some(Instruction::new(Op::MemoryModel, None, None, model));
        module.functions.push(function);
        let mut header = ModuleHeader::new(self.next);
        header.set_version(1, 5);
        module.header = Some(header);
        let shares = self.shares.iter().zip(SHARE..).map(|(&(share, _), number)| (number, share));
        let constants = std::iter::once((WORKGROUP_SIZE, self.workgroup)).chain(shares).collect();
        Shader { words: module.assemble(), constants }
    }

    /// How much a workgroup takes, of type `ty`, as a specialization constant.
    pub(super) fn share(&mut self, ty: Ty, share: u64) -> Id {
        let Ok(value) = u32::try_from(share) else { return self.int(ty, share as i64) };
        let known = self.shares.iter().find(|(other, _)| *other == value).map(|&(_, id)| id);
        let id = known.unwrap_or_else(|| {
            let id = self.specialization(SHARE + self.shares.len() as u32, value);
            self.shares.push((value, id));
            id
        });
        if ty == Ty::U64 { self.op(Op::UConvert, ty, &[id]) } else { id }
    }

    /// Waits until all invocations of the workgroup are here and see what they wrote to shared memory.
    pub(super) fn barrier(&mut self) {
        let scope = self.u32(Scope::Workgroup as u32);
        let semantics = MemorySemantics::ACQUIRE_RELEASE | MemorySemantics::WORKGROUP_MEMORY;
        let semantics = self.u32(semantics.bits());
        let operands = vec![Operand::IdScope(scope), Operand::IdScope(scope), Operand::IdMemorySemantics(semantics)];
        self.emit_void(Op::ControlBarrier, operands);
    }

    /// The value that invocation `number ⊕ mask` of the subgroup has.
    pub(super) fn shuffle_xor(&mut self, ty: Ty, value: Id, mask: u32) -> Id {
        if ty == Ty::U64 {
            // Whole, it would need a feature of its own (`shaderSubgroupExtendedTypes`).
            let half = self.u32(32);
            let high = self.op(Op::ShiftRightLogical, Ty::U64, &[value, half]);
            let parts = [value, high].map(|part| {
                let part = self.op(Op::UConvert, Ty::U32, &[part]);
                let other = self.shuffle_xor(Ty::U32, part, mask);
                self.op(Op::UConvert, Ty::U64, &[other])
            });
            let high = self.op(Op::ShiftLeftLogical, Ty::U64, &[parts[1], half]);
            return self.op(Op::BitwiseOr, Ty::U64, &[high, parts[0]]);
        }
        self.capability(Capability::GroupNonUniformShuffle);
        let (scope, mask, ty) = (self.u32(Scope::Subgroup as u32), self.u32(mask), self.ty(ty));
        let operands = vec![Operand::IdScope(scope), Operand::IdRef(value), Operand::IdRef(mask)];
        self.emit(Op::GroupNonUniformShuffleXor, ty, operands)
    }
}
