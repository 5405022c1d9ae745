//! Products against plain loops in f64, for all combinations of strides and many shapes.

use smallvec::{SmallVec, smallvec};
use tapeflow_ir::DType;

use super::super::isa::Isa;
use super::{Buffer, Rng, compile, isas, run};
use crate::program::kernel::{Dims, Kernel, Layout, Matmul, Shifts, Strides};

/// A product of single axes.
fn matmul(dtype: DType, batch: &[usize], [m, n, k]: [usize; 3], a: Layout, b: Layout) -> Matmul {
    let [m, n, k] = [m, n, k].map(|extent| smallvec![extent]);
    Matmul { dtype, batch: batch.iter().copied().collect(), m, n, k, a, b }
}

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
    (Layout { offset: 3, shifts: Shifts::new(), strides }, stride as usize + 3)
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
        (1, 2005, 70),
        (3, 10, 210),
        (5, 1030, 200),
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
                    let matmul = matmul(dtype, batch, [m, n, k], a, b);
                    let isa = isas()[bits % isas().len()];
                    run(&*compile(Kernel::Matmul(matmul.clone()), isa), &mut buffers, &[]).unwrap();
                    verify(&matmul, &buffers);
                }
            }
        }
    }
}

fn verify(matmul: &Matmul, buffers: &[Buffer]) {
    let Matmul { dtype, ref batch, ref a, ref b, .. } = *matmul;
    let [m, n, k] = matmul.extents().unwrap();
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
            let matmul = matmul(DType::F32, &[], [m, n, k], a, b);
            let kernel = compile(Kernel::Matmul(matmul.clone()), isas()[0]);
            assert!(kernel.chunks() > 1, "{kernel:?}");
            run(&*kernel, &mut buffers, &[]).unwrap();
            verify(&matmul, &buffers);
        }
    }
}

/// A product of `k` long enough for several blocks, whose strides are neither of rows nor of columns.
#[test]
fn strides_with_gaps_and_long_sums() {
    let mut rng = Rng(33);
    for isa in isas() {
        for dtype in [DType::F32, DType::F64] {
            for (m, n, k) in [(9, 50, 300), (17, 33, 784), (1, 100, 513), (50, 1, 257), (2, 2, 1000), (7, 49, 129)] {
                for (a, b) in
                    [((2 * k, 2), (3 * n, 3)), ((3, 3 * m), (2, 2 * k)), ((k + 5, 1), (n + 3, 1)), ((1, m), (1, k))]
                {
                    let layout = |(row, col): (usize, usize)| Layout {
                        offset: 1,
                        shifts: Shifts::new(),
                        strides: smallvec![row as isize, col as isize],
                    };
                    let mut buffers = [
                        Buffer::random(&mut rng, dtype, 2 + m * a.0 + k * a.1, false),
                        Buffer::random(&mut rng, dtype, 2 + k * b.0 + n * b.1, false),
                        Buffer::new(dtype, m * n),
                    ];
                    let matmul = matmul(dtype, &[], [m, n, k], layout(a), layout(b));
                    run(&*compile(Kernel::Matmul(matmul.clone()), isa), &mut buffers, &[]).unwrap();
                    verify(&matmul, &buffers);
                }
            }
        }
    }
}

/// A product of drawn operands, each by rows or by columns, with its buffers and the bits of its result.
fn multiplied(
    rng: &mut Rng,
    (isa, dtype): (Isa, DType),
    [m, n, k]: [usize; 3],
    [a_by_columns, b_by_columns]: [bool; 2],
) -> (Matmul, [Buffer; 3], Vec<u64>) {
    let (a, a_len) = layout(&[], m, k, a_by_columns, false);
    let (b, b_len) = layout(&[], k, n, b_by_columns, false);
    let mut buffers =
        [Buffer::random(rng, dtype, a_len, false), Buffer::random(rng, dtype, b_len, false), Buffer::new(dtype, m * n)];
    let whole = matmul(dtype, &[], [m, n, k], a, b);
    run(&*compile(Kernel::Matmul(whole.clone()), isa), &mut buffers, &[]).unwrap();
    let expected = bits(&buffers[2]);
    (whole, buffers, expected)
}

