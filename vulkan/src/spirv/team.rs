//! Teams: the invocations that share one row, and folds along a row by the law of `tapeflow_ir::reduce`. An invocation
//! of a team of `lanes` stands for `LANES / lanes` of the law's lanes. Knows neither functions nor layouts.

use rspirv::spirv::Op;
use tapeflow_ir::reduce::LANES;

use super::asm::{Asm, Id, Ty};
use super::function::Fold;
use crate::stage::Target;

/// Rows up to this length have one invocation each.
pub(super) const SHORT: usize = 32;

/// How the invocations of a team see each other's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// There is only one.
    Alone,
    /// A team is a subgroup, which is a workgroup.
    Shuffle,
    /// Through shared memory: all invocations of the workgroup take part.
    Shared,
}

/// How rows are given to invocations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) lanes: u32,
    pub(super) workgroup: u32,
    pub(super) exchange: Exchange,
}

impl Shape {
    /// For rows of `length` elements.
    pub(super) fn new(target: &Target, length: usize) -> Shape {
        let workgroup = super::map::workgroup(target);
        let subgroup = target.subgroup.min(LANES as u32);
        if length <= SHORT {
            Shape { lanes: 1, workgroup, exchange: Exchange::Alone }
        } else if target.is_cpu && target.has_shuffle && subgroup.is_power_of_two() && target.subgroup <= subgroup {
            Shape { lanes: subgroup, workgroup: subgroup, exchange: Exchange::Shuffle }
        } else {
            Shape { lanes: LANES as u32, workgroup: workgroup.max(LANES as u32), exchange: Exchange::Shared }
        }
    }

    /// Teams of a workgroup.
    pub(super) fn teams(self) -> u32 {
        self.workgroup / self.lanes
    }
}

/// A team in a shader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Team {
    shape: Shape,
    /// The invocation's number in its team and the team's in its workgroup, u32.
    pub(super) lane: Id,
    pub(super) number: Id,
    /// One array per type, where exchanges go through shared memory.
    shared: [Option<Id>; 4],
}

/// Elements `first..first + count` of a row of `length`; `count` is u32 and at most `most`, the rest of type `index`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: Id,
    pub(super) count: Id,
    /// Whether `count` is a multiple of [`LANES`], known beforehand.
    pub(super) is_full: bool,
    pub(super) index: Ty,
}

impl Team {
    /// Outside of branches and loops. `types` are those that will be folded.
    pub(super) fn new(asm: &mut Asm, shape: Shape, types: &[Ty]) -> Team {
        let lanes = asm.u32(shape.lanes);
        let lane = asm.op(Op::UMod, Ty::U32, &[asm.local, lanes]);
        let number = asm.op(Op::UDiv, Ty::U32, &[asm.local, lanes]);
        let mut shared = [None; 4];
        if shape.exchange == Exchange::Shared {
            for &ty in types {
                if shared[slot(ty)].is_none() {
                    shared[slot(ty)] = Some(asm.shared(ty, shape.workgroup));
                }
            }
        }
        Team { shape, lane, number, shared }
    }

    /// Whether this invocation writes what there is one of per team.
    pub(super) fn leads(&self, asm: &mut Asm) -> Id {
        let zero = asm.u32(0);
        asm.op(Op::IEqual, Ty::Bool, &[self.lane, zero])
    }

    /// Folds what `body` gives for each element of the span, one value per fold; every invocation of the team gets the
    /// results. `body` is given an element of the row and whether it counts (`None`: it does); where it does not, it
    /// is the row's first of the span, and what `body` gives is dropped.
    pub(super) fn sweep(
        &self,
        asm: &mut Asm,
        span: Span,
        folds: &[Fold],
        mut body: impl FnMut(&mut Asm, Id, Option<Id>) -> Vec<Id>,
    ) -> Vec<Id> {
        if self.shape.exchange == Exchange::Alone {
            return sweep_alone(asm, span, folds, body);
        }
        let width = LANES as u32 / self.shape.lanes;
        let (zero, lanes) = (asm.u32(0), asm.u32(LANES as u32));
        let mut initial = Vec::new();
        for fold in folds {
            let identity = fold.identity(asm);
            initial.extend((0..width).map(|_| (Ty::of(fold.dtype), identity)));
        }
        let totals = asm.count(Ty::U32, [zero, span.count, lanes], &initial, |asm, block, carried| {
            let mut next = carried.to_vec();
            for part in 0..width {
                let from = asm.u32(part * self.shape.lanes);
                let at = asm.op(Op::IAdd, Ty::U32, &[block, self.lane]);
                let at = asm.op(Op::IAdd, Ty::U32, &[at, from]);
                let (at, counts) = match span.is_full {
                    true => (at, None),
                    false => {
                        let counts = asm.op(Op::ULessThan, Ty::Bool, &[at, span.count]);
                        (asm.select(Ty::U32, counts, at, zero), Some(counts))
                    }
                };
                let at = span.element(asm, at);
                let values = body(asm, at, counts);
                for (number, (fold, value)) in folds.iter().zip(values).enumerate() {
                    let place = number * width as usize + part as usize;
                    let sum = fold.combine(asm, next[place], value);
                    next[place] = counts.map_or(sum, |counts| asm.select(Ty::of(fold.dtype), counts, sum, next[place]));
                }
            }
            next
        });
        let results = folds.iter().zip(totals.chunks(width as usize));
        results.map(|(&fold, parts)| self.tree(asm, fold, parts.to_vec())).collect()
    }

