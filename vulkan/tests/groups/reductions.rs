//! Reductions: trailing and leading ones of many lengths and dtypes, with stores beside them, and row kernels.

use tapeflow_core::driver::{Group, OutputKind};
use tapeflow_ir::{Binary, Builder, DType, Extent, Reduce, ScalarFn, Type, Unary};

use super::{Buffer, Rng, check, check_all, contiguous, dims, layout, operand, output};

const DTYPES: [DType; 6] = [DType::F32, DType::F64, DType::I32, DType::I64, DType::U32, DType::U8];

fn doubled(dtype: DType) -> ScalarFn {
    let mut b = Builder::new();
    let x = b.input(Type::lane(dtype));
    let sum = b.binary(Binary::Add, x, x);
    b.finish(&[sum, sum, sum])
}

fn reduced(space: &[usize], dtype: DType, kind: fn(Reduce, usize) -> OutputKind, axes: usize) -> Group {
    Group {
        space: dims(space),
        function: doubled(dtype),
        inputs: vec![operand(0, contiguous(space))],
        outputs: Reduce::ALL.iter().enumerate().map(|(i, &op)| output(1 + i, kind(op, axes))).collect(),
    }
}

fn run(rng: &mut Rng, space: &[usize], dtype: DType, kind: fn(Reduce, usize) -> OutputKind, axes: usize, kept: usize) {
    let n = space.iter().product();
    let mut buffers = vec![Buffer::random(rng, dtype, n, rng.0.is_multiple_of(2))];
    buffers.extend(Reduce::ALL.map(|_| Buffer::new(dtype, kept)));
    if space.len() == 2 && rng.below(3) > 0 {
        return check(&reduced(space, dtype, kind, axes), &buffers, &[]);
    }
    check_all(&reduced(space, dtype, kind, axes), &buffers, &[]);
}

#[test]
fn trailing() {
    let mut rng = Rng(21);
    for dtype in DTYPES {
        for length in [0, 1, 2, 3, 7, 16, 33, 100, 1000, 4096, 4097, 10_000] {
            for kept in [1, 3, 20] {
                run(&mut rng, &[kept, length], dtype, OutputKind::ReduceTrailing, 1, kept);
            }
        }
        run(&mut rng, &[7, 11, 13], dtype, OutputKind::ReduceTrailing, 2, 7);
        run(&mut rng, &[1000, 3], dtype, OutputKind::ReduceTrailing, 1, 1000);
        run(&mut rng, &[], dtype, OutputKind::ReduceTrailing, 0, 1);
        run(&mut rng, &[5, 3], dtype, OutputKind::ReduceTrailing, 0, 15);
    }
}

/// More than 4096 pieces: the sums of pieces are summed piece by piece as well.
#[test]
fn a_sum_of_three_levels() {
    let n = 4096 * 4096 + 4096 * 5 + 17;
    let mut b = Builder::new();
    let i = b.input(Type::lane(DType::I64));
    let x = b.cast(i, DType::F32);
    let x = b.unary(Unary::Sqrt, x);
    let group = Group {
        space: dims(&[n]),
        function: b.finish(&[x]),
        inputs: vec![tapeflow_core::driver::Source::Iota(layout(0, &[1]))],
        outputs: vec![output(0, OutputKind::ReduceTrailing(Reduce::Sum, 1))],
    };
    check(&group, &[Buffer::new(DType::F32, 1)], &[]);
}

#[test]
fn leading() {
    let mut rng = Rng(22);
    for dtype in DTYPES {
        for rows in [0, 1, 2, 63, 64, 65, 200, 1000] {
            for cols in [1, 5, 64, 300] {
                run(&mut rng, &[rows, cols], dtype, OutputKind::ReduceLeading, 1, cols);
            }
        }
        run(&mut rng, &[7, 11, 13], dtype, OutputKind::ReduceLeading, 2, 13);
        run(&mut rng, &[70, 3, 5], dtype, OutputKind::ReduceLeading, 1, 15);
    }
    run(&mut rng, &[100_000, 2], DType::F32, OutputKind::ReduceLeading, 1, 2);
}

/// More chunks than one loop of the device runs.
#[test]
fn a_column_of_many_chunks() {
    let n = 64 * 70_000 + 3;
    let mut b = Builder::new();
    let i = b.input(Type::lane(DType::I64));
    let x = b.cast(i, DType::F32);
    let x = b.unary(Unary::Sqrt, x);
    let group = Group {
        space: dims(&[n]),
        function: b.finish(&[x, x]),
        inputs: vec![tapeflow_core::driver::Source::Iota(layout(0, &[1]))],
        outputs: vec![
            output(0, OutputKind::ReduceLeading(Reduce::Sum, 1)),
            output(1, OutputKind::ReduceLeading(Reduce::Max, 1)),
        ],
    };
    check(&group, &[Buffer::new(DType::F32, 1), Buffer::new(DType::F32, 1)], &[]);
}

/// Sums of a literal zero are +0, of a literal −0 they are −0.
#[test]
fn sums_of_constants() {
    for value in [0.0, -0.0, 0.1] {
        for dtype in [DType::F32, DType::F64] {
            for (kind, space) in [
                (OutputKind::ReduceTrailing as fn(Reduce, usize) -> OutputKind, [3, 20]),
                (OutputKind::ReduceTrailing, [3, 5000]),
                (OutputKind::ReduceLeading, [300, 3]),
            ] {
                let mut b = Builder::new();
                let x = b.float(dtype, value);
                let x = b.repeat(x);
                let group = Group {
                    space: dims(&space),
                    function: b.finish(&[x]),
                    inputs: vec![],
                    outputs: vec![output(0, kind(Reduce::Sum, 1))],
                };
                check(&group, &[Buffer::new(dtype, 3)], &[]);
            }
        }
    }
}

