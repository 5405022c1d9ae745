//! A block of the result in the registers of a workgroup, without shared memory.
//! Owns the shader of [`Form::Block`]; the division among workgroups is `emit`'s.

use rspirv::dr::Operand;
use rspirv::spirv::{Capability, Op, Scope};

use super::super::asm::{Asm, Global, Id, Ty};
use super::super::number::{begun_with_zero, below, offset, plus, plus_constant, smaller, times};
use super::emit::{Part, Place};
use super::product::Product;
use super::tiles::{Block, Pairs};

/// The value that lane `lane` of the subgroup has.
fn lane_of(asm: &mut Asm, ty: Ty, value: Id, lane: u32) -> Id {
    asm.capability(Capability::GroupNonUniform);
    asm.capability(Capability::GroupNonUniformShuffle);
    let (scope, lane, ty) = (asm.u32(Scope::Subgroup as u32), asm.u32(lane), asm.ty(ty));
    asm.emit(Op::GroupNonUniformShuffle, ty, vec![Operand::IdScope(scope), Operand::IdRef(value), Operand::IdRef(lane)])
}

/// The two f32 of a u64.
fn halves(asm: &mut Asm, value: Id) -> [Id; 2] {
    let (vector, ty) = (asm.global(Global::Vector(Ty::F32, 2)), asm.ty(Ty::F32));
    let pair = asm.emit(Op::Bitcast, vector, vec![Operand::IdRef(value)]);
    [0, 1].map(|half| asm.emit(Op::CompositeExtract, ty, vec![Operand::IdRef(pair), Operand::LiteralBit32(half)]))
}

/// The u64 of two f32.
fn joined(asm: &mut Asm, halves: [Id; 2]) -> Id {
    let vector = asm.global(Global::Vector(Ty::F32, 2));
    let pair = asm.emit(Op::CompositeConstruct, vector, halves.map(Operand::IdRef).to_vec());
    asm.op(Op::Bitcast, Ty::U64, &[pair])
}

