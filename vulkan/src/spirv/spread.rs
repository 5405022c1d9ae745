//! Elements spread over invocations: how many workgroups of which size, and the loop of an invocation over its share.
//! Owns that division; what is done with an element is decided by who asks.

use std::sync::Arc;

use rspirv::spirv::Op;

use super::asm::{Asm, Id, Ty};
use super::number::{plus, smaller, ty_for};
use crate::stage::{Stage, Target};

/// Workgroups of a processor that are enough to keep its threads busy.
const FEW: u64 = 64;
/// Elements of an invocation of a processor that are worth a workgroup.
const WORTH: u64 = 32;
/// A processor (lavapipe) ends all loops of an invocation, without a word, after 65,535 turns in all.
pub(super) const TURNS: u64 = 60_000;

/// A division of elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    total: u64,
    workgroup: u32,
    each: u64,
    groups: u64,
}

impl Spread {
    /// Of `total` elements that take up to `turns` turns of further loops each.
    pub(super) fn new(target: &Target, total: u64, turns: u64) -> Spread {
        let (workgroup, each) = if target.is_cpu {
            let lanes = u64::from(target.subgroup);
            let each = total.div_ceil(lanes * FEW).max(WORTH).min(TURNS / (turns + 1));
            (target.subgroup, each.max(1))
        } else {
            let lanes = target.workgroup.clamp(1, 256);
            (lanes, total.div_ceil(u64::from(lanes) << 20).max(1))
        };
        let groups = total.div_ceil(u64::from(workgroup) * each);
        Spread { total, workgroup, each, groups }
    }

    /// The type of an element's number.
    pub(super) fn ty(&self) -> Ty {
        ty_for(self.groups * self.each * u64::from(self.workgroup))
    }

    /// A shader for them.
    pub(super) fn begin(&self, target: &Target) -> Asm {
        Asm::new(target, self.workgroup, self.groups)
    }

    /// The loop over an invocation's elements, neighbours by neighbouring invocations. `body` is given the number.
    pub(super) fn each(&self, asm: &mut Asm, body: impl FnOnce(&mut Asm, Id)) {
        let ty = self.ty();
        let (group, local) = (asm.group, asm.local);
        let mut typed = |id: Id| if ty == Ty::U64 { asm.op(Op::UConvert, ty, &[id]) } else { id };
        let (group, local) = (typed(group), typed(local));
        let width = asm.share(ty, self.each * u64::from(self.workgroup));
        let begin = asm.op(Op::IMul, ty, &[group, width]);
        let first = plus(asm, ty, begin, local);
        let end = plus(asm, ty, begin, width);
        let total = asm.int(ty, self.total as i64);
        let end = smaller(asm, ty, end, total);
        let step = asm.int(ty, self.workgroup.into());
        asm.count(ty, [first, end, step], &[], |asm, at, _| {
            body(asm, at);
            vec![]
        });
    }

    /// The stage.
    pub(super) fn finish(&self, asm: Asm, after_barrier: bool) -> Stage {
        Stage { shader: Arc::new(asm.finish()), groups: self.groups, operands: 0, after_barrier }
    }
}