    /// Combines the lanes of a team pairwise, 16 → 8 → 4 → 2 → 1.
    fn tree(&self, asm: &mut Asm, fold: Fold, mut parts: Vec<Id>) -> Id {
        let ty = Ty::of(fold.dtype);
        while parts.len() > 1 {
            let upper = parts.split_off(parts.len() / 2);
            parts.iter_mut().zip(upper).for_each(|(part, upper)| *part = fold.combine(asm, *part, upper));
        }
        let mut value = parts[0];
        let mut half = self.shape.lanes / 2;
        while half > 0 {
            // Both of a pair combine the same two values, which commutes in every bit.
            let other = match (self.shape.exchange, self.shared[slot(ty)]) {
                (Exchange::Shared, Some(array)) => {
                    asm.barrier();
                    asm.store_shared(ty, array, asm.local, value);
                    asm.barrier();
                    let mask = asm.u32(half);
                    let other = asm.op(Op::BitwiseXor, Ty::U32, &[asm.local, mask]);
                    asm.load_shared(ty, array, other)
                }
                _ => asm.shuffle_xor(ty, value, half),
            };
            value = fold.combine(asm, value, other);
            half /= 2;
        }
        value
    }
}

impl Span {
    /// The row's element at place `at` (u32) of the span.
    fn element(self, asm: &mut Asm, at: Id) -> Id {
        let at = if self.index == Ty::U64 { asm.op(Op::UConvert, Ty::U64, &[at]) } else { at };
        asm.op(Op::IAdd, self.index, &[self.first, at])
    }
}

fn slot(ty: Ty) -> usize {
    match ty {
        Ty::F32 => 0,
        Ty::F64 => 1,
        Ty::U64 => 2,
        _ => 3,
    }
}

/// One invocation folds the span: lane after lane in bit-reversed order, so that the tree's partial results are
/// combined as soon as both are there. Registers `level` of a fold hold what waits at that level.
fn sweep_alone(
    asm: &mut Asm,
    span: Span,
    folds: &[Fold],
    mut body: impl FnMut(&mut Asm, Id, Option<Id>) -> Vec<Id>,
) -> Vec<Id> {
    let [zero, one, lanes] = [0, 1, LANES as u32].map(|value| asm.u32(value));
    if folds.is_empty() {
        asm.count(Ty::U32, [zero, span.count, one], &[], |asm, at, _| {
            let at = span.element(asm, at);
            body(asm, at, None);
            vec![]
        });
        return vec![];
    }
    let levels = LANES.trailing_zeros();
    let mut initial = Vec::new();
    for fold in folds {
        let identity = fold.identity(asm);
        initial.extend((0..=levels).map(|_| (Ty::of(fold.dtype), identity)));
    }
    let width = levels as usize + 1;
    let last = asm.count(Ty::U32, [zero, lanes, one], &initial, |asm, turn, carried| {
        let shift = asm.u32(32 - levels);
        let lane = asm.op(Op::BitReverse, Ty::U32, &[turn]);
        let lane = asm.op(Op::ShiftRightLogical, Ty::U32, &[lane, shift]);
        let start: Vec<(Ty, Id)> = folds.iter().map(|fold| (Ty::of(fold.dtype), fold.identity(asm))).collect();
        let sums = asm.count(Ty::U32, [lane, span.count, lanes], &start, |asm, at, sums| {
            let at = span.element(asm, at);
            let values = body(asm, at, None);
            folds
                .iter()
                .zip(sums.iter().zip(values))
                .map(|(fold, (&sum, value))| fold.combine(asm, sum, value))
                .collect()
        });
        let mut next = Vec::new();
        for (number, (fold, mut sum)) in folds.iter().zip(sums).enumerate() {
            for level in 0..levels {
                // The first of a pair waits; the second is combined with it. What a turn that is no second makes of
                // that is never used.
                let waiting = carried[number * width + level as usize];
                let bit = asm.u32(1 << level);
                let bit = asm.op(Op::BitwiseAnd, Ty::U32, &[turn, bit]);
                let first = asm.op(Op::IEqual, Ty::Bool, &[bit, zero]);
                next.push(asm.select(Ty::of(fold.dtype), first, sum, waiting));
                sum = fold.combine(asm, waiting, sum);
            }
            next.push(sum);
        }
        next
    });
    folds.iter().enumerate().map(|(number, _)| last[number * width + levels as usize]).collect()
}
