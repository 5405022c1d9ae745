//! Products of half precision against the f32 kernel: the widened product rounded, bit for bit; where pairs of terms
//! are added by an instruction of their own, close to it.

use smallvec::{SmallVec, smallvec};
use tapeflow_ir::DType;
use tapeflow_ir::half::{bf16_from_f32, bf16_to_f32, f16_from_f32, f16_to_f32};

use super::{Buffer, Isa, Rng, compile, isas, run};
use crate::program::kernel::{Dims, Kernel, Layout, Matmul, Shifts, Strides};

/// A layout from strides.
fn layout(strides: &[isize]) -> Layout {
    Layout { offset: 0, shifts: Shifts::new(), strides: Strides::from_slice(strides) }
}

fn check(matmul: &Matmul, lens: [usize; 3], rng: &mut Rng, isa: crate::cpu::Isa) {
    let is_f16 = matmul.dtype == DType::F16;
    let widen = |bits: u16| if is_f16 { f16_to_f32(bits) } else { bf16_to_f32(bits) };
    let narrow = |x: f32| if is_f16 { f16_from_f32(x) } else { bf16_from_f32(x) };
    let [a, b] = [lens[0], lens[1]].map(|len| Buffer::random(rng, matmul.dtype, len, false));
    let wide = |x: &Buffer| {
        let values: Vec<f32> = x.slice::<u16>().iter().map(|&bits| widen(bits)).collect();
        Buffer::of(DType::F32, &values)
    };
    let mut widened = [wide(&a), wide(&b), Buffer::new(DType::F32, lens[2])];
    let wide = Matmul { dtype: DType::F32, ..matmul.clone() };
    run(&*compile(Kernel::Matmul(wide), isa), &mut widened, &[]).unwrap();
    let mut halves = [a, b, Buffer::new(matmul.dtype, lens[2])];
    run(&*compile(Kernel::Matmul(matmul.clone()), isa), &mut halves, &[]).unwrap();
    if isa == Isa::Avx512Bf16 && !is_f16 {
        // The same sums of the operands' magnitudes bound what another order of adding changes.
        for (side, wide) in halves.iter().zip(&mut widened).take(2) {
            for (x, &bits) in wide.slice_mut::<f32>().iter_mut().zip(side.slice::<u16>()) {
                *x = widen(bits).abs();
            }
        }
        let exact = widened[2].slice::<f32>().to_vec();
        run(&*compile(Kernel::Matmul(Matmul { dtype: DType::F32, ..matmul.clone() }), isa), &mut widened, &[]).unwrap();
        for ((&bits, exact), size) in halves[2].slice::<u16>().iter().zip(exact).zip(widened[2].slice::<f32>()) {
            let error = (widen(bits) - exact).abs();
            assert!(error <= exact.abs() / 256.0 + size * 1e-6, "{isa:?} {matmul:?}: {} for {exact}", widen(bits));
        }
        return;
    }
    let expected: Vec<u16> = widened[2].slice::<f32>().iter().map(|&x| narrow(x)).collect();
    assert!(halves[2].slice::<u16>() == &expected[..], "{isa:?} {matmul:?}");
}

/// Each element has the same bits in a product of few rows or many, of an even number of terms or an odd one and a
/// zero, and however its operands lie.
#[test]
fn bits_depend_neither_on_the_cut_nor_on_the_layout() {
    let mut rng = Rng(43);
    for (isa, dtype) in isas().into_iter().flat_map(|isa| [(isa, DType::F16), (isa, DType::BF16)]) {
        for (m, n, k) in [(21, 70, 40), (30, 131, 515), (300, 200, 130), (9, 600, 33)] {
            let [a, b] = [m * k, k * n].map(|len| Buffer::random(&mut rng, dtype, len, false));
            let turned = |x: &Buffer, rows: usize, cols: usize| {
                let (x, at) = (x.slice::<u16>(), |i: usize| (i % rows) * cols + i / rows);
                Buffer::of(dtype, &(0..rows * cols).map(|i| x[at(i)]).collect::<Vec<_>>())
            };
            // A column of zeros more, which makes sums and pitches even.
            let longer = |x: &Buffer, rows: usize, cols: usize| {
                let (x, at) = (x.slice::<u16>(), |i: usize| (i / (cols + 1), i % (cols + 1)));
                let value = |(row, col): (usize, usize)| if col < cols { x[row * cols + col] } else { 0 };
                Buffer::of(dtype, &(0..rows * (cols + 1)).map(|i| value(at(i))).collect::<Vec<_>>())
            };
            let (across, down) = (turned(&a, m, k), turned(&b, k, n));
            let (a_longer, b_longer) = (longer(&a, m, k), longer(&down, n, k));
            let (all, mut expected) = (n, None::<Vec<u16>>);
            let lies = [
                (&a, [k, 1], &b, [n, 1], k),
                (&across, [1, m], &b, [n, 1], k),
                (&a, [k, 1], &down, [1, k], k),
                (&across, [1, m], &down, [1, k], k),
                (&a_longer, [k + 1, 1], &b_longer, [1, k + 1], k),
                (&a_longer, [k + 1, 1], &b_longer, [1, k + 1], k + 1),
            ];
            for (a, a_strides, b, b_strides, terms) in lies {
                for (i, rows, j, cols) in
                    [(0, m, 0, n), (1, 1, 0, n), (2, 7, 5, n - 5), (0, 9, n - 1, 1), (0, m, 3, 50)]
                {
                    let strides = |s: [usize; 2]| layout(&s.map(|s| s as isize));
                    let (mut a_layout, mut b_layout) = (strides(a_strides), strides(b_strides));
                    a_layout.offset = (i * a_strides[0]) as isize;
                    b_layout.offset = (j * b_strides[1]) as isize;
                    let [m, n, k]: [Dims; 3] = [rows, cols, terms].map(|extent| smallvec![extent]);
                    let matmul = Matmul { dtype, batch: Dims::new(), m, n, k, a: a_layout, b: b_layout };
                    let mut buffers = [a.clone(), b.clone(), Buffer::new(dtype, rows * cols)];
                    run(&*compile(Kernel::Matmul(matmul.clone()), isa), &mut buffers, &[]).unwrap();
                    let found = buffers[2].slice::<u16>();
                    let expected = expected.get_or_insert_with(|| found.to_vec());
                    for (at, &bits) in found.iter().enumerate() {
                        let whole = expected[(i + at / cols) * all + j + at % cols];
                        assert_eq!(bits, whole, "{isa} {matmul:?} at {at}");
                    }
                }
            }
        }
    }
}

