//! Chosen groups: long rows, long sums cut into pieces, wide column sums, donated buffers, nothing at all.

use smallvec::smallvec;
use tapeflow_ir::{Binary, Builder, Column, DType, Reduce, ScalarFn, Type, Unary};

use super::{Buffer, Rng, check, compile, isas, reference, run, run_at};
use crate::cpu::space::contiguous;
use crate::program::kernel::{Group, Kernel, Layout, Output, OutputKind, Shifts, Source};

fn operand(operand: usize, layout: Layout) -> Source {
    Source::Operand { operand, layout }
}

fn output(operand: usize, kind: OutputKind) -> Output {
    Output { operand, kind }
}

/// `a · b + a`
fn chain() -> ScalarFn {
    let mut b = Builder::new();
    let (x, y) = (b.input(Type::lane(DType::F32)), b.input(Type::lane(DType::F32)));
    let product = b.binary(Binary::Mul, x, y);
    let sum = b.binary(Binary::Add, product, x);
    b.finish(&[sum])
}

/// `(x − max) / Σ(x − max)`, and the sum: a row kernel of arithmetic that rounds nowhere differently.
fn normalise() -> ScalarFn {
    let mut b = Builder::new();
    let (x, w) = (b.input(Type::lane(DType::F32)), b.input(Type::lane(DType::F32)));
    let max = b.reduce(Reduce::Max, x);
    let d = b.binary(Binary::Sub, x, max);
    let sum = b.reduce(Reduce::Sum, d);
    let y = b.binary(Binary::Div, d, sum);
    let y = b.binary(Binary::Mul, y, w);
    b.finish(&[y, sum])
}

#[test]
fn rows_of_every_length() {
    let mut rng = Rng(7);
    for (rows, length) in [
        (3, 0),
        (0, 5),
        (1, 1),
        (7, 1),
        (5, 2),
        (9, 15),
        (300, 16),
        (70, 17),
        (129, 24),
        (33, 64),
        (10, 65),
        (65, 100),
        (5, 1000),
        (4, 1023),
        (3, 1024),
        (3, 1025),
        (2, 4096),
        (2, 4097),
        (1, 40_000),
        (66, 513),
    ] {
        let weight = Layout { offset: 0, shifts: Shifts::new(), strides: smallvec![0, 1] };
        let by_row = Layout { offset: 0, shifts: Shifts::new(), strides: smallvec![1, 0] };
        let space = smallvec![rows, length];
        let group = Group {
            function: normalise(),
            inputs: vec![operand(0, contiguous(&space)), operand(1, weight)],
            outputs: vec![output(2, OutputKind::Store(contiguous(&space))), output(3, OutputKind::Store(by_row))],
            space,
        };
        let buffers = [
            Buffer::random(&mut rng, DType::F32, rows * length, false),
            Buffer::random(&mut rng, DType::F32, length, false),
            Buffer::new(DType::F32, rows * length),
            Buffer::new(DType::F32, rows),
        ];
        check(&group, &buffers, &[]);
    }
}

/// A row kernel whose result is stored and summed over all rows, as a layer-norm's backward does.
#[test]
fn a_row_kernel_with_a_column_sum() {
    let mut rng = Rng(8);
    for (rows, length) in [(1, 3), (63, 7), (64, 33), (65, 768), (300, 20), (1000, 3), (5, 0)] {
        let space = smallvec![rows, length];
        let mut function = normalise();
        function.outputs = vec![function.outputs[0], function.outputs[0]];
        let group = Group {
            function,
            inputs: vec![operand(0, contiguous(&space)), operand(0, contiguous(&space))],
            outputs: vec![
                output(1, OutputKind::Store(contiguous(&space))),
                output(2, OutputKind::ReduceLeading(Reduce::Sum, 1)),
            ],
            space,
        };
        let buffers = [
            Buffer::random(&mut rng, DType::F32, rows * length, false),
            Buffer::new(DType::F32, rows * length),
            Buffer::new(DType::F32, length),
        ];
        check(&group, &buffers, &[]);
    }
}

#[test]
fn sums_of_any_length() {
    let mut rng = Rng(9);
    for (kept, n) in [
        (1, 0),
        (3, 0),
        (1, 1),
        (5, 15),
        (4, 4096),
        (3, 4097),
        (1, 65_536),
        (2, 70_001),
        (1, 300_000),
        (3, 131_072),
        (1, 4096 * 4096 / 64 + 5),
        (1000, 3),
        (17, 1000),
    ] {
        for op in [Reduce::Sum, Reduce::Max] {
            let space = smallvec![kept, n];
            let group = Group {
                function: chain(),
                inputs: vec![
                    operand(0, contiguous(&space)),
                    operand(1, Layout { offset: 0, shifts: Shifts::new(), strides: smallvec![1, 0] }),
                ],
                outputs: vec![output(2, OutputKind::ReduceTrailing(op, 1))],
                space,
            };
            let buffers = [
                Buffer::random(&mut rng, DType::F32, kept * n, false),
                Buffer::random(&mut rng, DType::F32, kept, false),
                Buffer::new(DType::F32, kept),
            ];
            check(&group, &buffers, &[]);
        }
    }
}

