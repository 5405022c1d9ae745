//! Products with weights in eight bits against plain loops in f64, on every instruction set.

use tapeflow_ir::DType;

use super::super::isa::Isa;
use super::{Buffer, Rng, compile, isas, run};
use crate::program::kernel::{Kernel, LinearInt8};

#[test]
fn all_shapes() {
    let mut rng = Rng(47);
    let shapes = [
        (1, 1, 1),
        (1, 5, 16),
        (2, 3, 15),
        (3, 4, 0),
        (0, 3, 4),
        (3, 0, 4),
        (4, 9, 33),
        (5, 7, 64),
        (9, 70, 100),
        (1, 1030, 77),
        (7, 130, 1024),
        (2, 9, 20_000),
    ];
    for (m, n, k) in shapes {
        let mut buffers = [
            Buffer::random(&mut rng, DType::F32, m * k, false),
            Buffer::random(&mut rng, DType::U8, n * k, false),
            Buffer::random(&mut rng, DType::F32, n, false),
            Buffer::new(DType::F32, m * n),
        ];
        let (x, codes) = (buffers[0].slice::<f32>().to_vec(), buffers[1].slice::<u8>().to_vec());
        let scales = buffers[2].slice::<f32>().to_vec();
        let mut fused: Option<Vec<u32>> = None;
        for isa in isas() {
            buffers[3] = Buffer::new(DType::F32, m * n);
            run(&*compile(Kernel::LinearInt8(LinearInt8 { m, n, k }), isa), &mut buffers, &[]).unwrap();
            for (at, &found) in buffers[3].slice::<f32>().iter().enumerate() {
                let (i, j) = (at / n, at % n);
                let terms = (0..k).map(|p| f64::from(x[i * k + p]) * (f64::from(codes[j * k + p]) - 128.0));
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                let scale = f64::from(scales[j]);
                let error = (f64::from(found) - sum * scale).abs();
                assert!(error <= 1e-6 * size * scale.abs(), "({i}, {j}) of {m}x{n}x{k} on {isa}: off by {error}");
            }
            // Sums run over as many lanes everywhere.
            if matches!(isa, Isa::Avx512 | Isa::Avx2) {
                let bits: Vec<u32> = buffers[3].slice::<f32>().iter().map(|x| x.to_bits()).collect();
                assert_eq!(*fused.get_or_insert_with(|| bits.clone()), bits, "{m}x{n}x{k} on {isa}");
            }
        }
    }
}

#[test]
fn what_is_no_number_comes_out_in_its_row_alone() {
    let (m, n, k) = (5, 6, 20);
    let mut x = vec![1f32; m * k];
    x[k + 3] = f32::NAN;
    x[2 * k + 17] = f32::INFINITY;
    let mut buffers = [
        Buffer::of(DType::F32, &x),
        Buffer::of(DType::U8, &vec![130u8; n * k]),
        Buffer::of(DType::F32, &vec![1f32; n]),
        Buffer::new(DType::F32, m * n),
    ];
    for isa in isas() {
        run(&*compile(Kernel::LinearInt8(LinearInt8 { m, n, k }), isa), &mut buffers, &[]).unwrap();
        for (i, row) in buffers[3].slice::<f32>().chunks(n).enumerate() {
            let expected = [40.0, f32::NAN, f32::INFINITY, 40.0, 40.0][i];
            assert!(row.iter().all(|y| *y == expected || (y.is_nan() && expected.is_nan())), "row {i}: {row:?}");
        }
    }
}
