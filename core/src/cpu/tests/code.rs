//! Machine code against the primitives: all it can compile, in rows of every length, with more values at once than
//! there are registers; and that it is made at all.

use tapeflow_ir::{Binary, Builder, Compare, DType, Reduce, Type, Unary, V};

use super::{Buffer, Rng, run};
use crate::cpu::isa::Isa;
use crate::cpu::space::contiguous;
use crate::cpu::{code, group};
use crate::program::kernel::{Dims, Executable, Group, Layout, Output, OutputKind, Shifts, Source, Strides};

const BF16: DType = DType::BF16;
const F16: DType = DType::F16;

/// A random function of what machine code knows: floats, bools, and with `row` reductions.
struct Function<'a> {
    rng: &'a mut Rng,
    b: Builder,
    floats: Vec<V>,
    bools: Vec<V>,
}

impl Function<'_> {
    fn grow(&mut self, row: bool) {
        let Function { rng, b, floats, bools } = self;
        // Mostly of what is new, sometimes of what is old: long chains, and values that live long.
        let float = |rng: &mut Rng| {
            let most = if rng.below(3) == 0 { floats.len() } else { floats.len().min(3) };
            floats[floats.len() - 1 - rng.below(most)]
        };
        let (x, y, z) = (float(rng), float(rng), float(rng));
        let made = match rng.below(if row { 15 } else { 13 }) {
            0 => {
                let rounded = b.cast(x, rng.pick(&[BF16, F16]));
                b.cast(rounded, DType::F32)
            }
            1..=3 => {
                use Unary::*;
                let op = rng.pick(&[Neg, Abs, Floor, Ceil, Trunc, Sqrt, Exp, Exp2, ExpM1, Tanh, Erf, Tanh, Exp, Erf]);
                b.unary(op, x)
            }
            4..=7 => {
                use Binary::*;
                let op = rng.pick(&[Add, Sub, Mul, Div, Min, Max, Copysign]);
                // The sign of a computed NaN is nobody's promise.
                b.binary(op, x, if op == Copysign { floats[0] } else { y })
            }
            8 => b.mul_add(x, y, z),
            9..=10 => {
                use Compare::*;
                let op = rng.pick(&[Eq, Ne, Lt, Le, Gt, Ge]);
                bools.push(b.compare(op, x, y));
                return;
            }
            11 if bools.len() > 1 => {
                let (p, q) = (rng.pick(bools), rng.pick(bools));
                let p = if rng.below(4) == 0 { b.unary(Unary::Not, p) } else { p };
                bools.push(b.binary(rng.pick(&[Binary::And, Binary::Or, Binary::Xor]), p, q));
                return;
            }
            12 if !bools.is_empty() => {
                let p = rng.pick(bools);
                if rng.below(4) == 0 { b.cast(p, DType::F32) } else { b.select(p, x, y) }
            }
            13..=14 => {
                let lanes = b.repeat(x);
                b.reduce(rng.pick(&[Reduce::Sum, Reduce::Max, Reduce::Min]), lanes)
            }
            _ => b.binary(Binary::Add, x, z),
        };
        floats.push(made);
    }
}

/// The paths of this machine that code is made for: one per vector form.
fn coded() -> Vec<Isa> {
    let forms = if cfg!(target_arch = "x86_64") { vec![Isa::Avx512, Isa::Avx2] } else { vec![] };
    forms.into_iter().filter(|isa| isa.is_available()).collect()
}