/// More than 4096 pieces: the pieces' results are themselves summed in pieces.
#[test]
fn a_sum_of_three_levels() {
    let n = 4096 * 4097 + 11;
    let mut rng = Rng(10);
    let x = Buffer::random(&mut rng, DType::F32, n, false);
    let mut b = Builder::new();
    let v = b.input(Type::lane(DType::F32));
    let group = Group {
        function: b.finish(&[v]),
        inputs: vec![operand(0, contiguous(&[n]))],
        outputs: vec![output(1, OutputKind::ReduceTrailing(Reduce::Sum, 1))],
        space: smallvec![n],
    };
    let expected = tapeflow_ir::reduce::sum_f32(x.slice());
    for isa in isas() {
        let mut buffers = [x.clone(), Buffer::new(DType::F32, 1)];
        run(&*compile(Kernel::Group(group.clone()), isa), &mut buffers, &[]).unwrap();
        assert_eq!(buffers[1].slice::<f32>()[0].to_bits(), expected.to_bits());
    }
    // The same in one stream: a row kernel's sum.
    let mut b = Builder::new();
    let v = b.input(Type::lane(DType::F32));
    let sum = b.reduce(Reduce::Sum, v);
    let group = Group {
        function: b.finish(&[sum]),
        inputs: vec![operand(0, contiguous(&[1, n]))],
        outputs: vec![output(
            1,
            OutputKind::Store(Layout { offset: 0, shifts: Shifts::new(), strides: smallvec![1, 0] }),
        )],
        space: smallvec![1, n],
    };
    let mut buffers = [x, Buffer::new(DType::F32, 1)];
    run(&*compile(Kernel::Group(group), isas()[0]), &mut buffers, &[]).unwrap();
    assert_eq!(buffers[1].slice::<f32>()[0].to_bits(), expected.to_bits());
}

#[test]
fn column_sums_of_any_shape() {
    let mut rng = Rng(11);
    for (rows, cols) in
        [(0, 4), (1, 1), (64, 3), (65, 3), (1000, 1), (200, 5000), (3, 40_000), (70, 100_000), (130, 129), (5000, 10)]
    {
        let space = smallvec![rows, cols];
        let group = Group {
            function: chain(),
            inputs: vec![
                operand(0, contiguous(&space)),
                operand(1, Layout { offset: 0, shifts: Shifts::new(), strides: smallvec![0, 1] }),
            ],
            outputs: vec![
                output(2, OutputKind::ReduceLeading(Reduce::Sum, 1)),
                output(3, OutputKind::Store(contiguous(&space))),
            ],
            space,
        };
        let mut group = group;
        group.function.outputs = vec![group.function.outputs[0]; 2];
        let buffers = [
            Buffer::random(&mut rng, DType::F32, rows * cols, false),
            Buffer::random(&mut rng, DType::F32, cols, false),
            Buffer::new(DType::F32, cols),
            Buffer::new(DType::F32, rows * cols),
        ];
        check(&group, &buffers, &[]);
    }
}

/// Outputs written over the inputs they were computed from, one of them read again by a later step.
#[test]
fn donated_buffers() {
    let mut rng = Rng(12);
    for n in [1, 5, 16, 100, 1000, 100_000] {
        let mut b = Builder::new();
        let (x, y) = (b.input(Type::lane(DType::F32)), b.input(Type::lane(DType::F32)));
        let sum = b.binary(Binary::Add, x, y);
        let difference = b.binary(Binary::Sub, sum, x);
        let product = b.binary(Binary::Mul, difference, y);
        let group = |out: [usize; 2]| Group {
            function: b.clone().finish(&[sum, product]),
            inputs: vec![operand(0, contiguous(&[n])), operand(1, contiguous(&[n]))],
            outputs: out.map(|operand| output(operand, OutputKind::Store(contiguous(&[n])))).to_vec(),
            space: smallvec![n],
        };
        let apart = [0, 1, 2, 2].map(|i| match i {
            2 => Buffer::new(DType::F32, n),
            _ => Buffer::random(&mut rng, DType::F32, n, false),
        });
        let mut expected = apart.to_vec();
        reference(&group([2, 3]), &mut expected, &[]);
        for isa in isas() {
            // By the same operand, and by two operands at one address.
            let mut buffers = apart[..2].to_vec();
            run(&*compile(Kernel::Group(group([0, 1])), isa), &mut buffers, &[]).unwrap();
            assert_eq!(buffers[0].slice::<f32>(), expected[2].slice::<f32>());
            assert_eq!(buffers[1].slice::<f32>(), expected[3].slice::<f32>());
            let mut buffers = apart[..2].to_vec();
            let (x, y) = (buffers[0].address(), buffers[1].address());
            run_at(&*compile(Kernel::Group(group([2, 3])), isa), &[x, y, x, y], &[]).unwrap();
            assert_eq!(buffers[0].slice::<f32>(), expected[2].slice::<f32>());
            assert_eq!(buffers[1].slice::<f32>(), expected[3].slice::<f32>());
        }
    }
}

