//! Transcendental functions against the standard library in f64: units in the last place over the whole range, and the
//! special values.

use smallvec::smallvec;
use tapeflow_ir::{Binary, Builder, DType, Type, Unary};

use super::{Buffer, Rng, compile, isas, run};
use crate::cpu::space::contiguous;
use crate::program::kernel::{Group, Kernel, Output, OutputKind, Source};

/// Distance in units in the last place of `expected` (of the smallest normal number below that).
fn ulps(actual: f32, expected: f64) -> f64 {
    if actual.is_nan() && expected.is_nan() {
        return 0.0;
    }
    // Beyond the largest f32 by half a unit is infinity.
    let rounded = expected as f32;
    if rounded.is_infinite() || actual.is_infinite() {
        return if actual == rounded { 0.0 } else { f64::INFINITY };
    }
    let exponent = (rounded.abs().max(f32::MIN_POSITIVE).to_bits() >> 23) as i32 - 127 - 23;
    (actual as f64 - expected).abs() / 2f64.powi(exponent)
}

fn apply(isa: crate::cpu::Isa, x: &[f32], y: Option<&[f32]>, unary: Unary, binary: Binary) -> Vec<f32> {
    let n = x.len();
    let mut b = Builder::new();
    let v = b.input(Type::lane(DType::F32));
    let result = match y {
        Some(_) => {
            let w = b.input(Type::lane(DType::F32));
            b.binary(binary, v, w)
        }
        None => b.unary(unary, v),
    };
    let inputs = 1 + usize::from(y.is_some());
    let group = Group {
        space: smallvec![n],
        function: b.finish(&[result]),
        inputs: (0..inputs).map(|operand| Source::Operand { operand, layout: contiguous(&[n]) }).collect(),
        outputs: vec![Output { operand: inputs, kind: OutputKind::Store(contiguous(&[n])) }],
    };
    let mut buffers = vec![Buffer::of(DType::F32, x)];
    buffers.extend(y.map(|y| Buffer::of(DType::F32, y)));
    buffers.push(Buffer::new(DType::F32, n));
    run(&*compile(Kernel::Group(group), isa), &mut buffers, &[]).unwrap();
    buffers[inputs].slice().to_vec()
}

/// Every 9973rd bit pattern, every power of two and its neighbours, and what is special.
fn everywhere() -> Vec<f32> {
    let mut x: Vec<f32> = (0..u32::MAX / 9973).map(|i| f32::from_bits(i * 9973)).collect();
    for exponent in 0..=254u32 {
        for bits in [exponent << 23, (exponent << 23) + 1, (exponent << 23).wrapping_sub(1) & 0x7fff_ffff] {
            x.extend([f32::from_bits(bits), -f32::from_bits(bits)]);
        }
    }
    x.extend((-2000..2000).map(|i| i as f32 / 16.0));
    x.extend((-4000..4000).map(|i| i as f32 / 1000.0));
    x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, -1.0, 88.722_84, 88.73, -103.9, -87.4]);
    x
}

/// A function, its exact value, and how many units in the last place it may be off.
type Case = (Unary, fn(f64) -> f64, f64);

#[test]
fn unary_functions_are_accurate_everywhere() {
    let x = everywhere();
    let cases: [Case; 21] = [
        (Unary::Exp, f64::exp, 1.5),
        (Unary::Exp2, f64::exp2, 1.5),
        (Unary::ExpM1, f64::exp_m1, 2.0),
        (Unary::Ln, f64::ln, 0.51),
        (Unary::Log2, f64::log2, 0.51),
        (Unary::Log10, f64::log10, 0.51),
        (Unary::Ln1p, f64::ln_1p, 0.51),
        (Unary::Sin, f64::sin, 0.51),
        (Unary::Cos, f64::cos, 0.51),
        (Unary::Tan, f64::tan, 0.51),
        (Unary::Asin, f64::asin, 0.51),
        (Unary::Acos, f64::acos, 0.51),
        (Unary::Atan, f64::atan, 0.51),
        (Unary::Sinh, f64::sinh, 0.51),
        (Unary::Cosh, f64::cosh, 0.51),
        (Unary::Tanh, f64::tanh, 2.5),
        (Unary::Erf, tapeflow_ir::math::erf, 2.0),
        (Unary::Cbrt, f64::cbrt, 0.51),
        (Unary::Sqrt, f64::sqrt, 0.5001),
        (Unary::Floor, f64::floor, 0.0),
        (Unary::Round, f64::round, 0.0),
    ];
    for (op, exact, bound) in cases {
        let results: Vec<Vec<f32>> = isas().into_iter().map(|isa| apply(isa, &x, None, op, Binary::Add)).collect();
        let (mut worst, mut at) = (0.0, 0.0);
        for (&x, &y) in x.iter().zip(&results[0]) {
            let error = ulps(y, exact(x as f64));
            if error.is_nan() || error > worst {
                (worst, at) = (error, x);
            }
        }
        println!("{op:?}: {worst:.3} ulp at {at:e}");
        assert!(worst <= bound, "{op:?}({at:e}) is off by {worst} ulp");
        for other in &results[1..] {
            for ((x, a), b) in x.iter().zip(&results[0]).zip(other) {
                assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{op:?}({x:e}): {a:e} and {b:e}");
            }
        }
    }
}

#[test]
fn signs_of_zero() {
    let odd = [Unary::Sin, Unary::Tan, Unary::Tanh, Unary::Erf, Unary::ExpM1, Unary::Ln1p, Unary::Atan, Unary::Sinh];
    for op in odd {
        for isa in isas() {
            let y = apply(isa, &[-0.0, 0.0], None, op, Binary::Add);
            assert_eq!([y[0].to_bits(), y[1].to_bits()], [(-0.0f32).to_bits(), 0], "{op:?}");
        }
    }
}

#[test]
fn powers() {
    let mut rng = Rng(21);
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        0.5,
        -0.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1e-40,
        1e38,
        -1e38,
        16_777_217.0,
        8_388_609.0,
        33_554_432.0,
        1.000_001,
        0.999_999,
        -3.0,
        1.5,
        16_777_215.0,
    ];
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for a in specials {
        for b in specials {
            x.push(a);
            y.push(b);
        }
    }
    for _ in 0..300_000 {
        x.push(f32::from_bits(rng.next() as u32));
        y.push(match rng.below(3) {
            0 => f32::from_bits(rng.next() as u32),
            1 => rng.below(20) as f32 - 10.0,
            _ => rng.float(false) as f32 * 5.0,
        });
    }
    let results: Vec<Vec<f32>> =
        isas().into_iter().map(|isa| apply(isa, &x, Some(&y), Unary::Neg, Binary::Pow)).collect();
    let mut worst: f64 = 0.0;
    for (i, &actual) in results[0].iter().enumerate() {
        let error = ulps(actual, (x[i] as f64).powf(y[i] as f64));
        assert!(error <= 0.51, "{:e}^{:e} = {actual:e} is off by {error} ulp", x[i], y[i]);
        worst = worst.max(error);
    }
    println!("Pow: {worst:.3} ulp");
    for other in &results[1..] {
        assert!(results[0].iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()));
    }
}
