//! Products with prologues against the groups and the same product run one after another, bit for bit, on every
//! instruction set; and which prologues a product takes.

use smallvec::smallvec;
use tapeflow_ir::{Binary, Builder, DType, Type, Unary};

use super::super::fused::takes;
use super::super::isa::Isa;
use super::fused::{bias_relu, group, layout, linear, scaled, softmax, stored};
use super::{Buffer, Rng, compile, isas, machine_code, run_at};
use crate::program::kernel::{Fused, Group, Kernel, Layout, LinearInt8, Made, Matmul, Output, OutputKind, Source};

/// What a dtype is computed in.
fn wide(dtype: DType) -> DType {
    if dtype.size() == 2 { DType::F32 } else { dtype }
}

/// `(x + y) · line`, of lines of so many terms.
fn masked(dtype: DType, [lines, terms]: [usize; 2]) -> Group {
    group(wide(dtype), [lines, terms], 1, &[stored(terms)], |b, x, line| {
        let sum = b.binary(Binary::Add, x[0], x[1]);
        let product = b.binary(Binary::Mul, sum, line);
        vec![b.cast(product, dtype)]
    })
}

/// `tanh(c)`.
fn activated(dtype: DType, [m, n]: [usize; 2]) -> Group {
    group(dtype, [m, n], 0, &[stored(n)], |b, c, _| {
        let c = b.cast(c[0], wide(dtype));
        let y = b.unary(Unary::Tanh, c);
        vec![b.cast(y, dtype)]
    })
}

/// What f32 is in another dtype, `tanh` of it if it is to be some work.
fn cast(dtype: DType, [lines, terms]: [usize; 2], work: bool) -> Group {
    let mut b = Builder::new();
    let x = b.input(Type::lane(DType::F32));
    let x = if work { b.unary(Unary::Tanh, x) } else { x };
    let y = b.cast(x, dtype);
    Group {
        space: smallvec![lines, terms],
        function: b.finish(&[y]),
        inputs: vec![Source::Operand { operand: 0, layout: layout(&[terms as isize, 1]) }],
        outputs: vec![Output { operand: 1, kind: stored(terms) }],
    }
}

/// Much work for each element.
fn tanhs(dtype: DType, [lines, terms]: [usize; 2]) -> Group {
    group(dtype, [lines, terms], 0, &[stored(terms)], |b, x, _| {
        vec![(0..20).fold(x[0], |value, _| b.unary(Unary::Tanh, value))]
    })
}

fn dtypes(group: &Group) -> Vec<DType> {
    let function = &group.function;
    let inputs = function.inputs.iter().map(|input| input.dtype);
    inputs.chain(function.outputs.iter().map(|v| function.values[v.0 as usize].1.dtype)).collect()
}

/// The elements that a source or an output of a group has.
fn extent(space: &[usize], layout: &Layout) -> usize {
    let steps = space.iter().zip(&layout.strides).map(|(extent, stride)| (extent - 1) * *stride as usize);
    steps.sum::<usize>() + 1
}

/// Operands of a group, each as long as it is read and written, the outputs last.
fn operands(rng: &mut Rng, group: &Group) -> Vec<Buffer> {
    let layouts = group.inputs.iter().map(|source| match source {
        Source::Operand { layout, .. } => layout,
        _ => panic!("the tests' groups read operands"),
    });
    let outputs = group.outputs.iter().map(|output| match &output.kind {
        OutputKind::Store(layout) => extent(&group.space, layout),
        OutputKind::ReduceLeading(_, axes) => group.space[*axes..].iter().product(),
        OutputKind::ReduceTrailing(_, axes) => group.space[..group.space.len() - axes].iter().product(),
    });
    let reads = layouts.map(|layout| (extent(&group.space, layout), true));
    let all: Vec<(usize, bool)> = reads.chain(outputs.map(|len| (len, false))).collect();
    let buffers = all.into_iter().zip(dtypes(group)).map(|((len, read), dtype)| match read {
        true => Buffer::random(rng, dtype, len, true),
        false => Buffer::new(dtype, len),
    });
    buffers.collect()
}

