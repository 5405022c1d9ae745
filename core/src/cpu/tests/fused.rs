//! Products with epilogues against the same product and groups run one after another, bit for bit, on every
//! instruction set; and which epilogues a product takes.

use smallvec::smallvec;
use tapeflow_ir::{Binary, Builder, DType, Reduce, Type, Unary, V};

use super::super::fused::takes;
use super::super::isa::Isa;
use super::{Buffer, Rng, compile, isas, machine_code, run, run_at};
use crate::program::kernel::{Fused, Group, Kernel, Layout, LinearInt8, Matmul, Output, OutputKind, Source};

pub fn layout(strides: &[isize]) -> Layout {
    Layout { offset: 0, shifts: Default::default(), strides: strides.iter().copied().collect() }
}

/// `x · wᵀ`, as layers have it.
pub fn linear(dtype: DType, [m, n, k]: [usize; 3]) -> Kernel {
    let (a, b) = (layout(&[k as isize, 1]), layout(&[1, k as isize]));
    Kernel::Matmul(Matmul { dtype, batch: smallvec![], m: smallvec![m], n: smallvec![n], k: smallvec![k], a, b })
}

/// A group over `(m, n)` of the whole of operand 0, of as many others of its size, and of one line for all.
pub fn group(
    dtype: DType,
    [m, n]: [usize; 2],
    others: usize,
    outputs: &[OutputKind],
    f: impl Fn(&mut Builder, &[V], V) -> Vec<V>,
) -> Group {
    let mut b = Builder::new();
    let wholes: Vec<V> = (0..=others).map(|_| b.input(Type::lane(dtype))).collect();
    let line = b.input(Type::lane(dtype));
    let values = f(&mut b, &wholes, line);
    let operand = |operand: usize, strides: &[isize]| Source::Operand { operand, layout: layout(strides) };
    let wholes = (0..=others).map(|number| operand(number, &[n as isize, 1]));
    let outputs = outputs.iter().enumerate();
    Group {
        space: smallvec![m, n],
        function: b.finish(&values),
        inputs: wholes.chain([operand(others + 1, &[0, 1])]).collect(),
        outputs: outputs.map(|(at, kind)| Output { operand: others + 2 + at, kind: kind.clone() }).collect(),
    }
}

pub fn stored(n: usize) -> OutputKind {
    OutputKind::Store(layout(&[n as isize, 1]))
}

/// `max(c + line, line)`.
pub fn bias_relu(dtype: DType, [m, n]: [usize; 2]) -> Group {
    group(dtype, [m, n], 0, &[stored(n)], |b, c, line| {
        let sum = b.binary(Binary::Add, c[0], line);
        vec![b.binary(Binary::Max, sum, line)]
    })
}

/// `(c + x) · line`, and its sums down the columns.
pub fn scaled(dtype: DType, [m, n]: [usize; 2]) -> Group {
    group(dtype, [m, n], 1, &[stored(n), OutputKind::ReduceLeading(Reduce::Sum, 1)], |b, c, line| {
        let sum = b.binary(Binary::Add, c[0], c[1]);
        let product = b.binary(Binary::Mul, sum, line);
        vec![product, product]
    })
}

/// `exp(c − max) / Σ exp(c − max) + line`, of each row.
pub fn softmax(dtype: DType, [m, n]: [usize; 2]) -> Group {
    group(dtype, [m, n], 0, &[stored(n)], |b, c, line| {
        let max = b.reduce(Reduce::Max, c[0]);
        let difference = b.binary(Binary::Sub, c[0], max);
        let e = b.unary(Unary::Exp, difference);
        let sum = b.reduce(Reduce::Sum, e);
        let y = b.binary(Binary::Div, e, sum);
        vec![b.binary(Binary::Add, y, line)]
    })
}

/// Runs the product and the groups, each of which goes on with the first result of the one before it, as one kernel and
/// one after another; all buffers must be the same.
fn check(product: &Kernel, operands: &[Buffer], [m, n]: [usize; 2], groups: &[Group], isa: Isa) {
    let mut rng = Rng(5);
    let dtype = operands[0].dtype;
    let mut buffers: Vec<Buffer> = operands.to_vec();
    let mut numbers: Vec<usize> = (0..=operands.len()).collect();
    buffers.push(Buffer::new(dtype, m * n));
    let mut made = operands.len();
    for group in groups {
        let others = group.inputs.len() - 2;
        numbers.push(made);
        for len in std::iter::repeat_n(m * n, others).chain([n]) {
            numbers.push(buffers.len());
            buffers.push(Buffer::random(&mut rng, dtype, len, false));
        }
        made = buffers.len();
        for output in &group.outputs {
            let len = if matches!(output.kind, OutputKind::Store(_)) { m * n } else { n };
            numbers.push(buffers.len());
            buffers.push(Buffer::new(dtype, len));
        }
    }
    let addresses = |buffers: &mut [Buffer], numbers: &[usize]| -> Vec<*mut u8> {
        let all: Vec<*mut u8> = buffers.iter_mut().map(Buffer::address).collect();
        numbers.iter().map(|&number| all[number]).collect()
    };
    let mut expected = buffers.clone();
    let own = operands.len() + 1;
    run(&*compile(product.clone(), isa), &mut expected[..own], &[]).unwrap();
    let mut at = own;
    for group in groups {
        let operands = addresses(&mut expected, &numbers[at..at + group.operands()]);
        run_at(&*compile(Kernel::Group(group.clone()), isa), &operands, &[]).unwrap();
        at += group.operands();
    }
    let fused = Fused { prologue: Vec::new(), product: Box::new(product.clone()), epilogue: groups.to_vec() };
    for coded in [true, false] {
        let kernel = || compile(Kernel::Fused(fused.clone()), isa);
        let kernel = if coded { kernel() } else { machine_code::without(kernel) };
        let mut actual = buffers.clone();
        let operands = addresses(&mut actual, &numbers);
        run_at(&*kernel, &operands, &[]).unwrap();
        for (number, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            let (a, b) = (actual.column(0..actual.len), expected.column(0..expected.len));
            assert!(a.same_bits(&b), "buffer {number}, machine code {coded}, {isa}: {kernel:?}");
            assert_eq!(actual.margin(), expected.margin(), "buffer {number} is written beyond its end on {isa}");
        }
    }
}

