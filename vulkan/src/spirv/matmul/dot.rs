//! One element of the result per workgroup, whose invocations divide the sum. Owns the shader of [`Form::Dot`]: for
//! results so small that nothing else keeps a device busy.
//!
//! [`Form::Dot`]: super::tiles::Form::Dot

use rspirv::spirv::Op;

use super::super::asm::{Asm, Ty};
use super::super::number::{begun_with_zero, below, offset, plus, plus_constant};
use super::emit::{Part, Place};
use super::product::Product;

/// The element at `place`: each of `lanes` invocations adds every `lanes`-th term, then a tree adds those sums.
pub(super) fn emit(asm: &mut Asm, product: &Product, lanes: u32, part: &Part, place: &Place) {
    let ty = Ty::of(product.dtype.computed());
    let size = part.read.size() as u32;
    let local = asm.local;
    let start = |asm: &mut Asm, base, at, line, depth| {
        let within = offset(asm, Ty::U32, &[(at, line), (local, depth)]);
        asm.element(base, Ty::U64, within, size)
    };
    let left_base = asm.element(part.left, Ty::U64, place.left, size);
    let right_base = asm.element(part.right, Ty::U64, place.right, size);
    let left = start(asm, left_base, place.row, product.left.line, product.left.depth);
    let right = start(asm, right_base, place.col, product.right.line, product.right.depth);
    let steps =
        [product.left.depth, product.right.depth].map(|stride| asm.u64((stride * i64::from(lanes * size)) as u64));
    let (zero, step) = (asm.float(ty, 0.0), asm.u32(lanes));
    let begin = plus(asm, Ty::U32, place.begin, local);
    let carried = [(ty, zero), (Ty::U64, left), (Ty::U64, right)];
    let last = asm.count(Ty::U32, [begin, place.end, step], &carried, |asm, _, carried| {
        let (a, b) = (asm.load_computed(part.read, carried[1]), asm.load_computed(part.read, carried[2]));
        vec![
            part.multiply_add(asm, ty, a, b, carried[0]),
            asm.op(Op::IAdd, Ty::U64, &[carried[1], steps[0]]),
            asm.op(Op::IAdd, Ty::U64, &[carried[2], steps[1]]),
        ]
    });
    let mut sum = last[0];
    if asm.target.is_cpu {
        let mut mask = lanes / 2;
        while mask > 0 {
            let other = asm.shuffle_xor(ty, sum, mask);
            sum = asm.rounded(Op::FAdd, ty, &[sum, other]);
            mask /= 2;
        }
    } else {
        let shared = asm.shared(ty, lanes);
        asm.store_shared(ty, shared, local, sum);
        let mut half = lanes / 2;
        while half > 0 {
            asm.barrier();
            let limit = asm.u32(half);
            let inside = below(asm, local, limit);
            asm.when(inside, |asm| {
                let other = plus_constant(asm, Ty::U32, local, half.into());
                let (a, b) = (asm.load_shared(ty, shared, local), asm.load_shared(ty, shared, other));
                let sum = asm.rounded(Op::FAdd, ty, &[a, b]);
                asm.store_shared(ty, shared, local, sum);
            });
            half /= 2;
        }
        asm.barrier();
        let zero = asm.u32(0);
        sum = asm.load_shared(ty, shared, zero);
    }
    let one = asm.u32(1);
    let first = below(asm, local, one);
    let within = offset(asm, Ty::U32, &[(place.row, product.out[0]), (place.col, product.out[1])]);
    let within = plus(asm, Ty::U64, within, place.out);
    asm.when(first, |asm| {
        let address = asm.element(part.out, Ty::U64, within, part.written.size() as u32);
        let sum = begun_with_zero(asm, ty, sum);
        asm.store_computed(part.written, address, sum);
    });
}
