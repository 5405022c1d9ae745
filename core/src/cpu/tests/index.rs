//! Gather, scatter-add, arg-reductions and index checks against plain loops; what is out of range is an error.

use tapeflow_ir::DType;

use super::{Buffer, Rng, compile, isas, run};
use crate::program::kernel::{ArgReduce, CheckIndex, Gather, Kernel, RunError, ScatterAdd};

const SHAPES: [(usize, usize, usize, usize); 9] = [
    (1, 65, 64, 768),
    (1, 5, 1, 3),
    (3, 7, 4, 10),
    (2, 3, 1, 0),
    (100, 10, 1, 1),
    (1, 1000, 17, 300),
    (2, 4, 5, 9000),
    (1, 3, 20_000, 1),
    (4, 6, 0, 5),
];

fn indices(rng: &mut Rng, dtype: DType, extent: usize, n: usize) -> (Buffer, Vec<usize>) {
    let raw: Vec<i64> = (0..n)
        .map(|_| rng.below(extent) as i64 - if dtype != DType::U32 && rng.below(3) == 0 { extent as i64 } else { 0 })
        .collect();
    let places = raw.iter().map(|&i| if i < 0 { (i + extent as i64) as usize } else { i as usize }).collect();
    let buffer = match dtype {
        DType::I64 => Buffer::of(dtype, &raw),
        _ => Buffer::of(dtype, &raw.iter().map(|&i| i as i32).collect::<Vec<_>>()),
    };
    (buffer, places)
}

#[test]
fn gather_and_scatter_add() {
    let mut rng = Rng(41);
    for (outer, extent, inner, picks) in SHAPES {
        for along in [false, true] {
            for (dtype, index_dtype) in [(DType::F32, DType::I64), (DType::I64, DType::I32), (DType::F64, DType::U32)] {
                let gather = Gather { dtype, index_dtype, outer, extent, inner, picks, along };
                let count = if along { outer * picks * inner } else { picks };
                let (list, places) = indices(&mut rng, index_dtype, extent, count);
                let place = |o: usize, j: usize, l: usize| {
                    let pick = if along { places[(o * picks + j) * inner + l] } else { places[j] };
                    (o * extent + pick) * inner + l
                };
                let data = Buffer::random(&mut rng, dtype, outer * extent * inner, false);
                let wide = Buffer::random(&mut rng, dtype, outer * picks * inner, false);
                for isa in isas() {
                    let mut buffers = [data.clone(), list.clone(), Buffer::new(dtype, wide.len)];
                    run(&*compile(Kernel::Gather(gather.clone()), isa), &mut buffers, &[]).unwrap();
                    let all = (0..wide.len).map(|at| place(at / inner / picks, at / inner % picks, at % inner));
                    assert_eq!(buffers[2].column(0..wide.len), data.column(all), "{gather:?}");

                    let mut buffers = [wide.clone(), list.clone(), Buffer::new(dtype, data.len)];
                    run(&*compile(Kernel::ScatterAdd(ScatterAdd(gather.clone())), isa), &mut buffers, &[]).unwrap();
                    macro_rules! verify {
                        ($t:ty) => {{
                            let mut expected = vec![0 as $t; data.len];
                            for (at, &value) in wide.slice::<$t>().iter().enumerate() {
                                expected[place(at / inner / picks, at / inner % picks, at % inner)] += value;
                            }
                            assert_eq!(buffers[2].slice::<$t>(), &expected[..], "{gather:?}");
                        }};
                    }
                    match dtype {
                        DType::F32 => verify!(f32),
                        DType::F64 => verify!(f64),
                        _ => verify!(i64),
                    }
                }
            }
        }
    }
}

#[test]
fn out_of_range_is_an_error() {
    for (index, extent) in [(5, 5), (-6, 5), (i64::MAX, 5), (i64::MIN, 5), (0, 0), (-1, 0)] {
        let list = Buffer::of(DType::I64, &[0i64.min(extent as i64 - 1), index]);
        let error = Err(RunError::Index { index, extent });
        let error = if extent == 0 && index == 0 { Err(RunError::Index { index: -1, extent }) } else { error };
        let (data, out) = (Buffer::of(DType::F32, &vec![1.0f32; 2 * extent.max(1)]), Buffer::new(DType::F32, 16));
        let isa = isas()[0];
        let check = Kernel::CheckIndex(CheckIndex { dtype: DType::I64, count: 2, extent });
        let actual = run(&*compile(check, isa), &mut [list.clone()], &[]);
        assert!(actual.is_err());
        if extent > 0 {
            assert_eq!(actual, error);
        }
        for along in [false, true] {
            let gather = Gather {
                dtype: DType::F32,
                index_dtype: DType::I64,
                outer: 1,
                extent,
                inner: if along { 1 } else { 2 },
                picks: 2,
                along,
            };
            let mut buffers = [data.clone(), list.clone(), out.clone()];
            let kernel = compile(Kernel::Gather(gather.clone()), isa);
            assert!(run(&*kernel, &mut buffers, &[]).is_err());
            let kernel = compile(Kernel::ScatterAdd(ScatterAdd(gather)), isa);
            assert!(run(&*kernel, &mut buffers, &[]).is_err());
        }
    }
    let list = Buffer::of(DType::U32, &[3u32, u32::MAX]);
    let check = Kernel::CheckIndex(CheckIndex { dtype: DType::U32, count: 2, extent: 4 });
    let error = RunError::Index { index: u32::MAX as i64, extent: 4 };
    assert_eq!(run(&*compile(check, isas()[0]), &mut [list], &[]), Err(error));
}

#[test]
fn first_extreme_of_each_row() {
    let mut rng = Rng(42);
    for (rows, length) in [(1, 1), (3, 2), (100, 10), (7, 1000), (2, 50_000), (0, 4)] {
        for isa in isas() {
            for max in [false, true] {
                let mut data = Buffer::random(&mut rng, DType::F32, rows * length, true);
                data.slice_mut::<f32>().iter_mut().for_each(|x| *x = (*x * 4.0).round());
                let better = |a: f32, b: f32| if max { a > b } else { a < b };
                let expected: Vec<i64> = (0..rows)
                    .map(|row| {
                        let row = &data.slice::<f32>()[row * length..][..length];
                        let mut at = 0;
                        for i in 1..length {
                            if !row[at].is_nan() && (row[i].is_nan() || better(row[i], row[at])) {
                                at = i;
                            }
                        }
                        at as i64
                    })
                    .collect();
                let mut buffers = [data, Buffer::new(DType::I64, rows)];
                let reduce = ArgReduce { dtype: DType::F32, max, rows, length };
                run(&*compile(Kernel::ArgReduce(reduce), isa), &mut buffers, &[]).unwrap();
                assert_eq!(buffers[1].slice::<i64>(), &expected[..]);
            }
        }
    }
    let mut buffers = [Buffer::of(DType::Bool, &[0u8, 1, 1, 0, 0, 0]), Buffer::new(DType::I64, 2)];
    let reduce = ArgReduce { dtype: DType::Bool, max: true, rows: 2, length: 3 };
    run(&*compile(Kernel::ArgReduce(reduce), isas()[0]), &mut buffers, &[]).unwrap();
    assert_eq!(buffers[1].slice::<i64>(), [1, 0]);
}
