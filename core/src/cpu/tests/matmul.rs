//! Products against plain loops in f64, for all combinations of strides and many shapes.

use smallvec::{SmallVec, smallvec};
use tapeflow_ir::DType;

use super::{Buffer, Rng, compile, isas, run};
use crate::program::kernel::{Dims, Kernel, Layout, Matmul, Strides};

/// A layout over `(batch…, rows, cols)`: by rows or by columns, batch axes first or repeated.
fn layout(batch: &[usize], rows: usize, cols: usize, by_columns: bool, repeated: bool) -> (Layout, usize) {
    let mut strides: Strides = SmallVec::new();
    let mut stride = (rows * cols) as isize;
    let mut outer: Vec<isize> = Vec::new();
    for &extent in batch.iter().rev() {
        outer.push(if repeated { 0 } else { stride });
        stride *= if repeated { 1 } else { extent as isize };
    }
    strides.extend(outer.into_iter().rev());
    strides.extend(if by_columns { [1, rows as isize] } else { [cols as isize, 1] });
    (Layout { offset: 3, strides }, stride as usize + 3)
}

#[test]
fn all_strides_and_shapes() {
    let mut rng = Rng(31);
    let shapes = [
        (1, 1, 1),
        (4, 4, 2),
        (4, 1, 4),
        (1, 5, 7),
        (3, 2, 0),
        (0, 3, 4),
        (3, 0, 4),
        (16, 17, 15),
        (1, 300, 64),
        (300, 1, 64),
        (64, 64, 32),
        (33, 65, 129),
        (200, 300, 70),
        (130, 1000, 40),
        (500, 48, 200),
    ];
    let batches: [Dims; 4] = [smallvec![], smallvec![3], smallvec![2, 3], smallvec![2, 1, 2]];
    for dtype in [DType::F32, DType::F64] {
        for (m, n, k) in shapes {
            for batch in &batches {
                if batch.len() > 1 && m * n * k > 100_000 {
                    continue;
                }
                for bits in 0..16 {
                    let on = |bit: usize| bits >> bit & 1 == 1;
                    let (a, a_len) = layout(batch, m, k, on(0), on(2));
                    let (b, b_len) = layout(batch, k, n, on(1), on(3));
                    let items: usize = batch.iter().product();
                    let mut buffers = [
                        Buffer::random(&mut rng, dtype, a_len, false),
                        Buffer::random(&mut rng, dtype, b_len, false),
                        Buffer::new(dtype, items * m * n),
                    ];
                    let matmul = Matmul { dtype, batch: batch.clone(), m, n, k, a, b };
                    let isa = isas()[bits % isas().len()];
                    run(&*compile(Kernel::Matmul(matmul.clone()), isa), &mut buffers, &[]).unwrap();
                    verify(&matmul, &buffers);
                }
            }
        }
    }
}

fn verify(matmul: &Matmul, buffers: &[Buffer]) {
    let Matmul { dtype, ref batch, m, n, k, ref a, ref b } = *matmul;
    let value = |buffer: &Buffer, at: isize| match dtype {
        DType::F32 => buffer.slice::<f32>()[at as usize] as f64,
        _ => buffer.slice::<f64>()[at as usize],
    };
    let epsilon = if dtype == DType::F32 { 1e-6 } else { 1e-14 };
    let items: usize = batch.iter().product();
    let start = |layout: &Layout, mut item: usize| {
        let mut offset = layout.offset;
        for (&extent, &stride) in batch.iter().zip(&layout.strides).rev() {
            offset += (item % extent) as isize * stride;
            item /= extent;
        }
        offset
    };
    let rank = batch.len();
    let step = if m * n > 5000 { 7 } else { 1 };
    for item in 0..items {
        let (a0, b0) = (start(a, item), start(b, item));
        for at in (0..m * n).step_by(step) {
            let (i, j) = ((at / n) as isize, (at % n) as isize);
            let (mut sum, mut size) = (0.0, 0.0);
            for p in 0..k as isize {
                let x = value(&buffers[0], a0 + i * a.strides[rank] + p * a.strides[rank + 1]);
                let y = value(&buffers[1], b0 + p * b.strides[rank] + j * b.strides[rank + 1]);
                sum += x * y;
                size += (x * y).abs();
            }
            let actual = value(&buffers[2], (item * m * n + at) as isize);
            assert!((actual - sum).abs() <= size * epsilon, "{matmul:?} at {item}, {i}, {j}: {actual} for {sum}");
        }
    }
}

/// Several blocks each way, with remainders.
#[test]
fn large_products() {
    let mut rng = Rng(32);
    for (m, n, k) in [(700, 500, 300), (2000, 100, 150), (100, 2000, 150), (1025, 769, 65)] {
        for bits in 0..4 {
            let (a, a_len) = layout(&[], m, k, bits & 1 == 1, false);
            let (b, b_len) = layout(&[], k, n, bits & 2 == 2, false);
            let mut buffers = [
                Buffer::random(&mut rng, DType::F32, a_len, false),
                Buffer::random(&mut rng, DType::F32, b_len, false),
                Buffer::new(DType::F32, m * n),
            ];
            let matmul = Matmul { dtype: DType::F32, batch: smallvec![], m, n, k, a, b };
            let kernel = compile(Kernel::Matmul(matmul.clone()), isas()[0]);
            assert!(kernel.chunks() > 1, "{kernel:?}");
            run(&*kernel, &mut buffers, &[]).unwrap();
            verify(&matmul, &buffers);
        }
    }
}