/// Runs the groups, the product with what they make, and the groups behind it, as one kernel and one after another.
fn check(fused: &Fused, given: &[Buffer], isa: Isa) {
    let mut rng = Rng(7);
    let result = given.last().expect("a product has a result").clone();
    let before: Vec<Vec<Buffer>> = fused.prologue.iter().map(|made| operands(&mut rng, &made.group)).collect();
    let after: Vec<Vec<Buffer>> = fused.epilogue.iter().map(|group| operands(&mut rng, group)).collect();
    let addresses = |buffers: &mut [Buffer]| -> Vec<*mut u8> { buffers.iter_mut().map(Buffer::address).collect() };
    let run = |kernel: Kernel, operands: &[*mut u8]| run_at(&*compile(kernel, isa), operands, &[]).unwrap();

    let (mut apart, mut expected) = (given.to_vec(), after.clone());
    let mut all = addresses(&mut apart);
    let mut made_here = before.clone();
    for (made, buffers) in fused.prologue.iter().zip(&mut made_here) {
        let addresses = addresses(buffers);
        run(Kernel::Group(made.group.clone()), &addresses);
        all.insert(made.operand, addresses[addresses.len() - 1]);
    }
    run((*fused.product).clone(), &all);
    let mut before_it = all[all.len() - 1];
    for (group, buffers) in fused.epilogue.iter().zip(&mut expected) {
        let mut addresses = addresses(buffers);
        addresses[0] = before_it;
        run(Kernel::Group(group.clone()), &addresses);
        before_it = addresses[group.inputs.len()];
    }
    for coded in [true, false] {
        let kernel = || compile(Kernel::Fused(fused.clone()), isa);
        let kernel = if coded { kernel() } else { machine_code::without(kernel) };
        let (mut given, mut before, mut after) = (given.to_vec(), before.clone(), after.clone());
        *given.last_mut().expect("a product has a result") = result.clone();
        let mut all = addresses(&mut given);
        let mut before_it = all[all.len() - 1];
        for buffers in &mut before {
            let mut addresses = addresses(buffers);
            addresses.pop();
            all.extend(addresses);
        }
        for (group, buffers) in fused.epilogue.iter().zip(&mut after) {
            let mut addresses = addresses(buffers);
            addresses[0] = before_it;
            before_it = addresses[group.inputs.len()];
            all.extend(addresses);
        }
        run_at(&*kernel, &all, &[]).unwrap();
        let pairs = given.iter().zip(&apart).chain(after.iter().flatten().zip(expected.iter().flatten()));
        for (number, (actual, expected)) in pairs.enumerate() {
            let (a, b) = (actual.column(0..actual.len), expected.column(0..expected.len));
            assert!(a.same_bits(&b), "buffer {number}, machine code {coded}, {isa}: {fused:?}");
            assert_eq!(actual.margin(), expected.margin(), "buffer {number} is written beyond its end on {isa}");
        }
    }
}

/// Extents of which blocks are squares, columns, rows, and one; of few rows; and with operands of few elements.
const SHAPES: [[usize; 3]; 10] = [
    [768, 512, 128],
    [2000, 64, 96],
    [300, 700, 40],
    [64, 200, 50],
    [1, 700, 96],
    [3, 5000, 33],
    [4, 3072, 768],
    [8, 1000, 512],
    [600, 30, 64],
    [33, 64, 700],
];

#[test]
fn every_prologue_gives_the_bits_of_its_groups() {
    let mut rng = Rng(51);
    let mut taken = [0; 2];
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
        for [m, n, k] in SHAPES {
            let product = linear(dtype, [m, n, k]);
            let full = [m * k, n * k].map(|len| Buffer::random(&mut rng, dtype, len, true));
            let result = Buffer::new(dtype, m * n);
            for isa in isas() {
                let is_half = dtype.size() == 2;
                let row = |shape| if is_half { cast(dtype, shape, false) } else { softmax(dtype, shape) };
                let kinds = [
                    vec![(0, masked(dtype, [m, k]))],
                    vec![(1, masked(dtype, [n, k]))],
                    vec![(0, row([m, k]))],
                    vec![(1, row([n, k]))],
                    vec![(0, cast(dtype, [m, k], true)), (1, cast(dtype, [n, k], false))],
                ];
                for made in kinds {
                    let numbers: Vec<usize> = made.iter().map(|(operand, _)| *operand).collect();
                    let prologue: Vec<Made> =
                        made.into_iter().map(|(operand, group)| Made { operand, group }).collect();
                    let given = full.iter().enumerate().filter(|(number, _)| !numbers.contains(number));
                    let given: Vec<Buffer> = given.map(|(_, buffer)| buffer.clone()).chain([result.clone()]).collect();
                    let behind = if is_half { activated(dtype, [m, n]) } else { scaled(dtype, [m, n]) };
                    for epilogue in [vec![], vec![behind]] {
                        let fused = Fused { prologue: prologue.clone(), product: Box::new(product.clone()), epilogue };
                        if takes(&fused, isa) {
                            numbers.iter().for_each(|number| taken[*number] += 1);
                            check(&fused, &given, isa);
                        }
                    }
                }
            }
        }
    }
    assert!(taken.iter().all(|taken| *taken >= 60 * isas().len()), "only {taken:?} operands were made");
}

/// The whole of a product's operands but for those that are made, and its result.
fn given(rng: &mut Rng, fused: &Fused, all: &[(DType, usize)]) -> Vec<Buffer> {
    let is_given = |number: usize| fused.prologue.iter().all(|made| made.operand != number);
    let all = all.iter().enumerate().filter(|(number, _)| is_given(*number));
    all.map(|(_, (dtype, len))| Buffer::random(rng, *dtype, *len, false)).collect()
}

