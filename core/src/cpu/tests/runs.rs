//! Runs of pixels as rows: of every length, with sums of them, cut, into donated buffers; and short runs moved.

use smallvec::smallvec;
use tapeflow_ir::{Binary, Builder, Compare, DType, Reduce, ScalarFn, Type};

use super::{Buffer, Rng, check, compile, isas, reference, run, run_at};
use crate::cpu::runs::as_rows;
use crate::cpu::space::contiguous;
use crate::program::kernel::{Group, Kernel, Layout, Output, OutputKind, Shifts, Source};

const SHAPES: [(usize, usize, usize); 19] = [
    (0, 3, 16),
    (2, 0, 16),
    (2, 3, 0),
    (1, 1, 64),
    (3, 5, 1),
    (3, 5, 15),
    (3, 5, 16),
    (70, 3, 17),
    (64, 64, 64),
    (7, 9, 49),
    (5, 6, 100),
    (4, 33, 196),
    (33, 8, 256),
    (3, 2, 1000),
    (9, 16, 1024),
    (2, 3, 1025),
    (2, 3, 4096),
    (2, 3, 4097),
    (2, 2, 9216),
];

fn per_channel() -> Layout {
    Layout { offset: 0, shifts: Shifts::new(), strides: smallvec![0, 1, 0] }
}

fn operand(operand: usize, layout: Layout) -> Source {
    Source::Operand { operand, layout }
}

fn output(operand: usize, kind: OutputKind) -> Output {
    Output { operand, kind }
}

/// `y = x · w + b`, the cotangent where y is positive, and this times x: what a normalisation before a ReLU is made of.
fn masked() -> ScalarFn {
    let mut b = Builder::new();
    let [x, w, bias, cotangent] = [(); 4].map(|()| b.input(Type::lane(DType::F32)));
    let scaled = b.binary(Binary::Mul, w, w);
    let product = b.binary(Binary::Mul, x, scaled);
    let y = b.binary(Binary::Add, product, bias);
    let zero = b.float(DType::F32, 0.0);
    let positive = b.compare(Compare::Gt, y, zero);
    let masked = b.select(positive, cotangent, zero);
    let of_weight = b.binary(Binary::Mul, masked, x);
    b.finish(&[y, masked, of_weight])
}

/// What `masked` gives: the first two stored, the last two summed.
fn group(space: [usize; 3], operands: [usize; 7]) -> Group {
    let [x, w, bias, cotangent, y, sum, of_weight] = operands;
    let whole = contiguous(&space);
    Group {
        space: smallvec![space[0], space[1], space[2]],
        function: masked(),
        inputs: vec![
            operand(x, whole.clone()),
            operand(w, per_channel()),
            operand(bias, per_channel()),
            operand(cotangent, whole.clone()),
        ],
        outputs: vec![
            output(y, OutputKind::Store(whole)),
            output(sum, OutputKind::ReduceTrailing(Reduce::Sum, 1)),
            output(of_weight, OutputKind::ReduceTrailing(Reduce::Sum, 1)),
        ],
    }
}

fn buffers(rng: &mut Rng, [n, c, l]: [usize; 3]) -> [Buffer; 7] {
    let random = |rng: &mut Rng, count| Buffer::random(rng, DType::F32, count, false);
    let (x, w, bias) = (random(rng, n * c * l), random(rng, c), random(rng, c));
    let cotangent = random(rng, n * c * l);
    let sums = || Buffer::new(DType::F32, n * c);
    [x, w, bias, cotangent, Buffer::new(DType::F32, n * c * l), sums(), sums()]
}

#[test]
fn stores_and_sums_of_every_length() {
    let mut rng = Rng(41);
    for (n, c, l) in SHAPES {
        let space = [n, c, l];
        check(&group(space, [0, 1, 2, 3, 4, 5, 6]), &buffers(&mut rng, space), &[]);
        let mut stored = group(space, [0, 1, 2, 3, 4, 5, 6]);
        stored.outputs.truncate(1);
        stored.function.outputs.truncate(1);
        check(&stored, &buffers(&mut rng, space), &[]);
        let mut summed = group(space, [0, 1, 2, 3, 4, 5, 6]);
        summed.outputs.remove(0);
        summed.function.outputs.remove(0);
        check(&summed, &buffers(&mut rng, space), &[]);
    }
}