/// The block at `place`: loads, sums, stores.
pub(super) fn emit(asm: &mut Asm, product: &Product, block: &Block, part: &Part, place: &Place) {
    let ty = Ty::of(product.dtype.computed());
    let (size, out_size) = (part.read.size() as u32, part.written.size() as u32);
    let row = times(asm, Ty::U32, place.row, block.rows.into());
    let width = block.lanes * block.cols;
    let col = times(asm, Ty::U32, place.col, width.into());

    // Lines beyond the last are read as the last, and not written.
    let [last_row, last_col] = [product.rows, product.cols].map(|extent| asm.u32(extent as u32 - 1));
    let whole = [product.rows.is_multiple_of(block.rows.into()), product.cols.is_multiple_of(width.into())];
    let lines = if block.shuffled { block.rows.div_ceil(block.lanes) } else { block.rows };
    let left: Vec<Id> = (0..lines)
        .map(|line| {
            let mut at = plus_constant(asm, Ty::U32, row, (line * if block.shuffled { block.lanes } else { 1 }).into());
            if block.shuffled {
                at = plus(asm, Ty::U32, at, asm.local);
            }
            if !whole[0] || block.shuffled {
                at = smaller(asm, Ty::U32, at, last_row);
            }
            let offset = offset(asm, Ty::U32, &[(at, product.left.line)]);
            let offset = plus(asm, Ty::U64, offset, place.left);
            asm.element(part.left, Ty::U64, offset, size)
        })
        .collect();

    // Where an invocation's columns are: pairs side by side, all else a workgroup's width apart.
    let pair = if block.pairs == Pairs::Columns { 2 } else { 1 };
    let own = times(asm, Ty::U32, asm.local, pair);
    let first = plus(asm, Ty::U32, col, own);
    let columns: Vec<Id> = (0..block.cols / pair as u32)
        .map(|number| plus_constant(asm, Ty::U32, first, i64::from(number * block.lanes) * pair))
        .collect();
    let right: Vec<Id> = columns
        .iter()
        .map(|&column| {
            let mut at = column;
            if !whole[1] {
                let last = if pair == 2 { asm.u32(product.cols as u32 - 2) } else { last_col };
                at = smaller(asm, Ty::U32, at, last);
            }
            let offset = offset(asm, Ty::U32, &[(at, product.right.line)]);
            let offset = plus(asm, Ty::U64, offset, place.right);
            asm.element(part.right, Ty::U64, offset, size)
        })
        .collect();

    let zero = asm.float(ty, 0.0);
    let steps: i64 = if block.pairs == Pairs::Depth { 2 } else { 1 };
    let mut carried = vec![(ty, zero); (block.rows * block.cols) as usize];
    let nothing = asm.u64(0);
    carried.extend([(Ty::U64, nothing), (Ty::U64, nothing)]);
    let step = asm.u32(steps as u32);
    let sums = asm.count(Ty::U32, [place.begin, place.end, step], &carried, |asm, _, carried| {
        let (sums, moved) = carried.split_at((block.rows * block.cols) as usize);
        let mut sums = sums.to_vec();
        // Columns of a step of the sum after the other.
        let mut lines = vec![Vec::new(); steps as usize];
        for &address in &right {
            let address = plus(asm, Ty::U64, address, moved[1]);
            match block.pairs {
                Pairs::None => lines[0].push(asm.load_computed(part.read, address)),
                Pairs::Columns => {
                    let pair = asm.load_as(Ty::U64, address);
                    lines[0].extend(halves(asm, pair));
                }
                Pairs::Depth => {
                    let pair = asm.load_as(Ty::U64, address);
                    let terms = halves(asm, pair);
                    lines.iter_mut().zip(terms).for_each(|(line, term)| line.push(term));
                }
            }
        }
        for (number, line) in lines.iter().enumerate() {
            let ahead = number as i64 * product.left.depth * i64::from(size);
            let loaded: Vec<Id> = left
                .iter()
                .map(|&address| {
                    let address = plus(asm, Ty::U64, address, moved[0]);
                    let address = plus_constant(asm, Ty::U64, address, ahead);
                    asm.load_computed(part.read, address)
                })
                .collect();
            for row in 0..block.rows {
                let value = match block.shuffled {
                    true => lane_of(asm, ty, loaded[(row / block.lanes) as usize], row % block.lanes),
                    false => loaded[row as usize],
                };
                for (sum, &factor) in sums[(row * block.cols) as usize..].iter_mut().zip(line) {
                    *sum = part.multiply_add(asm, ty, value, factor, *sum);
                }
            }
        }
        let strides = [product.left.depth, product.right.depth];
        for (&moved, stride) in moved.iter().zip(strides) {
            sums.push(plus_constant(asm, Ty::U64, moved, steps * stride * i64::from(size)));
        }
        sums
    });

    let sums: Vec<Id> =
        sums[..(block.rows * block.cols) as usize].iter().map(|&sum| begun_with_zero(asm, ty, sum)).collect();
    let both = pair == 2 && product.pairs_of_results();
    let limits = [asm.u32(product.rows as u32), asm.u32(product.cols as u32)];
    for number in 0..block.rows {
        let row = plus_constant(asm, Ty::U32, row, number.into());
        let sums = &sums[(number * block.cols) as usize..][..block.cols as usize];
        let store = |asm: &mut Asm| {
            for (&column, sums) in columns.iter().zip(sums.chunks(pair as usize)) {
                let store = |asm: &mut Asm| {
                    let [by_row, by_col] = product.out;
                    let offset = offset(asm, Ty::U32, &[(row, by_row), (column, by_col)]);
                    let offset = plus(asm, Ty::U64, offset, place.out);
                    let address = asm.element(part.out, Ty::U64, offset, out_size);
                    match *sums {
                        [a, b] if both => {
                            let pair = joined(asm, [a, b]);
                            asm.store_as(Ty::U64, address, pair);
                        }
                        _ => {
                            for (&sum, number) in sums.iter().zip(0..) {
                                let by = number * by_col * i64::from(out_size);
                                let address = plus_constant(asm, Ty::U64, address, by);
                                asm.store_computed(part.written, address, sum);
                            }
                        }
                    }
                };
                if whole[1] {
                    store(asm);
                } else {
                    let inside = below(asm, column, limits[1]);
                    asm.when(inside, store);
                }
            }
        };
        if whole[0] {
            store(asm);
        } else {
            let inside = below(asm, row, limits[0]);
            asm.when(inside, store);
        }
    }
}