#[test]
fn products_are_the_widened_ones_rounded() {
    let mut rng = Rng(41);
    let shapes = [
        (1, 1, 1),
        (4, 5, 7),
        (3, 2, 0),
        (0, 3, 4),
        (1, 300, 64),
        (300, 1, 64),
        (33, 65, 129),
        (260, 200, 70),
        (16, 17, 300),
    ];
    for dtype in [DType::F16, DType::BF16] {
        for (m, n, k) in shapes {
            for batch in [&[][..], &[3]] {
                for bits in 0..8 {
                    let on = |bit: usize| bits >> bit & 1 == 1;
                    let lie = |rows: usize, cols: usize, turned: bool, repeated: bool| {
                        let item = if repeated { 0 } else { (rows * cols) as isize };
                        let last = if turned { [1, rows as isize] } else { [cols as isize, 1] };
                        layout(&[&[item][..batch.len()], &last].concat())
                    };
                    let (a, b) = (lie(m, k, on(0), false), lie(k, n, on(1), on(2)));
                    let [m, n, k]: [Dims; 3] = [m, n, k].map(|extent| smallvec![extent]);
                    let items: usize = batch.iter().product();
                    let lens = [items * m[0] * k[0], items * k[0] * n[0], items * m[0] * n[0]];
                    let matmul = Matmul { dtype, batch: SmallVec::from_slice(batch), m, n, k, a, b };
                    check(&matmul, lens, &mut rng, isas()[bits % isas().len()]);
                }
            }
        }
    }
}

/// The windows of a convolution: lines and sums along several axes, side by side or two apart.
#[test]
fn windows_are_the_widened_ones_rounded() {
    let mut rng = Rng(42);
    let (channels, outs, extent, kernel) = (3, 20, 17, 3);
    for dtype in [DType::F16, DType::BF16] {
        for (turn, isa) in isas().into_iter().cycle().take(4).enumerate() {
            let stride = 1 + (turn % 2) as isize;
            let places = (extent - kernel) / stride as usize + 1;
            let (e, k) = (extent as isize, kernel as isize);
            let a = layout(&[channels as isize * k * k, k * k, k, 1]);
            let b = layout(&[e * e, e, 1, stride * e, stride]);
            let (m, n): (Dims, Dims) = (smallvec![outs], smallvec![places, places]);
            let sums: Dims = smallvec![channels, kernel, kernel];
            let lens = [outs * channels * kernel * kernel, channels * extent * extent, outs * places * places];
            let matmul = Matmul { dtype, batch: Dims::new(), m, n, k: sums, a, b };
            check(&matmul, lens, &mut rng, isa);
        }
    }
}

/// What is not finite stays in its row or column, also beside the zero that an odd sum's last pair has.
#[test]
fn nan_and_infinity_stay_where_they_belong() {
    for (isa, dtype) in isas().into_iter().flat_map(|isa| [(isa, DType::F16), (isa, DType::BF16)]) {
        let narrow = |x: f32| if dtype == DType::F16 { f16_from_f32(x) } else { bf16_from_f32(x) };
        let widen = |bits: u16| if dtype == DType::F16 { f16_to_f32(bits) } else { bf16_to_f32(bits) };
        for (m, n, k, turned) in [(2, 37, 16, true), (2, 37, 129, true), (2, 37, 129, false), (19, 37, 21, true)] {
            let (mut a, mut b) = (vec![narrow(1.0); m * k], vec![narrow(0.5); k * n]);
            a[(m - 1) * k + k - 1] = narrow(f32::NAN);
            let strides = if turned { [1, k as isize] } else { [n as isize, 1] };
            b[(k - 1) * strides[0] as usize + 36 * strides[1] as usize] = narrow(f32::INFINITY);
            let [rows, cols, sums]: [Dims; 3] = [m, n, k].map(|extent| smallvec![extent]);
            let (a_layout, b_layout) = (layout(&[k as isize, 1]), layout(&strides));
            let batch = Dims::new();
            let matmul = Matmul { dtype, batch, m: rows, n: cols, k: sums, a: a_layout, b: b_layout };
            let mut buffers = [Buffer::of(dtype, &a), Buffer::of(dtype, &b), Buffer::new(dtype, m * n)];
            run(&*compile(Kernel::Matmul(matmul), isa), &mut buffers, &[]).unwrap();
            for (at, &bits) in buffers[2].slice::<u16>().iter().enumerate() {
                match (at / n, at % n) {
                    (row, _) if row == m - 1 => assert!(widen(bits).is_nan(), "{isa} {dtype} {at}"),
                    (_, 36) => assert_eq!(widen(bits), f32::INFINITY, "{isa} {dtype} {at}"),
                    _ => assert_eq!(bits, narrow(k as f32 / 2.0), "{isa} {dtype} {at}"),
                }
            }
        }
    }
}
