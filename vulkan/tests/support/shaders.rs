//! Shaders written by hand, so that the device can be tested without the emitter.

use std::sync::Arc;

use rspirv::binary::Assemble;
use rspirv::dr::{Builder, Operand};
use rspirv::spirv::{
    AddressingModel, BuiltIn, Capability, Decoration, ExecutionMode, ExecutionModel, FunctionControl, MemoryAccess,
    MemoryModel, MemorySemantics, Scope, SelectionControl, StorageClass,
};
use tapeflow_vulkan::stage::{Lowering, Shader, Stage};

/// What a shader does with element `i` of its operands, u32 each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `b[i] = a[i] · factor + scalars[0]`.
    Affine { factor: u32 },
    /// Elements of `a` that are at least `extent` are bad indices. Writes nothing.
    Check { extent: u32 },
}

/// One stage over `elements` elements, one per workgroup, that leaves alone what lies beyond; obeys `guarded`.
pub fn kernel(body: Body, elements: u32) -> Lowering {
    let shader = Shader { words: words(body, elements), constants: Vec::new() };
    let stage = Stage { shader: Arc::new(shader), groups: u64::from(elements), operands: 0, after_barrier: false };
    let status_words = if matches!(body, Body::Check { .. }) { 2 } else { 0 };
    Lowering { stages: vec![stage], partial_bytes: 0, status_words }
}

