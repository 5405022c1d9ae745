//! Words of Philox streams, as `tapeflow_core::driver::Stream` gives them. Owns the generator's instructions only.

use rspirv::dr::Operand;
use rspirv::spirv::Op;

use super::asm::{Asm, Id, Ty};
use super::declare::Global;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

/// The low and the high half of a u64.
pub(super) fn halves(asm: &mut Asm, x: Id) -> [Id; 2] {
    let shift = asm.u32(32);
    let high = asm.op(Op::ShiftRightLogical, Ty::U64, &[x, shift]);
    [x, high].map(|half| asm.op(Op::UConvert, Ty::U32, &[half]))
}

/// The low and the high half of `a · factor`.
fn product(asm: &mut Asm, a: Id, factor: u32) -> [Id; 2] {
    let (pair, factor, ty) = (asm.global(Global::Pair(Ty::U32)), asm.u32(factor), asm.ty(Ty::U32));
    let both = asm.emit(Op::UMulExtended, pair, [a, factor].map(Operand::IdRef).to_vec());
    [0, 1].map(|part| asm.emit(Op::CompositeExtract, ty, vec![Operand::IdRef(both), Operand::LiteralBit32(part)]))
}

/// The uniform f32 in [0, 1) of word number `word` (u64) of the stream.
pub(super) fn uniform(asm: &mut Asm, seed: Id, counter: Id, ordinal: u32, word: Id) -> Id {
    let two = asm.u32(2);
    let block = asm.op(Op::ShiftRightLogical, Ty::U64, &[word, two]);
    let ([low, high], [key_low, key_high]) = (halves(asm, block), halves(asm, seed));
    let [counter_low, counter_high] = halves(asm, counter);
    let high = asm.op(Op::BitwiseXor, Ty::U32, &[high, counter_high]);
    let mut state = [low, asm.u32(ordinal), counter_low, high];
    for round in 0..ROUNDS {
        let [p_low, p_high] = product(asm, state[0], MULTIPLIERS[0]);
        let [q_low, q_high] = product(asm, state[2], MULTIPLIERS[1]);
        let mixed = |asm: &mut Asm, x: Id, y: Id, key: Id, weyl: u32| {
            let step = asm.u32(weyl.wrapping_mul(round));
            let key = asm.op(Op::IAdd, Ty::U32, &[key, step]);
            let x = asm.op(Op::BitwiseXor, Ty::U32, &[x, y]);
            asm.op(Op::BitwiseXor, Ty::U32, &[x, key])
        };
        let first = mixed(asm, q_high, state[1], key_low, WEYL[0]);
        let third = mixed(asm, p_high, state[3], key_high, WEYL[1]);
        state = [first, q_low, third, p_low];
    }
    // The word's number in its block picks one of the four.
    let [word, _] = halves(asm, word);
    let (zero, one) = (asm.u32(0), asm.u32(1));
    let bit = |asm: &mut Asm, mask: Id| {
        let bit = asm.op(Op::BitwiseAnd, Ty::U32, &[word, mask]);
        asm.op(Op::INotEqual, Ty::Bool, &[bit, zero])
    };
    let (odd, upper) = (bit(asm, one), bit(asm, two));
    let lower_pair = asm.select(Ty::U32, odd, state[1], state[0]);
    let upper_pair = asm.select(Ty::U32, odd, state[3], state[2]);
    let value = asm.select(Ty::U32, upper, upper_pair, lower_pair);
    let (shift, scale) = (asm.u32(8), asm.f32(1.0 / 16_777_216.0));
    let value = asm.op(Op::ShiftRightLogical, Ty::U32, &[value, shift]);
    let value = asm.op(Op::ConvertUToF, Ty::F32, &[value]);
    asm.fmul(Ty::F32, value, scale)
}
