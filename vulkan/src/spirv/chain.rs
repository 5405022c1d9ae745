//! `ScatterAdd` by lists: the picks of a destination are linked in order, and whoever has the first of them walks the
//! list and adds. Owns those lists; their words lie in the kernel's partial memory.
//!
//! A long list of indices is done block by block, each going on from the sums of those before. Word `j` of a block's
//! chain is the number of the next pick of the same destination, or [`END`], with [`FIRST`] if no earlier one has it.

use std::sync::Arc;

use rspirv::spirv::Op;
use tapeflow_core::driver::Gather;

use super::Unsupported;
use super::asm::{Asm, Id, Ty};
use super::index::Indices;
use super::number::{begun_with_zero, below, indices, offset, plus, plus_constant, times};
use super::scatter::{fill, sum, zero};
use super::spread::{Spread, TURNS};
use crate::stage::{Lowering, Stage, Target};

/// No further pick.
const END: u32 = (1 << 31) - 1;
/// No earlier pick.
const FIRST: u32 = 1 << 31;
/// Picks of a block: all may go to one destination, and then be as many turns of one loop.
const BLOCK: usize = 8192;

/// Adds the stages.
///
/// # Errors
/// For more picks or destinations than the words can name.
pub(super) fn stages(gather: &Gather, target: &Target, lowering: &mut Lowering) -> Result<(), Unsupported> {
    let Gather { dtype, outer, extent, inner, picks, .. } = *gather;
    if picks >= END as usize || extent >= END as usize {
        return Err(Unsupported(format!("a scatter_add of {picks} rows into {extent} is beyond this device")));
    }
    let block = picks.min(BLOCK);
    let heads = block.next_multiple_of(2);
    lowering.partial_bytes = 4 * if target.is_cpu { heads + extent } else { heads };
    lowering.stages.push(fill(target, (outer * extent * inner * dtype.size()) as u64, |asm| asm.operand(2)));
    if target.is_cpu {
        let address = |asm: &mut Asm| {
            let partial = asm.partial();
            plus_constant(asm, Ty::U64, partial, 4 * heads as i64)
        };
        lowering.stages.push(fill(target, 4 * extent as u64, address));
    }
    for begin in (0..picks).step_by(block) {
        let block = Block { gather, begin, end: (begin + block).min(picks), heads };
        lowering.stages.push(if target.is_cpu { block.linked(target) } else { block.searched(target) });
        lowering.stages.push(block.added(target));
    }
    Ok(())
}

/// A range of picks.
struct Block<'k> {
    gather: &'k Gather,
    begin: usize,
    end: usize,
    /// Where the heads of the lists lie, in words of the partial memory.
    heads: usize,
}

