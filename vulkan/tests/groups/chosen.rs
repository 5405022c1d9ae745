//! Chosen groups: spaces and layouts of many kinds, sources, shifts, donated operands, several groups at once.

use smallvec::smallvec;
use tapeflow_core::driver::{Group, Kernel, OutputKind, Shift, Source};
use tapeflow_ir::{Binary, Builder, DType, Reduce, ScalarFn, Type, Unary};
use tapeflow_vulkan::stage::Target;

use super::{Buffer, Rng, check, check_all, check_for, contiguous, dims, elementwise, layout, operand, output};

/// `a · b + a`
fn chain() -> ScalarFn {
    let mut b = Builder::new();
    let (x, y) = (b.input(Type::lane(DType::F32)), b.input(Type::lane(DType::F32)));
    let product = b.binary(Binary::Mul, x, y);
    let sum = b.binary(Binary::Add, product, x);
    b.finish(&[sum])
}

#[test]
fn chains_of_many_sizes() {
    let mut rng = Rng(1);
    for n in [0, 1, 7, 8, 9, 100, 1000, 4096, 100_003] {
        let buffers = [
            Buffer::random(&mut rng, DType::F32, n, true),
            Buffer::random(&mut rng, DType::F32, n, true),
            Buffer::new(DType::F32, n),
        ];
        check_all(&elementwise(&[n], chain()), &buffers, &[]);
    }
    check(&elementwise(&[], chain()), &[0.5, 3.0, 9.0].map(|x| Buffer::f32s([x])), &[]);
}

#[test]
fn strides() {
    let mut rng = Rng(2);
    for (rows, cols) in [(3, 5), (40, 64), (17, 300), (300, 17), (5, 5000)] {
        let n = rows * cols;
        let layouts = [
            contiguous(&[rows, cols]),
            layout(0, &[1, rows as isize]),
            layout(2, &[0, 1]),
            layout(3, &[1, 0]),
            layout(n as isize, &[-(cols as isize), 1]),
            layout((n + cols) as isize, &[-(cols as isize), -1]),
            layout(1, &[2 * cols as isize, 2]),
        ];
        for first in &layouts {
            for store in [&layouts[0], &layouts[1], &layouts[5]] {
                let mut group = elementwise(&[rows, cols], chain());
                group.inputs[0] = operand(0, first.clone());
                group.outputs[0] = output(2, OutputKind::Store(store.clone()));
                let buffers = [
                    Buffer::random(&mut rng, DType::F32, 2 * n + cols + 9, true),
                    Buffer::random(&mut rng, DType::F32, n, true),
                    Buffer::new(DType::F32, n + cols + 1),
                ];
                check(&group, &buffers, &[]);
            }
        }
    }
}

#[test]
fn four_axes_of_every_dtype() {
    let mut rng = Rng(3);
    let space = [3, 4, 5, 6];
    for dtype in DType::ALL {
        let mut b = Builder::new();
        let (x, y) = (b.input(Type::lane(dtype)), b.input(Type::lane(dtype)));
        let op = if dtype == DType::Bool { Binary::Xor } else { Binary::Add };
        let [wide, other] = [x, y].map(|v| b.cast(v, dtype.computed()));
        let sum = b.binary(op, wide, other);
        let sum = b.cast(sum, dtype);
        let mut group = elementwise(&space, b.finish(&[sum, x]));
        group.inputs[0] = operand(0, layout(0, &[1, 3, 12, 60]));
        group.inputs[1] = operand(1, layout(5, &[0, 6, 0, 1]));
        let buffers = [
            Buffer::random(&mut rng, dtype, 360, true),
            Buffer::random(&mut rng, dtype, 40, true),
            Buffer::new(dtype, 360),
            Buffer::new(dtype, 360),
        ];
        check(&group, &buffers, &[]);
    }
}

/// Scalars of the host, counters, random words and shifted slices.
#[test]
fn sources() {
    let mut rng = Rng(4);
    let space = [7, 33];
    for dtype in [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8, DType::U32, DType::Bool] {
        let mut b = Builder::new();
        let scalar = b.input(Type::lane(dtype));
        let count = b.input(Type::lane(DType::I64));
        let uniform = b.input(Type::lane(DType::F32));
        let slice = b.input(Type::lane(DType::F32));
        let scalar = b.repeat(scalar);
        let function = b.finish(&[scalar, count, uniform, slice]);
        let mut moved = layout(3, &[40, 1]);
        moved.shifts = smallvec![Shift { slot: 3, stride: 40 }, Shift { slot: 4, stride: -1 }];
        let mut counted = layout(-5, &[100, -3]);
        counted.shifts = smallvec![Shift { slot: 3, stride: 1000 }];
        let group = Group {
            space: dims(&space),
            function,
            inputs: vec![
                Source::Scalar { slot: 0 },
                Source::Iota(counted),
                Source::Random { slot: 1, ordinal: 7, layout: layout((1 << 34) - 100, &[33, 1]) },
                operand(0, moved),
            ],
            outputs: (0..4).map(|i| output(1 + i, OutputKind::Store(contiguous(&space)))).collect(),
        };
        let n = 7 * 33;
        let buffers = [
            Buffer::random(&mut rng, DType::F32, 1000, false),
            Buffer::new(dtype, n),
            Buffer::new(DType::I64, n),
            Buffer::new(DType::F32, n),
            Buffer::new(DType::F32, n),
        ];
        for value in [2.7f64, -3.2, 300.5, f64::NAN, 1e300, 1e-42] {
            let scalars = [value.to_bits(), 0x1234_5678_9abc_def0, 7 << 33, 4, 2];
            check(&group, &buffers, &scalars);
            let narrow = super::targets().into_iter().take(1).map(|target| Target { has_f64: false, ..target });
            // What is subnormal as an f32 becomes 0 there.
            if dtype == DType::F32 && value != 1e-42 {
                check_for(&narrow.collect::<Vec<Target>>(), &Kernel::Group(group.clone()), &buffers, &scalars);
            }
        }
    }
}