/// Transposed operands, stores along with one reduction, and beside two kinds of them.
#[test]
fn reductions_with_stores() {
    let mut rng = Rng(23);
    for (rows, cols) in [(3, 5), (100, 37), (70, 5000), (5000, 70)] {
        let mut group = reduced(&[rows, cols], DType::F32, OutputKind::ReduceTrailing, 1);
        group.inputs[0] = operand(0, layout(1, &[1, rows as isize]));
        group.outputs[1] = output(2, OutputKind::Store(layout(0, &[1, rows as isize])));
        let n = rows * cols;
        let mut buffers = [
            Buffer::random(&mut rng, DType::F32, n + 1, false),
            Buffer::new(DType::F32, rows),
            Buffer::new(DType::F32, n),
            Buffer::new(DType::F32, rows),
        ];
        check_all(&group, &buffers, &[]);
        group.outputs[2] = output(3, OutputKind::ReduceLeading(Reduce::Sum, 1));
        buffers[3] = Buffer::new(DType::F32, cols);
        check_all(&group, &buffers, &[]);
        group.outputs[0] = output(1, OutputKind::ReduceLeading(Reduce::Max, 1));
        buffers[1] = Buffer::new(DType::F32, cols);
        check_all(&group, &buffers, &[]);
    }
}

/// Softmax, its maximum and its sum per row, and the column sums of its result.
fn softmax() -> ScalarFn {
    let mut b = Builder::new();
    let (x, w) = (b.input(Type::lane(DType::F32)), b.input(Type::row(DType::F32)));
    let max = b.reduce(Reduce::Max, x);
    let shifted = b.binary(Binary::Sub, x, max);
    let shifted = b.binary(Binary::Mul, shifted, w);
    let e = b.unary(Unary::Exp, shifted);
    let sum = b.reduce(Reduce::Sum, e);
    let y = b.binary(Binary::Div, e, sum);
    b.finish(&[y, max, sum, y])
}

#[test]
fn row_kernels() {
    let mut rng = Rng(24);
    for (outer, length) in [
        (&[4][..], 1),
        (&[3, 5], 7),
        (&[], 40),
        (&[70, 2], 16),
        (&[9], 1000),
        (&[130], 129),
        (&[3], 4096),
        (&[3], 4097),
        (&[2, 2], 10_000),
        (&[3, 2], 0),
        (&[0], 5),
        (&[1000], 10),
    ] {
        let space = [outer, &[length]].concat();
        let (rows, n): (usize, usize) = (outer.iter().product(), space.iter().product());
        let mut per_row = contiguous(outer);
        per_row.strides.push(0);
        let mut outputs = vec![
            output(2, OutputKind::Store(contiguous(&space))),
            output(3, OutputKind::Store(per_row.clone())),
            output(4, OutputKind::Store(per_row.clone())),
            output(5, OutputKind::ReduceLeading(Reduce::Sum, outer.len())),
        ];
        let mut function = softmax();
        let buffers = [
            Buffer::random(&mut rng, DType::F32, n, false),
            Buffer::random(&mut rng, DType::F32, rows, false),
            Buffer::new(DType::F32, n),
            Buffer::new(DType::F32, rows),
            Buffer::new(DType::F32, rows),
            Buffer::new(DType::F32, length),
        ];
        let mut group = Group {
            space: dims(&space),
            function: function.clone(),
            inputs: vec![operand(0, contiguous(&space)), operand(1, per_row)],
            outputs: outputs.clone(),
        };
        check_all(&group, &buffers, &[]);
        function.outputs.truncate(3);
        outputs.truncate(3);
        (group.function, group.outputs) = (function, outputs);
        check_all(&group, &buffers, &[]);
    }
}

/// Layer norm with its length, several reductions at once, integers beside floats.
#[test]
fn moments() {
    let mut rng = Rng(25);
    for length in [5, 64, 1000, 5000] {
        let mut b = Builder::new();
        let x = b.input(Type::lane(DType::F64));
        let k = b.input(Type::lane(DType::I32));
        let count = b.length(DType::F64);
        let (sum, most) = (b.reduce(Reduce::Sum, x), b.reduce(Reduce::Max, k));
        let mean = b.binary(Binary::Div, sum, count);
        let centred = b.binary(Binary::Sub, x, mean);
        let square = b.binary(Binary::Mul, centred, centred);
        let square = b.reduce(Reduce::Sum, square);
        let variance = b.binary(Binary::Div, square, count);
        let deviation = b.unary(Unary::Sqrt, variance);
        let y = b.binary(Binary::Div, centred, deviation);
        let rest = b.binary(Binary::Sub, k, most);
        let repeated = b.repeat(deviation);
        assert_eq!(b.ty(most).extent, Extent::Row);
        let function = b.finish(&[y, rest, repeated]);
        let space = [33, length];
        let group = super::elementwise(&space, function);
        let n = 33 * length;
        let buffers = [
            Buffer::random(&mut rng, DType::F64, n, false),
            Buffer::random(&mut rng, DType::I32, n, false),
            Buffer::new(DType::F64, n),
            Buffer::new(DType::I32, n),
            Buffer::new(DType::F64, n),
        ];
        check_all(&group, &buffers, &[]);
    }
}