fn words(body: Body, elements: u32) -> Vec<u32> {
    let mut b = Builder::new();
    b.set_version(1, 5);
    for capability in [Capability::Shader, Capability::Int64, Capability::PhysicalStorageBufferAddresses] {
        b.capability(capability);
    }
    b.memory_model(AddressingModel::PhysicalStorageBuffer64, MemoryModel::GLSL450);
    let (void, bool) = (b.type_void(), b.type_bool());
    let (u32_, u64_) = (b.type_int(32, 0), b.type_int(64, 0));
    let vector = b.type_vector(u32_, 3);
    let push = b.type_struct([u64_, u32_, u32_, u32_, u32_, u32_, u32_]);
    b.decorate(push, Decoration::Block, []);
    for (member, offset) in [0, 8, 12, 16, 20, 24, 28].into_iter().enumerate() {
        b.member_decorate(push, member as u32, Decoration::Offset, [Operand::LiteralBit32(offset)]);
    }
    let push_pointer = b.type_pointer(None, StorageClass::PushConstant, push);
    let push_u32 = b.type_pointer(None, StorageClass::PushConstant, u32_);
    let push_u64 = b.type_pointer(None, StorageClass::PushConstant, u64_);
    let far_u32 = b.type_pointer(None, StorageClass::PhysicalStorageBuffer, u32_);
    let far_u64 = b.type_pointer(None, StorageClass::PhysicalStorageBuffer, u64_);
    let input_vector = b.type_pointer(None, StorageClass::Input, vector);
    let pushed = b.variable(push_pointer, None, StorageClass::PushConstant, None);
    let [group, groups] = [BuiltIn::WorkgroupId, BuiltIn::NumWorkgroups].map(|built_in| {
        let variable = b.variable(input_vector, None, StorageClass::Input, None);
        b.decorate(variable, Decoration::BuiltIn, [Operand::BuiltIn(built_in)]);
        variable
    });
    let constants: Vec<u32> = (0..7).map(|i| b.constant_bit32(u32_, i)).collect();
    let (four, eight) = (b.constant_bit64(u64_, 4), b.constant_bit64(u64_, 8));
    let [count, argument] = [
        elements,
        match body {
            Body::Affine { factor } => factor,
            Body::Check { extent } => extent,
        },
    ]
    .map(|value| b.constant_bit32(u32_, value));

    let main_type = b.type_function(void, []);
    let main = b.begin_function(void, None, FunctionControl::NONE, main_type).unwrap();
    b.begin_block(None).unwrap();
    let aligned = |bytes| [Operand::LiteralBit32(bytes)];
    let pushes: Vec<u32> = (0..7)
        .map(|i| {
            let (ty, pointer) = if i == 0 { (u64_, push_u64) } else { (u32_, push_u32) };
            let member = b.access_chain(pointer, None, pushed, [constants[i]]).unwrap();
            b.load(ty, None, member, None, []).unwrap()
        })
        .collect();
    // Entry `push + add` of the parameter block.
    let entry = |b: &mut Builder, push: u32, add: usize| {
        let number = b.i_add(u32_, None, push, constants[add]).unwrap();
        let number = b.u_convert(u64_, None, number).unwrap();
        let offset = b.i_mul(u64_, None, number, eight).unwrap();
        let address = b.i_add(u64_, None, pushes[0], offset).unwrap();
        let pointer = b.convert_u_to_ptr(far_u64, None, address).unwrap();
        b.load(u64_, None, pointer, Some(MemoryAccess::ALIGNED), aligned(8)).unwrap()
    };
    let word = |b: &mut Builder, base: u32, index: u32| {
        let index = b.u_convert(u64_, None, index).unwrap();
        let offset = b.i_mul(u64_, None, index, four).unwrap();
        let address = b.i_add(u64_, None, base, offset).unwrap();
        b.convert_u_to_ptr(far_u32, None, address).unwrap()
    };
    let part = |b: &mut Builder, variable: u32, i: u32| {
        let all = b.load(vector, None, variable, None, []).unwrap();
        b.composite_extract(u32_, None, all, [i]).unwrap()
    };
    let (x, y, width) = (part(&mut b, group, 0), part(&mut b, group, 1), part(&mut b, groups, 0));
    let row = b.i_mul(u32_, None, y, width).unwrap();
    let index = b.i_add(u32_, None, row, x).unwrap();
    let in_range = b.u_less_than(bool, None, index, count).unwrap();
    let status_block = entry(&mut b, pushes[4], 0);
    let first = word(&mut b, status_block, constants[0]);
    let bad = b.load(u32_, None, first, Some(MemoryAccess::ALIGNED), aligned(4)).unwrap();
    let is_bad = b.i_not_equal(bool, None, bad, constants[0]).unwrap();
    let is_guarded = b.i_not_equal(bool, None, pushes[6], constants[0]).unwrap();
    let is_barred = b.logical_and(bool, None, is_bad, is_guarded).unwrap();
    let is_free = b.logical_not(bool, None, is_barred).unwrap();
    let runs = b.logical_and(bool, None, in_range, is_free).unwrap();
    let (then, end) = (b.id(), b.id());
    b.selection_merge(end, SelectionControl::NONE).unwrap();
    b.branch_conditional(runs, then, end, []).unwrap();
    b.begin_block(Some(then)).unwrap();
    let base = entry(&mut b, pushes[1], 0);
    let pointer = word(&mut b, base, index);
    let value = b.load(u32_, None, pointer, Some(MemoryAccess::ALIGNED), aligned(4)).unwrap();
    match body {
        Body::Affine { .. } => {
            let scalar = entry(&mut b, pushes[2], 0);
            let scalar = b.u_convert(u32_, None, scalar).unwrap();
            let product = b.i_mul(u32_, None, value, argument).unwrap();
            let sum = b.i_add(u32_, None, product, scalar).unwrap();
            let to = entry(&mut b, pushes[1], 1);
            let to = word(&mut b, to, index);
            b.store(to, sum, Some(MemoryAccess::ALIGNED), aligned(4)).unwrap();
        }
        Body::Check { .. } => {
            let is_bad = b.u_less_than_equal(bool, None, argument, value).unwrap();
            let (bad, fine) = (b.id(), b.id());
            b.selection_merge(fine, SelectionControl::NONE).unwrap();
            b.branch_conditional(is_bad, bad, fine, []).unwrap();
            b.begin_block(Some(bad)).unwrap();
            let next = b.i_add(u32_, None, pushes[5], constants[1]).unwrap();
            let (least, most) = (word(&mut b, status_block, pushes[5]), word(&mut b, status_block, next));
            let scope = b.constant_bit32(u32_, Scope::Device as u32);
            let relaxed = b.constant_bit32(u32_, MemorySemantics::RELAXED.bits());
            b.atomic_i_add(u32_, None, first, scope, relaxed, constants[1]).unwrap();
            b.atomic_s_min(u32_, None, least, scope, relaxed, value).unwrap();
            b.atomic_s_max(u32_, None, most, scope, relaxed, value).unwrap();
            b.branch(fine).unwrap();
            b.begin_block(Some(fine)).unwrap();
        }
    }
    b.branch(end).unwrap();
    b.begin_block(Some(end)).unwrap();
    b.ret().unwrap();
    b.end_function().unwrap();
    b.entry_point(ExecutionModel::GLCompute, main, "main", [pushed, group, groups]);
    b.execution_mode(main, ExecutionMode::LocalSize, [1, 1, 1]);
    b.module().assemble()
}