#[test]
fn items_of_batches_have_prologues() {
    let mut rng = Rng(53);
    let f32 = DType::F32;
    for [items, m, n, k] in [[3, 700, 40, 64], [40, 16, 8, 128], [6, 200, 300, 48]] {
        let [lines, columns] = [(m * k) as isize, (n * k) as isize];
        let (a, b) = (layout(&[lines, k as isize, 1]), layout(&[columns, 1, k as isize]));
        let (batch, k_dims) = (smallvec![items], smallvec![k]);
        let product = Matmul { dtype: f32, batch, m: smallvec![m], n: smallvec![n], k: k_dims, a, b };
        let prologue = vec![Made { operand: 0, group: masked(f32, [items * m, k]) }];
        let fused = Fused { prologue, product: Box::new(Kernel::Matmul(product)), epilogue: Vec::new() };
        let given = given(&mut rng, &fused, &[items * m * k, items * n * k, items * m * n].map(|len| (f32, len)));
        for isa in isas() {
            assert!(takes(&fused, isa), "{items} items, {isa}");
            check(&fused, &given, isa);
        }
    }
}

#[test]
fn a_few_elements_are_made_at_once_wherever_they_lie() {
    let mut rng = Rng(55);
    let f32 = DType::F32;
    let [m, n, k] = [500, 60, 50];
    // The weight is read as it lies, terms along its columns, and some columns left out.
    let (a, b) = (layout(&[k as isize, 1]), Layout { offset: 2, ..layout(&[64, 1]) });
    let extents = [m, n, k].map(|extent| smallvec![extent]);
    let [m_dims, n_dims, k_dims] = extents;
    let product = Matmul { dtype: f32, batch: smallvec![], m: m_dims, n: n_dims, k: k_dims, a, b };
    let prologue = vec![Made { operand: 1, group: softmax(f32, [k, 64]) }];
    let fused = Fused { prologue, product: Box::new(Kernel::Matmul(product)), epilogue: vec![scaled(f32, [m, n])] };
    let given = given(&mut rng, &fused, &[m * k, k * 64, m * n].map(|len| (f32, len)));
    for isa in isas() {
        let fused = Fused { epilogue: Vec::new(), ..fused.clone() };
        assert!(takes(&fused, isa), "{isa}");
        check(&fused, &given, isa);
    }
}

#[test]
fn inputs_of_weights_in_eight_bits_are_made() {
    let mut rng = Rng(57);
    let f32 = DType::F32;
    for [m, n, k] in [[1, 700, 64], [5, 3000, 100], [8, 500, 768]] {
        let prologue = vec![Made { operand: 0, group: masked(f32, [m, k]) }];
        let product = Box::new(Kernel::LinearInt8(LinearInt8 { m, n, k }));
        let fused = Fused { prologue, product, epilogue: vec![bias_relu(f32, [m, n])] };
        let given = given(&mut rng, &fused, &[(f32, m * k), (DType::U8, n * k), (f32, n), (f32, m * n)]);
        for isa in isas() {
            let fused =
                if takes(&fused, isa) { fused.clone() } else { Fused { epilogue: Vec::new(), ..fused.clone() } };
            if m * k <= 4096 {
                assert!(takes(&fused, isa), "{m} lines of {k}, {isa}");
            }
            check(&fused, &given, isa);
        }
    }
}

#[test]
fn a_product_takes_what_is_cheaper_made_again_than_kept() {
    let isa = Isa::detect().expect("an instruction set");
    let takes = |shape: [usize; 3], operand: usize, group: Group| {
        let prologue = vec![Made { operand, group }];
        takes(&Fused { prologue, product: Box::new(linear(DType::F32, shape)), epilogue: Vec::new() }, isa)
    };
    let f32 = DType::F32;
    // One row of blocks makes every column of the weight once; one column of blocks every row of the input.
    assert!(takes([4, 3072, 768], 1, masked(f32, [3072, 768])), "few rows: the weight passes once");
    assert!(takes([1024, 1024, 1024], 1, softmax(f32, [1024, 1024])), "one row of blocks");
    assert!(takes([16384, 32, 256], 0, masked(f32, [16384, 256])), "few columns: the input passes once");
    assert!(!takes([1024, 1024, 1024], 0, softmax(f32, [1024, 1024])), "each column of blocks would make all of it");
    assert!(!takes([2048, 128, 512], 0, masked(f32, [2048, 512])), "the weight would be packed more often");
    assert!(takes([1024, 1024, 4], 0, masked(f32, [1024, 4])), "few elements are made once");
    assert!(!takes([1024, 1024, 4], 0, tanhs(f32, [1024, 4])), "others would wait for much work");
    let sums =
        group(f32, [512, 128], 0, &[OutputKind::ReduceTrailing(tapeflow_ir::Reduce::Sum, 1)], |_, c, _| vec![c[0]]);
    assert!(!takes([512, 128, 1], 0, sums), "sums are there when all is");
    let weight = vec![Made { operand: 1, group: softmax(f32, [1024, 1024]) }];
    let product = Box::new(linear(f32, [1024, 1024, 1024]));
    let rows = Fused { prologue: weight, product, epilogue: vec![softmax(f32, [1024, 1024])] };
    assert!(!super::super::fused::takes(&rows, isa), "blocks of whole lines would each make all of the weight");
}