/// Compiles, runs and compares one; says whether there was machine code in it.
fn one(seed: u64, isa: Isa) -> bool {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let row = rng.below(2) == 0;
    let length = rng.pick(&[1, 7, 15, 16, 17, 31, 32, 47, 64, 65, 96, 127, 128, 200, 1000, 1024, 1030, 4096, 4097]);
    let rows = 1 + rng.below((8192 / length).clamp(1, 40));
    let space: Dims = [rows, length].into_iter().collect();
    let mut b = Builder::new();
    let (mut inputs, mut buffers, mut floats, mut bools) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for index in 0..2 + rng.below(3) {
        // Whole, the same for all rows, one per row, one for all.
        let strides: [isize; 2] =
            if index == 0 { [length as isize, 1] } else { rng.pick(&[[length as isize, 1], [0, 1], [1, 0], [0, 0]]) };
        let dtype = if index == 0 { DType::F32 } else { rng.pick(&[DType::F32, DType::F32, BF16, F16, DType::Bool]) };
        let len = 1 + strides[0] as usize * (rows - 1) + strides[1] as usize * (length - 1);
        buffers.push(Buffer::random(&mut rng, dtype, len, true));
        let strides: Strides = strides.into_iter().collect();
        let layout = Layout { offset: 0, shifts: Shifts::new(), strides };
        inputs.push(Source::Operand { operand: index, layout });
        let ty = if row && inputs.len() > 1 && len <= rows { Type::row(dtype) } else { Type::lane(dtype) };
        let v = b.input(ty);
        match dtype {
            DType::Bool => bools.push(v),
            DType::F32 => floats.push(v),
            _ => floats.push(b.cast(v, DType::F32)),
        }
    }
    let mut function = Function { rng: &mut rng, b, floats, bools };
    for _ in 0..4 + function.rng.below(if seed.is_multiple_of(10) { 90 } else { 20 }) {
        function.grow(row);
    }
    let Function { mut b, floats, bools, .. } = function;
    let (mut outputs, mut results) = (Vec::new(), Vec::new());
    // What is old is read again at the end, so that much is alive at once.
    for _ in 0..1 + rng.below(3) {
        let v = match rng.below(4) {
            0 if !bools.is_empty() => rng.pick(&bools),
            1 => {
                let few: Vec<V> = (0..6).map(|_| rng.pick(&floats)).collect();
                few.into_iter().reduce(|a, c| b.binary(Binary::Sub, a, c)).expect("there are six")
            }
            2 => b.cast(floats[floats.len() - 1], rng.pick(&[BF16, F16])),
            _ => floats[floats.len() - 1],
        };
        let dtype = b.ty(v).dtype;
        let operand = match rng.below(3) {
            // The first parameter's own memory, which the compiler may give to one output.
            0 if dtype == DType::F32 && !outputs.iter().any(|output: &Output| output.operand == 0) => 0,
            _ => {
                buffers.push(Buffer::new(dtype, rows * length));
                buffers.len() - 1
            }
        };
        outputs.push(Output { operand, kind: OutputKind::Store(contiguous(&space)) });
        results.push(b.repeat(v));
    }
    // What is folded down columns: what was computed, and what was given.
    for _ in 0..rng.below(3) {
        let v = if rng.below(3) == 0 { floats[0] } else { floats[floats.len() - 1] };
        buffers.push(Buffer::new(DType::F32, length));
        let kind = OutputKind::ReduceLeading(rng.pick(&[Reduce::Sum, Reduce::Max, Reduce::Min]), 1);
        outputs.push(Output { operand: buffers.len() - 1, kind });
        results.push(b.repeat(v));
    }
    let function = b.finish(&results);
    assert_eq!(function.verify(), Ok(()));
    let group = Group { space, function, inputs, outputs };
    compare(&group, buffers, isa)
}

/// Runs a group with machine code and without, and compares every bit; says whether there was any.
fn compare(group: &Group, buffers: Vec<Buffer>, isa: Isa) -> bool {
    let compile = || group::compile(group, isa).expect("a group that can be compiled");
    let (coded, plain) = (compile(), code::without(compile));
    let (mut actual, mut expected) = (buffers.clone(), buffers);
    run(&coded, &mut actual, &[]).expect("a group never fails");
    run(&plain, &mut expected, &[]).expect("a group never fails");
    for (operand, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        let same = |i: usize| actual.column(i..i + 1).same_bits(&expected.column(i..i + 1));
        if let Some(at) = (0..actual.len).find(|&i| !same(i)) {
            let (a, b) = (actual.column(at..at + 1), expected.column(at..at + 1));
            panic!("{isa}: operand {operand} differs at {at}: {a:?} instead of {b:?}\n{group:?}");
        }
        // A bool is 0 or 1.
        let bytes = |buffer: &Buffer| (buffer.dtype == DType::Bool).then(|| buffer.slice::<u8>().to_vec());
        assert_eq!(bytes(actual), bytes(expected), "{isa}: operand {operand}\n{group:?}");
        assert_eq!(actual.margin(), expected.margin(), "{isa}: beyond operand {operand}\n{group:?}");
    }
    !coded.lowered.codes.is_empty()
}

#[test]
fn functions_have_the_bits_of_the_primitives_at_every_magnitude() {
    // Numbers of all signs and exponents, every 20,011th.
    let bits: Vec<u32> = (0..=u32::MAX).step_by(20_011).collect();
    let space: Dims = [bits.len()].into_iter().collect();
    use Unary::*;
    let ops = [Neg, Abs, Floor, Ceil, Trunc, Sqrt, Exp, Exp2, ExpM1, Tanh, Erf].map(Some);
    for (op, half) in ops.into_iter().map(|op| (op, F16)).chain([(None, F16), (None, BF16)]) {
        let mut b = Builder::new();
        let x = b.input(Type::lane(DType::F32));
        let y = match op {
            Some(op) => b.unary(op, x),
            None => b.cast(x, half),
        };
        // A single call is left to its primitive.
        let z = if op.is_none() { b.cast(y, DType::F32) } else { y };
        let z = b.binary(Binary::Add, z, x);
        let function = b.finish(&[y, z]);
        let output = |operand| Output { operand, kind: OutputKind::Store(contiguous(&space)) };
        let inputs = vec![Source::Operand { operand: 0, layout: contiguous(&space) }];
        let group = Group { space: space.clone(), function, inputs, outputs: vec![output(1), output(2)] };
        let first = Buffer::new(if op.is_none() { half } else { DType::F32 }, bits.len());
        let second = Buffer::new(DType::F32, bits.len());
        let buffers = vec![Buffer::of(DType::F32, &bits), first, second];
        for isa in coded() {
            assert!(compare(&group, buffers.clone(), isa), "{isa}: {op:?}, {half}");
        }
    }
}

