//! Products whose rows, columns or sums run over several axes that do not lie one in the other: the windows of a
//! convolution. One element of the result by one invocation at a time, its terms added in order. A plain form that is
//! right everywhere; tiles of windows would be another `Form`.

use tapeflow_core::driver::Matmul;

use super::super::Unsupported;
use super::super::asm::{Asm, Id, Ty};
use super::super::number::{begun_with_zero, indices, offset, ty_for};
use super::super::spread::{Spread, TURNS};
use crate::stage::{Lowering, Target};

/// An axis of the sum: its extent and the operands' strides.
type Axis = (usize, isize, isize);

/// Translates it.
///
/// # Errors
/// For sums longer than an invocation of the device can add.
pub(super) fn windows(matmul: &Matmul, target: &Target) -> Result<Lowering, Unsupported> {
    let matmul = &matmul.merged();
    let outer: Vec<u64> = [&matmul.batch, &matmul.m, &matmul.n].into_iter().flatten().map(|&d| d as u64).collect();
    let (rank, rows, sums) = (matmul.batch.len(), matmul.m.len(), matmul.k.len());
    let (total, terms) = (outer.iter().product::<u64>(), matmul.k.iter().map(|&d| d as u64).product::<u64>());
    // A turn of every enclosing loop as well.
    let turns = 2 * terms + 1;
    if target.is_cpu && turns >= TURNS {
        return Err(Unsupported(format!("a sum of {terms} products over windows is beyond this device")));
    }
    let mut lowering = Lowering::default();
    if total == 0 {
        return Ok(lowering);
    }
    let axes: Vec<Axis> =
        (0..sums).map(|i| (matmul.k[i], matmul.a.strides[rank + rows + i], matmul.b.strides[rank + i])).collect();
    let (dtype, ty) = (matmul.dtype, Ty::of(matmul.dtype));
    let size = dtype.size() as u32;
    let spread = Spread::new(target, total, turns);
    let mut asm = spread.begin(target);
    let (a, b) = (asm.base(0, &matmul.a, dtype), asm.base(1, &matmul.b, dtype));
    let out = asm.operand(2);
    spread.each(&mut asm, |asm, at| {
        let place = indices(asm, spread.ty(), at, &outer);
        let strides = |of: &[isize], first: usize, skipped: usize, count: usize| -> Vec<(Id, i64)> {
            let batch = (0..rank).map(|i| (place[i], of[i] as i64));
            let lines = (0..count).map(|i| (place[first + i], of[skipped + i] as i64));
            batch.chain(lines).collect()
        };
        let lines = [
            (a, strides(&matmul.a.strides, rank, rank, rows)),
            (b, strides(&matmul.b.strides, rank + rows, rank + sums, matmul.n.len())),
        ];
        let [a, b] = lines.map(|(base, terms)| {
            let from = offset(asm, spread.ty(), &terms);
            asm.element(base, Ty::U64, from, size)
        });
        let zero = asm.float(ty, 0.0);
        let sum = add_terms(asm, matmul, &axes, [a, b], zero);
        let sum = begun_with_zero(asm, ty, sum);
        let address = asm.element(out, spread.ty(), at, size);
        asm.store(dtype, address, sum);
    });
    lowering.stages.push(spread.finish(asm, false));
    Ok(lowering)
}

/// Adds the products along `axes` from these addresses on, the last axis fastest.
fn add_terms(asm: &mut Asm, matmul: &Matmul, axes: &[Axis], [a, b]: [Id; 2], sum: Id) -> Id {
    let (dtype, ty, size) = (matmul.dtype, Ty::of(matmul.dtype), matmul.dtype.size() as u32);
    let Some((&(extent, of_a, of_b), inner)) = axes.split_first() else {
        let (x, y) = (asm.load(dtype, a), asm.load(dtype, b));
        let product = asm.fmul(ty, x, y);
        return asm.fadd(ty, sum, product);
    };
    let number = ty_for(extent as u64);
    let range = [0, extent as i64, 1].map(|value| asm.int(number, value));
    let last = asm.count(number, range, &[(ty, sum)], |asm, at, carried| {
        let moved = [(a, of_a), (b, of_b)].map(|(from, stride)| {
            let by = offset(asm, number, &[(at, stride as i64)]);
            asm.element(from, Ty::U64, by, size)
        });
        vec![add_terms(asm, matmul, inner, moved, carried[0])]
    });
    last[0]
}
