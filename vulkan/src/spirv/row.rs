//! Passes by rows: a team of invocations folds its row, phase after phase, then stores what follows from the results.
//! Owns how rows, or pieces of them, are shared out.

use rspirv::spirv::Op;
use tapeflow_ir::V;
use tapeflow_ir::reduce::{LANES, PIECE};

use super::Unsupported;
use super::asm::{Asm, Id, Ty};
use super::frame::{Frame, Source, Store};
use super::function::{Fold, Level, iterations};
use super::map::{portion, share};
use super::space::{Access, Cursor, Place, contiguous, product};
use super::team::{Exchange, Shape, Span, Team};
use crate::stage::{Shader, Target};

/// A fold along the row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reduction {
    pub(super) value: V,
    pub(super) fold: Fold,
    /// The value that the result is.
    pub(super) result: Option<V>,
    /// Where the results go, contiguous over the rows (or their pieces).
    pub(super) to: Option<Place>,
}

/// What a pass by rows computes.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) source: Source,
    /// How many axes tell rows apart; the others are the row.
    pub(super) split: usize,
    /// Whether rows are cut into pieces, with a result for each.
    pub(super) in_pieces: bool,
    /// Reductions that can be folded at once, by how deep they lie.
    pub(super) phases: Vec<Vec<Reduction>>,
    /// Stored along with the first phase.
    pub(super) along: Vec<Store>,
    /// Stored after the last phase.
    pub(super) after: Vec<Store>,
    /// Stored once per row after the last phase; inner strides are 0.
    pub(super) per_row: Vec<Store>,
}

/// How many pieces a row of `length` has.
pub(super) fn pieces(length: usize) -> usize {
    length.div_ceil(PIECE).max(1)
}

/// Emits the pass. Neither rows nor elements are none.
///
/// # Errors
/// If the device cannot run such a loop.
pub(super) fn rows(target: &Target, pass: &Rows) -> Result<(Shader, u64), Unsupported> {
    let stores: Vec<&Store> = pass.along.iter().chain(&pass.after).chain(&pass.per_row).collect();
    let folded = pass.phases.iter().flatten().map(|reduction| reduction.value);
    let wanted: Vec<V> = folded.chain(stores.iter().map(|(v, _)| *v)).collect();
    let source = pass.source.clone().pruned(&wanted);
    let space = source.space(pass.split, &stores);
    let (count, length) = (product(&source.dims[..pass.split]), product(&source.dims[pass.split..]));
    let pieces = if pass.in_pieces { pieces(length) } else { 1 };
    let items = (count * pieces) as u64;
    let shape = Shape::new(target, length);
    let most = if pass.in_pieces { length.min(PIECE) } else { length };

    let sweeps = pass.phases.len() + usize::from(!pass.after.is_empty());
    let evaluated = 1 + iterations(&source.function);
    let swept = match shape.exchange {
        Exchange::Alone => length as u64 * evaluated + 2 * LANES as u64,
        _ => most.div_ceil(LANES) as u64 * evaluated * (LANES as u64 / u64::from(shape.lanes)),
    };
    let each = sweeps as u64 * swept + 2;
    let share = share(target, items, shape.teams().into(), each)?;
    let groups = items.div_ceil(share);

    let mut shader = Asm::new(target, shape.workgroup, groups);
    let asm = &mut shader;
    let mut frame = Frame::open(asm, &source, &space, &stores);
    frame.hoist(asm, &wanted, Level::Fixed, 0);
    let types: Vec<Ty> = pass.phases.iter().flatten().map(|reduction| Ty::of(reduction.fold.dtype)).collect();
    let team = Team::new(asm, shape, &types);
    let ty = space.index;
    let results: Vec<Vec<Option<Cursor>>> = (pass.phases.iter())
        .map(|phase| {
            let open = |reduction: &Reduction| {
                let access = Access::memory(reduction.to?, reduction.fold.dtype, contiguous(&[]));
                Some(Cursor::open(asm, 0, &access))
            };
            phase.iter().map(open).collect()
        })
        .collect();
    let emit = Emit { pass, frame, team, ty, length, pieces, results };
    let wide = |asm: &mut Asm, id: Id| if ty == Ty::U64 { asm.op(Op::UConvert, ty, &[id]) } else { id };
    let [first, end] = portion(asm, ty, items, share);
    let number = wide(asm, team.number);
    if shape.exchange == Exchange::Shared {
        // Everybody must come to every barrier: teams without a row of their own repeat the last one and store nothing.
        let (rounds, teams) = (share.div_ceil(shape.teams().into()), shape.teams());
        let [zero, one, rounds] = [0, 1, rounds].map(|value| asm.int(ty, value as i64));
        let (teams, last) = (asm.int(ty, teams.into()), asm.int(ty, items as i64 - 1));
        asm.count(ty, [zero, rounds, one], &[], |asm, round, _| {
            let before = asm.op(Op::IMul, ty, &[round, teams]);
            let item = asm.op(Op::IAdd, ty, &[first, before]);
            let item = asm.op(Op::IAdd, ty, &[item, number]);
            let is_mine = asm.op(Op::ULessThan, Ty::Bool, &[item, end]);
            let item = asm.select(ty, is_mine, item, last);
            emit.item(asm, item, Some(is_mine));
            vec![]
        });
    } else {
        let step = asm.int(ty, shape.teams().into());
        let start = asm.op(Op::IAdd, ty, &[first, number]);
        asm.count(ty, [start, end, step], &[], |asm, item, _| {
            emit.item(asm, item, None);
            vec![]
        });
    }
    Ok((shader.finish(), groups))
}