/// Offsets beyond 32 bits: all kinds of passes count in 64.
#[test]
fn wide_offsets() {
    for (rows, cols) in [(3, 5), (40, 130), (2, 5000)] {
        let space = [rows, cols];
        let n = rows * cols;
        let far = Source::Iota(layout(-(1 << 40), &[1 << 34, -3]));
        let mut b = Builder::new();
        let i = b.input(Type::lane(DType::I64));
        let x = b.cast(i, DType::F32);
        let max = b.reduce(Reduce::Max, x);
        let rest = b.binary(Binary::Sub, x, max);
        let rows_function = b.finish(&[rest]);
        let outputs = vec![output(0, OutputKind::Store(contiguous(&space)))];
        let group = Group { space: dims(&space), function: rows_function, inputs: vec![far.clone()], outputs };
        check_all(&group, &[Buffer::new(DType::F32, n)], &[]);
        let mut b = Builder::new();
        let i = b.input(Type::lane(DType::I64));
        let read = b.finish(&[i]);
        for (kind, len) in [
            (OutputKind::Store(contiguous(&space)), n),
            (OutputKind::ReduceTrailing(Reduce::Sum, 1), rows),
            (OutputKind::ReduceLeading(Reduce::Sum, 1), cols),
        ] {
            let group = Group {
                space: dims(&space),
                function: read.clone(),
                inputs: vec![far.clone()],
                outputs: vec![output(0, kind)],
            };
            check_all(&group, &[Buffer::new(DType::I64, len)], &[]);
        }
    }
}

/// An output in the memory of an input that is read at the same places.
#[test]
fn donated() {
    let Some(driver) = super::support::driver() else { return };
    let n = 5000;
    let mut rng = Rng(5);
    let x = Buffer::random(&mut rng, DType::F32, n, false);
    let y = Buffer::random(&mut rng, DType::F32, n, false);
    let mut group = elementwise(&[n], chain());
    let mut apart = [x.bytes.clone(), y.bytes.clone(), vec![0; 4 * n]];
    super::support::run(driver, &Kernel::Group(group.clone()), &mut apart, &[]).unwrap_or_else(|e| panic!("{e:?}"));
    for place in [0, 1] {
        group.outputs[0].operand = place;
        let mut together = [x.bytes.clone(), y.bytes.clone()];
        super::support::run(driver, &Kernel::Group(group.clone()), &mut together, &[])
            .unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(together[place], apart[2]);
    }
}

/// Groups with and without partial results side by side.
#[test]
fn several_groups() {
    let mut rng = Rng(6);
    let sum = |n: usize| {
        let mut b = Builder::new();
        let x = b.input(Type::lane(DType::F32));
        let y = b.unary(Unary::Exp, x);
        Group {
            space: dims(&[n]),
            function: b.finish(&[y]),
            inputs: vec![operand(0, contiguous(&[n]))],
            outputs: vec![output(1, OutputKind::ReduceTrailing(Reduce::Sum, 1))],
        }
    };
    let groups =
        vec![sum(10_000), elementwise(&[300], chain()), sum(20_000), elementwise(&[300], chain()), sum(10_000)];
    let mut buffers = Vec::new();
    for group in &groups {
        let n = group.space[0];
        (0..group.inputs.len()).for_each(|_| buffers.push(Buffer::random(&mut rng, DType::F32, n, false)));
        buffers.push(Buffer::new(DType::F32, if group.inputs.len() == 2 { n } else { 1 }));
    }
    check_for(&super::targets(), &Kernel::Groups(groups.clone()), &buffers, &[]);
    if let Some(driver) = super::support::driver() {
        let lowering = tapeflow_vulkan::spirv::lower(&Kernel::Groups(groups), driver.target());
        let lowering = lowering.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(lowering.stages.iter().filter(|stage| stage.after_barrier).count(), 1);
        assert!(std::sync::Arc::ptr_eq(&lowering.stages[1].shader, &lowering.stages[3].shader));
    }
}

/// A constant fills its output, whatever its extent says.
#[test]
fn constants_fill() {
    for space in [&[][..], &[7], &[3, 1], &[40, 50], &[2, 0]] {
        let mut b = Builder::new();
        let value = b.float(DType::F64, 2.5);
        let group = elementwise(space, b.finish(&[value]));
        check(&group, &[Buffer::new(DType::F64, space.iter().product())], &[]);
    }
}