/// Extents of which blocks are parts of lines, whole lines, a few lines, one block, and not many elements.
const SHAPES: [[usize; 3]; 7] =
    [[768, 512, 128], [512, 128, 96], [300, 700, 40], [3, 5000, 33], [64, 200, 50], [130, 30, 64], [256, 5000, 16]];

#[test]
fn every_epilogue_gives_the_bits_of_its_groups() {
    let mut rng = Rng(41);
    let mut taken = 0;
    for dtype in [DType::F32, DType::F64] {
        for [m, n, k] in SHAPES {
            let product = linear(dtype, [m, n, k]);
            let operands = [m * k, n * k].map(|len| Buffer::random(&mut rng, dtype, len, true));
            let all = [bias_relu(dtype, [m, n]), scaled(dtype, [m, n]), softmax(dtype, [m, n])];
            for isa in isas() {
                for groups in [&all[..1], &all[1..2], &all[2..], &all[..2], &all[1..], &all[..]] {
                    let fused =
                        Fused { prologue: Vec::new(), product: Box::new(product.clone()), epilogue: groups.to_vec() };
                    let fits = (1..=groups.len())
                        .all(|some| takes(&Fused { epilogue: groups[..some].to_vec(), ..fused.clone() }, isa));
                    if fits {
                        taken += 1;
                        check(&product, &operands, [m, n], groups, isa);
                    }
                }
            }
        }
    }
    assert!(taken >= 30 * isas().len(), "only {taken} epilogues were taken");
}

#[test]
fn weights_in_eight_bits_have_epilogues_too() {
    let mut rng = Rng(43);
    for [m, n, k] in [[1, 700, 64], [5, 3000, 100]] {
        let product = Kernel::LinearInt8(LinearInt8 { m, n, k });
        let operands = [
            Buffer::random(&mut rng, DType::F32, m * k, false),
            Buffer::random(&mut rng, DType::U8, n * k, false),
            Buffer::random(&mut rng, DType::F32, n, false),
        ];
        for isa in isas() {
            check(&product, &operands, [m, n], &[bias_relu(DType::F32, [m, n])], isa);
        }
    }
}

#[test]
fn results_may_lie_where_the_product_lay() {
    let (shape @ [m, n], k) = ([768, 512], 64);
    let mut rng = Rng(45);
    let [a, b] = [m * k, n * k].map(|len| Buffer::random(&mut rng, DType::F32, len, false));
    let line = Buffer::random(&mut rng, DType::F32, n, false);
    for isa in isas() {
        let (product, epilogue) = (linear(DType::F32, [m, n, k]), vec![bias_relu(DType::F32, shape)]);
        let mut apart =
            [a.clone(), b.clone(), Buffer::new(DType::F32, m * n), line.clone(), Buffer::new(DType::F32, m * n)];
        let mut there = apart.clone();
        let fused = compile(Kernel::Fused(Fused { prologue: Vec::new(), product: Box::new(product), epilogue }), isa);
        let run = |buffers: &mut [Buffer; 5], out: usize| {
            let all = buffers.each_mut().map(Buffer::address);
            run_at(&*fused, &[all[0], all[1], all[2], all[2], all[3], all[out]], &[]).unwrap();
        };
        run(&mut apart, 4);
        run(&mut there, 2);
        assert_eq!(apart[4].slice::<u32>(), there[2].slice::<u32>(), "{isa}");
    }
}

#[test]
fn a_product_takes_what_its_blocks_suit() {
    let isa = Isa::detect().expect("an instruction set");
    let takes = |shape: [usize; 3], group: Group| {
        takes(&Fused { prologue: Vec::new(), product: Box::new(linear(DType::F32, shape)), epilogue: vec![group] }, isa)
    };
    let f32 = DType::F32;
    assert!(takes([768, 512, 128], bias_relu(f32, [768, 512])));
    assert!(takes([768, 128, 128], softmax(f32, [768, 128])));
    assert!(takes([1, 2304, 768], softmax(f32, [1, 2304])), "one thread is through with it at once");
    assert!(!takes([4, 3072, 768], softmax(f32, [4, 3072])), "blocks have parts of lines");
    assert!(!takes([4096, 4096, 1], bias_relu(f32, [4096, 4096])), "the group is nearly all of the work");
    assert!(!takes([512, 96, 512], bias_relu(f32, [512, 96])), "lines are short");
    assert!(!takes([768, 512, 128], bias_relu(f32, [512, 768])), "it has lines of its own");
    let sums = OutputKind::ReduceTrailing(Reduce::Sum, 1);
    assert!(!takes([768, 512, 128], group(f32, [768, 512], 0, &[sums], |_, c, _| vec![c[0]])), "sums along lines");
}