/// What the emission of one item needs.
struct Emit<'p> {
    pass: &'p Rows,
    frame: Frame<'p>,
    team: Team,
    ty: Ty,
    length: usize,
    pieces: usize,
    results: Vec<Vec<Option<Cursor>>>,
}

impl Emit<'_> {
    /// One row, or piece of a row; nothing is stored unless `is_mine`.
    fn item(&self, asm: &mut Asm, item: Id, is_mine: Option<Id>) {
        let (pass, ty) = (self.pass, self.ty);
        let (row, span) = self.span(asm, item);
        let mut frame = self.frame.outer(asm, row);
        let leads = self.team.leads(asm);
        let leads = is_mine.map_or(leads, |mine| asm.both(leads, mine));
        let and = |asm: &mut Asm, counts: Option<Id>| match (counts, is_mine) {
            (Some(a), Some(b)) => Some(asm.both(a, b)),
            (a, b) => a.or(b),
        };
        let store =
            |asm: &mut Asm, frame: &Frame<'_>, from: usize, stores: &[Store], index: &[Id], when: Option<Id>| {
                let write = |asm: &mut Asm| {
                    stores.iter().enumerate().for_each(|(number, (v, _))| frame.write(asm, from + number, *v, index));
                };
                match when {
                    _ if stores.is_empty() => {}
                    Some(condition) => asm.when(condition, write),
                    None => write(asm),
                }
            };
        let outputs = |stores: &[Store]| stores.iter().map(|(v, _)| *v).collect::<Vec<V>>();
        let late: Vec<V> = [outputs(&pass.after), outputs(&pass.per_row)].concat();
        for (phase, reductions) in pass.phases.iter().enumerate() {
            let along: &[Store] = if phase == 0 { &pass.along } else { &[] };
            let mut wanted: Vec<V> = reductions.iter().map(|reduction| reduction.value).collect();
            wanted.extend(outputs(along));
            frame.hoist(asm, &wanted, Level::Outer, phase);
            let folds: Vec<Fold> = reductions.iter().map(|reduction| reduction.fold).collect();
            let totals = self.team.sweep(asm, span, &folds, |asm, at, counts| {
                let (frame, index) = frame.inner(asm, at, &wanted);
                let when = and(asm, counts);
                store(asm, &frame, 0, along, &index, when);
                reductions.iter().map(|reduction| frame.folded(asm, reduction.value, reduction.fold)).collect()
            });
            for (reduction, &total) in reductions.iter().zip(&totals) {
                if let Some(result) = reduction.result {
                    frame.values.set(result, total);
                }
            }
            if self.results[phase].iter().any(Option::is_some) {
                asm.when(leads, |asm| {
                    for (cursor, &total) in self.results[phase].iter().zip(&totals) {
                        if let Some(cursor) = cursor {
                            cursor.write_at(asm, ty, item, total);
                        }
                    }
                });
            }
        }
        frame.hoist(asm, &late, Level::Outer, pass.phases.len());
        if !pass.after.is_empty() {
            let wanted = outputs(&pass.after);
            self.team.sweep(asm, span, &[], |asm, at, counts| {
                // Nothing is folded: elements that do not count need not be computed.
                let body = |asm: &mut Asm| {
                    let (frame, index) = frame.inner(asm, at, &wanted);
                    store(asm, &frame, pass.along.len(), &pass.after, &index, None);
                };
                match and(asm, counts) {
                    Some(condition) => asm.when(condition, body),
                    None => body(asm),
                }
                vec![]
            });
        }
        store(asm, &frame, pass.along.len() + pass.after.len(), &pass.per_row, &[], Some(leads));
    }

    /// The row of an item and the elements that it covers.
    fn span(&self, asm: &mut Asm, item: Id) -> (Id, Span) {
        let ty = self.ty;
        let is_full = self.length.is_multiple_of(LANES);
        let (zero, length) = (asm.int(ty, 0), asm.u32(self.length as u32));
        if self.pieces == 1 {
            return (item, Span { first: zero, count: length, is_full, index: ty });
        }
        let [pieces, most, all] = [self.pieces, PIECE, self.length].map(|value| asm.int(ty, value as i64));
        let (row, piece) = (asm.op(Op::UDiv, ty, &[item, pieces]), asm.op(Op::UMod, ty, &[item, pieces]));
        let first = asm.op(Op::IMul, ty, &[piece, most]);
        let rest = asm.op(Op::ISub, ty, &[all, first]);
        let whole = asm.op(Op::ULessThan, Ty::Bool, &[most, rest]);
        let count = asm.select(ty, whole, most, rest);
        let count = if ty == Ty::U64 { asm.op(Op::UConvert, Ty::U32, &[count]) } else { count };
        (row, Span { first, count, is_full, index: ty })
    }
}