/// Each element has the same bits, however the product around it is cut: in a tile, at an edge, in the plain loops.
#[test]
fn bits_do_not_depend_on_the_cut() {
    let mut rng = Rng(34);
    for (isa, dtype) in isas().into_iter().flat_map(|isa| [(isa, DType::F32), (isa, DType::F64)]) {
        for (m, n, k) in [(37, 113, 300), (20, 70, 40), (70, 130, 1024)] {
            for by_columns in 0..4 {
                let by_columns = [by_columns & 1 == 1, by_columns & 2 == 2];
                let (whole, mut buffers, expected) = multiplied(&mut rng, (isa, dtype), [m, n, k], by_columns);
                for (i, rows, j, cols) in [
                    (0, 1, 0, n),
                    (3, m - 3, 0, n),
                    (0, m, 5, n - 5),
                    (1, 1, 1, 1),
                    (7, 9, 33, 17),
                    (0, m, n - 1, 1),
                    (8, 2, 16, 2),
                ] {
                    let mut part = Matmul { m: smallvec![rows], n: smallvec![cols], ..whole.clone() };
                    part.a.offset += i as isize * whole.a.strides[0];
                    part.b.offset += j as isize * whole.b.strides[1];
                    buffers[2] = Buffer::new(dtype, rows * cols);
                    run(&*compile(Kernel::Matmul(part), isa), &mut buffers, &[]).unwrap();
                    for (at, bits) in bits(&buffers[2]).into_iter().enumerate() {
                        let (r, c) = (i + at / cols, j + at % cols);
                        assert_eq!(bits, expected[r * n + c], "{whole:?} on {isa} from {i}, {j}: element {r}, {c}");
                    }
                }
            }
        }
    }
}

/// Rows of `a` along which the terms lie have the bits of rows across them: any number of rows in the last tile, terms
/// that end within a cache line or with one, in one block or two.
#[test]
fn rows_along_terms_have_the_bits_of_rows_across_them() {
    let mut rng = Rng(37);
    for (isa, dtype) in isas().into_iter().flat_map(|isa| [(isa, DType::F32), (isa, DType::F64)]) {
        for k in [1, 15, 16, 17, 63, 64, 65, 95, 96, 111, 127, 128, 129, 143, 176, 191, 192, 193, 208] {
            for m in 9..=17 {
                let n = 10 * (m - 8);
                let (whole, mut buffers, expected) = multiplied(&mut rng, (isa, dtype), [m, n, k], [false, k % 2 == 1]);
                verify(&whole, &buffers);
                let mut turned = Buffer::new(dtype, 3 + m * k);
                for at in 0..m * k {
                    let to = 3 + at % k * m + at / k;
                    match dtype {
                        DType::F32 => turned.slice_mut::<f32>()[to] = buffers[0].slice::<f32>()[3 + at],
                        _ => turned.slice_mut::<f64>()[to] = buffers[0].slice::<f64>()[3 + at],
                    }
                }
                buffers[0] = turned;
                buffers[2] = Buffer::new(dtype, m * n);
                let across = Matmul { a: layout(&[], m, k, true, false).0, ..whole.clone() };
                run(&*compile(Kernel::Matmul(across), isa), &mut buffers, &[]).unwrap();
                assert_eq!(bits(&buffers[2]), expected, "{whole:?} on {isa}");
            }
        }
    }
}