#[test]
fn sums_and_extremes_of_what_is_only_read() {
    let mut rng = Rng(42);
    for (n, c, l) in SHAPES {
        for reduce in [Reduce::Sum, Reduce::Max, Reduce::Min] {
            for dtype in [DType::F32, DType::F64, DType::I32] {
                let mut b = Builder::new();
                let x = b.input(Type::lane(dtype));
                let group = Group {
                    space: smallvec![n, c, l],
                    function: b.finish(&[x]),
                    inputs: vec![operand(0, contiguous(&[n, c, l]))],
                    outputs: vec![output(1, OutputKind::ReduceTrailing(reduce, 1))],
                };
                if l > 0 || reduce == Reduce::Sum {
                    let buffers = [Buffer::random(&mut rng, dtype, n * c * l, false), Buffer::new(dtype, n * c)];
                    check(&group, &buffers, &[]);
                }
            }
        }
    }
}

#[test]
fn runs_of_several_axes_are_one_row() {
    let whole = |space: &[usize]| group([space[0], space[1], space[2]], [0, 1, 2, 3, 4, 5, 6]);
    let rows = as_rows(&whole(&[4, 3, 64]), 1024).expect("runs of 64");
    assert_eq!(rows.space[..], [4, 3, 64]);
    assert!(rows.outputs.iter().all(|output| matches!(output.kind, OutputKind::Store(_))));
    // Too short to fill a register, and too long to be summed in one go.
    assert!(as_rows(&whole(&[4, 3, 15]), 1024).is_none());
    assert!(as_rows(&whole(&[4, 3, 4097]), 1 << 14).is_none());
    let mut stored = whole(&[4, 3, 8192]);
    stored.outputs.truncate(1);
    stored.function.outputs.truncate(1);
    assert_eq!(as_rows(&stored, 4096).expect("what is only stored may be cut").space[..], [4, 3, 2, 4096]);
}

/// Elements may go where elements are read: by one operand, and by two at one address.
#[test]
fn into_donated_buffers() {
    let mut rng = Rng(43);
    for space in [[3, 5, 16], [7, 9, 49], [9, 16, 1024], [2, 3, 4097]] {
        let apart = buffers(&mut rng, space);
        let mut expected = apart.to_vec();
        reference(&group(space, [0, 1, 2, 3, 4, 5, 6]), &mut expected, &[]);
        for isa in isas() {
            for donated in [0, 3] {
                let mut given = apart.to_vec();
                let kernel = compile(Kernel::Group(group(space, [0, 1, 2, 3, donated, 5, 6])), isa);
                run(&*kernel, &mut given, &[]).expect("a group never fails");
                for (actual, wanted) in [(donated, 4), (5, 5), (6, 6)] {
                    assert_eq!(given[actual].slice::<f32>(), expected[wanted].slice::<f32>(), "{isa} {space:?}");
                }
                let mut given = apart.to_vec();
                let mut addresses: Vec<*mut u8> = given.iter_mut().map(Buffer::address).collect();
                addresses[4] = addresses[donated];
                let kernel = compile(Kernel::Group(group(space, [0, 1, 2, 3, 4, 5, 6])), isa);
                run_at(&*kernel, &addresses, &[]).expect("a group never fails");
                assert_eq!(given[donated].slice::<f32>(), expected[4].slice::<f32>(), "{isa} {space:?}");
            }
        }
    }
}

/// A strided slice taken out, put among zeros, and a region of channels.
#[test]
fn short_runs_move() {
    let mut rng = Rng(44);
    let layout = |offset: isize, strides: [isize; 4]| Layout {
        offset,
        shifts: Shifts::new(),
        strides: strides.into_iter().collect(),
    };
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::U8] {
        for [n, c, h, w] in [[2, 3, 4, 5], [70, 3, 8, 16], [1, 1, 2, 2], [5, 40, 9, 130], [3, 2, 1, 1], [2, 3, 0, 4]] {
            let part = contiguous(&[n, c, h, w]);
            let (row, plane) = (2 * w as isize, 4 * (h * w) as isize);
            let apart = layout(1, [c as isize * plane, plane, 2 * row, 2]);
            let beside = layout((h * w) as isize, [((c + 2) * h * w) as isize, (h * w) as isize, w as isize, 1]);
            for (from, to) in [(&apart, &part), (&part, &apart), (&part, &beside), (&beside, &part), (&apart, &beside)]
            {
                let mut b = Builder::new();
                let x = b.input(Type::lane(dtype));
                let group = Group {
                    space: smallvec![n, c, h, w],
                    function: b.finish(&[x]),
                    inputs: vec![operand(0, from.clone())],
                    outputs: vec![output(1, OutputKind::Store(to.clone()))],
                };
                let room = n * (c + 2) * 4 * h * w + 2;
                let buffers = [Buffer::random(&mut rng, dtype, room, false), Buffer::new(dtype, room)];
                check(&group, &buffers, &[]);
            }
        }
    }
}