impl Block<'_> {
    fn list(&self, asm: &mut Asm) -> Indices {
        Indices::new(asm, self.gather.index_dtype, self.gather.extent, 1)
    }

    fn numbers(&self, asm: &mut Asm) -> [Id; 3] {
        [0, (self.end - self.begin) as u32, 1].map(|value| asm.u32(value))
    }

    /// The index of pick `at` of the block.
    fn index(&self, asm: &mut Asm, list: &Indices, at: Id) -> super::index::Index {
        let pick = plus_constant(asm, Ty::U32, at, self.begin as i64);
        list.get(asm, Ty::U32, pick)
    }

    /// One invocation goes through the picks from the last to the first and puts each before the head of its list: for
    /// a processor, which has few of them and quick memory. A head is the number of a pick plus 1, of this block if it
    /// is greater than `begin`.
    fn linked(&self, target: &Target) -> Stage {
        let mut shader = Asm::new(target, 1, 1);
        let asm = &mut shader;
        let list = self.list(asm);
        let chain = asm.partial();
        let heads = plus_constant(asm, Ty::U64, chain, 4 * self.heads as i64);
        let range = self.numbers(asm);
        asm.count(Ty::U32, range, &[], |asm, turn, _| {
            let last = asm.u32((self.end - self.begin) as u32 - 1);
            let at = asm.op(Op::ISub, Ty::U32, &[last, turn]);
            let index = self.index(asm, &list, at);
            list.report(asm, &index, None);
            let word = asm.element(chain, Ty::U32, at, 4);
            let link = |asm: &mut Asm| {
                let head = asm.element(heads, Ty::U64, index.place, 4);
                let there = asm.load_as(Ty::U32, head);
                let before = asm.u32(self.begin as u32);
                let follows = below(asm, before, there);
                let next = plus_constant(asm, Ty::U32, there, -(self.begin as i64) - 1);
                asm.when(follows, |asm| {
                    let (word, mask) = (asm.element(chain, Ty::U32, next, 4), asm.u32(!FIRST));
                    let there = asm.load_as(Ty::U32, word);
                    let later = asm.op(Op::BitwiseAnd, Ty::U32, &[there, mask]);
                    asm.store_as(Ty::U32, word, later);
                });
                let own = plus_constant(asm, Ty::U32, at, self.begin as i64 + 1);
                asm.store_as(Ty::U32, head, own);
                let (end, first) = (asm.u32(END), asm.u32(FIRST));
                let next = asm.select(Ty::U32, follows, next, end);
                vec![asm.op(Op::BitwiseOr, Ty::U32, &[next, first])]
            };
            let value = asm.either(index.inside, &[Ty::U32], link, |asm| vec![asm.u32(END)]);
            asm.store_as(Ty::U32, word, value[0]);
            vec![]
        });
        Stage { shader: Arc::new(shader.finish()), groups: 1, operands: 0, after_barrier: true }
    }

    /// Every pick looks for the next and for an earlier one of its destination: for a device of many invocations.
    fn searched(&self, target: &Target) -> Stage {
        let spread = Spread::new(target, (self.end - self.begin) as u64, 0);
        let mut asm = spread.begin(target);
        let list = self.list(&mut asm);
        let chain = asm.partial();
        spread.each(&mut asm, |asm, at| {
            let index = self.index(asm, &list, at);
            list.report(asm, &index, None);
            let [zero, count, one] = self.numbers(asm);
            // The first place from `start` on, up to `end`, with the same destination.
            let search = |asm: &mut Asm, start: Id, end: Id| {
                let (no, yes) = (asm.bool(false), asm.bool(true));
                let last = asm.repeat(
                    &[(Ty::U32, start), (Ty::Bool, no)],
                    |asm, carried| {
                        let more = below(asm, carried[0], end);
                        let open = asm.op(Op::LogicalNot, Ty::Bool, &[carried[1]]);
                        asm.op(Op::LogicalAnd, Ty::Bool, &[more, open])
                    },
                    |asm, carried| {
                        let other = self.index(asm, &list, carried[0]);
                        let same = asm.op(Op::IEqual, Ty::Bool, &[other.place, index.place]);
                        let found = asm.op(Op::LogicalAnd, Ty::Bool, &[same, other.inside]);
                        let next = plus(asm, Ty::U32, carried[0], one);
                        vec![asm.select(Ty::U32, found, carried[0], next), asm.select(Ty::Bool, found, yes, no)]
                    },
                );
                [last[0], last[1]]
            };
            let after = plus(asm, Ty::U32, at, one);
            let [next, follows] = search(asm, after, count);
            let [_, precedes] = search(asm, zero, at);
            let (end, first) = (asm.u32(END), asm.u32(FIRST));
            let next = asm.select(Ty::U32, follows, next, end);
            let flag = asm.select(Ty::U32, precedes, zero, first);
            let value = asm.op(Op::BitwiseOr, Ty::U32, &[next, flag]);
            let value = asm.select(Ty::U32, index.inside, value, end);
            let word = asm.element(chain, Ty::U32, at, 4);
            asm.store_as(Ty::U32, word, value);
        });
        // The block before is done with the words that this one writes.
        spread.finish(asm, self.begin > 0)
    }

    /// Every element of a first pick walks its list.
    fn added(&self, target: &Target) -> Stage {
        let Gather { dtype, outer, extent, inner, picks, .. } = *self.gather;
        let size = dtype.size() as u32;
        let count = self.end - self.begin;
        let turns = if target.is_cpu { (count as u64).min(TURNS - 1) } else { 0 };
        let spread = Spread::new(target, (outer * count * inner) as u64, turns);
        let number = spread.ty();
        let mut asm = spread.begin(target);
        let list = self.list(&mut asm);
        let (data, out, chain) = (asm.operand(0), asm.operand(2), asm.partial());
        spread.each(&mut asm, |asm, at| {
            let places = indices(asm, number, at, &[outer as u64, count as u64, inner as u64]);
            let [item, pick, within] = places[..] else { unreachable!("invariant: one index per extent") };
            let pick = if number == Ty::U32 { pick } else { asm.op(Op::UConvert, Ty::U32, &[pick]) };
            let word = asm.element(chain, Ty::U32, pick, 4);
            let word = asm.load_as(Ty::U32, word);
            let limit = asm.u32(FIRST - 1);
            let is_first = below(asm, limit, word);
            asm.when(is_first, |asm| {
                let index = self.index(asm, &list, pick);
                let own = offset(asm, number, &[(item, (extent * inner) as i64), (within, 1)]);
                let row = times(asm, Ty::U64, index.place, inner as i64);
                let own = plus(asm, Ty::U64, own, row);
                let to = asm.element(out, Ty::U64, own, size);
                let begun = if self.begin == 0 { zero(asm, dtype) } else { asm.load(dtype, to) };
                let from = offset(asm, number, &[(item, (picks * inner) as i64), (within, 1)]);
                let from = plus_constant(asm, Ty::U64, from, (self.begin * inner) as i64);
                let from = asm.element(data, Ty::U64, from, size);
                let (ty, mask, end) = (Ty::of(dtype), asm.u32(!FIRST), asm.u32(END));
                let total = asm.repeat(
                    &[(Ty::U32, pick), (ty, begun)],
                    |asm, carried| below(asm, carried[0], end),
                    |asm, carried| {
                        let by = offset(asm, Ty::U32, &[(carried[0], inner as i64 * i64::from(size))]);
                        let address = plus(asm, Ty::U64, from, by);
                        let value = asm.load(dtype, address);
                        let total = sum(asm, dtype, carried[1], value);
                        let word = asm.element(chain, Ty::U32, carried[0], 4);
                        let word = asm.load_as(Ty::U32, word);
                        vec![asm.op(Op::BitwiseAnd, Ty::U32, &[word, mask]), total]
                    },
                );
                let total = begun_with_zero(asm, ty, total[1]);
                asm.store(dtype, to, total);
            });
        });
        spread.finish(asm, true)
    }
}