/// A product of few rows reads `b` as it passes by: its rows are those of a large one, bit for bit.
#[test]
fn few_rows_have_the_bits_of_many() {
    let mut rng = Rng(36);
    for (isa, dtype) in isas().into_iter().flat_map(|isa| [(isa, DType::F32), (isa, DType::F64)]) {
        for (m, n, k) in [(21, 300, 70), (12, 131, 513), (30, 16, 257), (40, 1, 130)] {
            for turned in [false, true] {
                let (whole, mut buffers, expected) = multiplied(&mut rng, (isa, dtype), [m, n, k], [false, turned]);
                for rows in 1..=9 {
                    let mut part = Matmul { m: smallvec![rows], ..whole.clone() };
                    part.a.offset += 3 * whole.a.strides[0];
                    buffers[2] = Buffer::new(dtype, rows * n);
                    run(&*compile(Kernel::Matmul(part), isa), &mut buffers, &[]).unwrap();
                    assert_eq!(bits(&buffers[2]), expected[3 * n..][..rows * n], "{rows} of {whole:?} on {isa}");
                }
            }
        }
    }
}

/// A batch axis that only one operand has is many products, or one with more rows; the bits are the same.
#[test]
fn bits_do_not_depend_on_the_batch() {
    let mut rng = Rng(35);
    for isa in isas() {
        let (items, m, n, k) = (5, 13, 50, 150);
        let (a, a_len) = layout(&[items], m, k, false, false);
        let (b, b_len) = layout(&[items], k, n, true, true);
        let mut buffers = [
            Buffer::random(&mut rng, DType::F32, a_len, false),
            Buffer::random(&mut rng, DType::F32, b_len, false),
            Buffer::new(DType::F32, items * m * n),
        ];
        let all = matmul(DType::F32, &[items], [m, n, k], a.clone(), b.clone());
        run(&*compile(Kernel::Matmul(all), isa), &mut buffers, &[]).unwrap();
        let expected = bits(&buffers[2]);
        for item in 0..items {
            let one = |of: &Layout| Layout {
                offset: of.offset + item as isize * of.strides[0],
                shifts: Shifts::new(),
                strides: of.strides[1..].iter().copied().collect(),
            };
            buffers[2] = Buffer::new(DType::F32, m * n);
            let matmul = matmul(DType::F32, &[], [m, n, k], one(&a), one(&b));
            run(&*compile(Kernel::Matmul(matmul), isa), &mut buffers, &[]).unwrap();
            assert_eq!(bits(&buffers[2]), expected[item * m * n..][..m * n]);
        }
    }
}

/// What is not finite stays in its row or column.
#[test]
fn nan_and_infinity_stay_where_they_belong() {
    for isa in isas() {
        let (m, n, k) = (19, 37, 20);
        let (a, a_len) = layout(&[], m, k, false, false);
        let (b, b_len) = layout(&[], k, n, true, false);
        let mut buffers =
            [Buffer::new(DType::F32, a_len), Buffer::new(DType::F32, b_len), Buffer::new(DType::F32, m * n)];
        buffers[0].slice_mut::<f32>().fill(1.0);
        buffers[1].slice_mut::<f32>().fill(0.5);
        buffers[0].slice_mut::<f32>()[3 + 18 * k + 4] = f32::NAN;
        buffers[1].slice_mut::<f32>()[3 + 36 * k + 7] = f32::INFINITY;
        run(&*compile(Kernel::Matmul(matmul(DType::F32, &[], [m, n, k], a, b)), isa), &mut buffers, &[]).unwrap();
        for (at, &value) in buffers[2].slice::<f32>().iter().enumerate() {
            match (at / n, at % n) {
                (18, _) => assert!(value.is_nan()),
                (_, 36) => assert_eq!(value, f32::INFINITY),
                _ => assert_eq!(value, 10.0),
            }
        }
    }
}

fn bits(buffer: &Buffer) -> Vec<u64> {
    match buffer.dtype {
        DType::F32 => buffer.slice::<f32>().iter().map(|x| x.to_bits() as u64).collect(),
        _ => buffer.slice::<f64>().iter().map(|x| x.to_bits()).collect(),
    }
}