#[test]
fn random_functions_have_the_bits_of_the_primitives() {
    let count = std::env::var("TAPEFLOW_RANDOM_GROUPS").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    for isa in coded() {
        let mut made = 0;
        for seed in 1..=count {
            match std::panic::catch_unwind(|| one(seed, isa)) {
                Ok(coded) => made += u64::from(coded),
                Err(_) => panic!("{isa}: seed {seed}"),
            }
        }
        assert!(made * 4 > count * 3, "{isa}: machine code for {made} functions of {count} only");
    }
}

#[test]
fn extremes_have_the_sign_of_their_zeros() {
    let mut rng = Rng(11);
    for length in [16, 17, 24, 31, 40, 64, 100, 1030] {
        let (rows, space) = (32, [32, length].into_iter().collect::<Dims>());
        let mut b = Builder::new();
        let x = b.input(Type::lane(DType::F32));
        let [max, min] = [Reduce::Max, Reduce::Min].map(|reduce| b.reduce(reduce, x));
        let [above, below] = [max, min].map(|extreme| b.binary(Binary::Copysign, x, extreme));
        let function = b.finish(&[above, below]);
        let outputs = (1..3).map(|operand| Output { operand, kind: OutputKind::Store(contiguous(&space)) }).collect();
        let inputs = vec![Source::Operand { operand: 0, layout: contiguous(&space) }];
        let group = Group { space, function, inputs, outputs };
        // All of one sign, or all but one.
        let mut values = Vec::new();
        for row in 0..rows {
            let (zero, other) = if row % 2 == 0 { (0.0f32, -0.0) } else { (-0.0, 0.0) };
            let exception = if row % 8 < 2 { length } else { rng.below(length) };
            values.extend((0..length).map(|at| if at == exception { other } else { zero }));
        }
        let result = Buffer::new(DType::F32, values.len());
        let buffers = vec![Buffer::of(DType::F32, &values), result.clone(), result];
        for isa in coded() {
            assert!(compare(&group, buffers.clone(), isa), "{isa}: rows of {length}");
        }
    }
}

#[test]
fn what_is_written_past_the_caches_has_the_bits_of_the_primitives() {
    // Rows that begin at cache lines, and rows that do not; a softmax, and columns of it.
    for [rows, length] in [[2051, 1024], [1201, 1801]] {
        let space: Dims = [rows, length].into_iter().collect();
        let mut b = Builder::new();
        let x = b.input(Type::lane(DType::F32));
        let max = b.reduce(Reduce::Max, x);
        let e = b.binary(Binary::Sub, x, max);
        let e = b.unary(Unary::Exp, e);
        let sum = b.reduce(Reduce::Sum, e);
        let y = b.binary(Binary::Div, e, sum);
        let function = b.finish(&[y, y]);
        let kinds = [OutputKind::Store(contiguous(&space)), OutputKind::ReduceLeading(Reduce::Sum, 1)];
        let outputs = (1..).zip(kinds).map(|(operand, kind)| Output { operand, kind }).collect();
        let inputs = vec![Source::Operand { operand: 0, layout: contiguous(&space) }];
        let x = Buffer::random(&mut Rng(7), DType::F32, rows * length, false);
        let buffers = vec![x, Buffer::new(DType::F32, rows * length), Buffer::new(DType::F32, length)];
        let group = Group { space, function, inputs, outputs };
        for isa in coded() {
            assert!(compare(&group, buffers.clone(), isa), "{isa}");
        }
    }
}

/// `−exp x` of so many elements.
fn two_calls(len: usize) -> Group {
    let mut b = Builder::new();
    let x = b.input(Type::lane(DType::F32));
    let y = b.unary(Unary::Exp, x);
    let y = b.unary(Unary::Neg, y);
    let function = b.finish(&[y]);
    let space: Dims = [len].into_iter().collect();
    let inputs = vec![Source::Operand { operand: 0, layout: contiguous(&space) }];
    let outputs = vec![Output { operand: 1, kind: OutputKind::Store(contiguous(&space)) }];
    Group { space, function, inputs, outputs }
}

#[test]
fn what_is_long_is_cut_with_machine_code_too() {
    for isa in super::isas() {
        let kernel = group::compile(&two_calls(1 << 24), isa).expect("a group that can be compiled");
        assert!(kernel.chunks() > 256, "{isa:?}: {} chunks", kernel.chunks());
        assert!(kernel.scratch_bytes() < 1 << 20, "{isa:?}: {} bytes of scratch", kernel.scratch_bytes());
    }
}

#[test]
fn nothing_is_compiled_where_it_is_switched_off() {
    let group = two_calls(64);
    let codes = |isa: Isa| group::compile(&group, isa).map(|kernel| kernel.lowered.codes.len());
    assert_eq!(code::without(|| codes(Isa::Baseline)), Ok(0));
    for isa in coded() {
        assert_eq!(code::without(|| codes(isa)), Ok(0));
        assert_eq!(codes(isa), Ok(1));
    }
}