/// A transcendental chain gives the same bits whatever the tile, the chunk and the place in the tile.
#[test]
fn bits_do_not_depend_on_position() {
    let mut b = Builder::new();
    let x = b.input(Type::lane(DType::F32));
    let ops = [Unary::Tanh, Unary::Exp, Unary::Sin, Unary::Erf, Unary::Ln, Unary::Ln1p, Unary::Cos, Unary::ExpM1];
    let results = ops.map(|op| b.unary(op, x));
    let function = b.finish(&results);
    let n = 70_003;
    let mut rng = Rng(13);
    let data = Buffer::random(&mut rng, DType::F32, n, false);
    for isa in isas() {
        let run_part = |from: usize, n: usize| {
            let group = Group {
                function: function.clone(),
                inputs: vec![operand(
                    0,
                    Layout { offset: from as isize, shifts: Shifts::new(), strides: smallvec![1] },
                )],
                outputs: (1..=ops.len()).map(|i| output(i, OutputKind::Store(contiguous(&[n])))).collect(),
                space: smallvec![n],
            };
            let mut buffers = vec![data.clone()];
            buffers.extend(ops.map(|_| Buffer::new(DType::F32, n)));
            run(&*compile(Kernel::Group(group), isa), &mut buffers, &[]).unwrap();
            buffers
        };
        let whole = run_part(0, n);
        for (from, count) in [(0, 1), (5, 3), (17, 16), (100, 31), (1000, 1500), (60_000, 10_003)] {
            let part = run_part(from, count);
            for (whole, part) in whole[1..].iter().zip(&part[1..]) {
                assert!(whole.column(from..from + count).same_bits(&part.column(0..count)), "{isa} {from} {count}");
            }
        }
    }
}

/// A constant fills its output, whatever its extent says.
#[test]
fn constants_fill() {
    for space in [&[][..], &[7], &[3, 1], &[40, 50], &[2, 0]] {
        let mut b = Builder::new();
        let value = b.float(DType::F64, 2.5);
        let group = Group {
            space: space.iter().copied().collect(),
            function: b.finish(&[value]),
            inputs: vec![],
            outputs: vec![output(0, OutputKind::Store(contiguous(space)))],
        };
        let n = space.iter().product();
        for isa in isas() {
            let mut buffers = [Buffer::new(DType::F64, n)];
            run(&*compile(Kernel::Group(group.clone()), isa), &mut buffers, &[]).unwrap();
            assert_eq!(buffers[0].column(0..n), Column::Float(vec![2.5; n]));
        }
    }
}

/// Transposed operands, read by blocks of rows: whole blocks, remainders, several of them, chunks that begin anywhere.
#[test]
fn transposed_operands() {
    let mut rng = Rng(14);
    for (batch, rows, cols) in
        [(1, 16, 128), (1, 40, 300), (3, 17, 129), (2, 100, 1000), (1, 300, 4200), (1, 20, 20_000)]
    {
        for dtype in [DType::F32, DType::F64, DType::U8] {
            let mut b = Builder::new();
            let (x, y, z) = (b.input(Type::lane(dtype)), b.input(Type::lane(dtype)), b.input(Type::lane(dtype)));
            let sum = b.binary(Binary::Add, x, y);
            let sum = b.binary(Binary::Add, sum, z);
            let item = (rows * cols) as isize;
            let transposed =
                |offset| Layout { offset, shifts: Shifts::new(), strides: smallvec![item, 1, rows as isize] };
            let space = smallvec![batch, rows, cols];
            let n = batch * rows * cols;
            let group = Group {
                function: b.finish(&[sum, sum, sum]),
                inputs: vec![operand(0, transposed(0)), operand(0, transposed(2)), operand(1, contiguous(&space))],
                outputs: vec![
                    output(2, OutputKind::Store(contiguous(&space))),
                    output(3, OutputKind::Store(transposed(1))),
                    output(4, OutputKind::ReduceLeading(Reduce::Sum, 2)),
                ],
                space,
            };
            let buffers = [
                Buffer::random(&mut rng, dtype, n + 2, false),
                Buffer::random(&mut rng, dtype, n, false),
                Buffer::new(dtype, n),
                Buffer::new(dtype, n + 1),
                Buffer::new(dtype, cols),
            ];
            check(&group, &buffers, &[]);
            let mut group = group;
            group.function.outputs.truncate(2);
            group.outputs.truncate(2);
            check(&group, &buffers, &[]);
        }
    }
}
