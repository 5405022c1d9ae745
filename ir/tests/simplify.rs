//! The simplifier on random functions (same bits, same signature, nothing left to do) and rule by rule.

mod common;

use common::{Random, random_function, special_inputs};
use tapeflow_ir::{Binary, Builder, Column, Compare, DType, Precision, Reduce, ScalarFn, Type, Unary, V};

const F32: DType = DType::F32;

fn assert_same(f: &ScalarFn, left: &[Column], right: &[Column]) {
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        assert!(left.same_bits(right), "output {index}: {left:?} became {right:?} in\n{f}\n{}", f.simplify());
    }
}

#[test]
fn random_functions_keep_their_bits() {
    let mut random = Random(42);
    let (mut before, mut after) = (0, 0);
    for round in 0..6_000 {
        let f = random_function(&mut random, 6 + round % 30);
        f.verify().unwrap_or_else(|error| panic!("{error}\n{f}"));
        let simple = f.simplify();
        simple.verify().unwrap_or_else(|error| panic!("{error}\n{f}\n{simple}"));
        assert_eq!(simple.inputs, f.inputs);
        assert!((0..f.outputs.len()).all(|index| simple.output_type(index) == f.output_type(index)), "{f}\n{simple}");
        assert_eq!(simple.simplify(), simple, "not simplified to the end:\n{f}");
        for length in [0, 1, 5, 37] {
            let inputs = special_inputs(&mut random, &f.inputs, length);
            let expected = f.eval(&inputs, length, Precision::Exact);
            assert_same(&f, &expected, &simple.eval(&inputs, length, Precision::Exact));
        }
        before += f.values.len();
        after += simple.values.len();
    }
    // Otherwise nothing was tested.
    assert!(after * 2 < before, "{before} values became {after}");
}

/// Inlining with the parameters as arguments is the function itself; with `Row` arguments for `Lane` parameters it
/// computes what the repeated argument gives.
#[test]
fn inlining_keeps_bits() {
    let mut random = Random(7);
    for _ in 0..1_000 {
        let f = random_function(&mut random, 20);
        let mut b = Builder::new();
        let narrowed: Vec<Type> =
            f.inputs.iter().map(|&ty| if random.below(2) == 0 { Type::row(ty.dtype) } else { ty }).collect();
        let args: Vec<V> = narrowed.iter().map(|&ty| b.input(ty)).collect();
        let outputs = b.inline(&f, &args);
        let outputs: Vec<V> = (outputs.iter().enumerate())
            .map(|(index, &v)| if f.output_type(index).extent == tapeflow_ir::Extent::Lane { b.repeat(v) } else { v })
            .collect();
        let outer = b.finish(&outputs);
        outer.verify().unwrap_or_else(|error| panic!("{error}\n{f}\n{outer}"));
        let inputs = special_inputs(&mut random, &narrowed, 21);
        assert_same(&f, &f.eval(&inputs, 21, Precision::Exact), &outer.eval(&inputs, 21, Precision::Exact));
    }
}

/// Derivatives of anything are well-typed functions of the right signature, twice over.
#[test]
fn vjps_of_random_functions_verify() {
    let mut random = Random(9);
    let mut found = 0;
    for _ in 0..400 {
        let f = random_function(&mut random, 18);
        for output in 0..f.outputs.len() {
            for input in 0..f.inputs.len() {
                let Some(vjp) = f.vjp(output, input) else { continue };
                found += 1;
                vjp.verify().unwrap_or_else(|error| panic!("{error}\n{f}\n{vjp}"));
                let inputs: Vec<Type> = f.inputs.iter().copied().chain([f.output_type(output)]).collect();
                assert_eq!(vjp.inputs, inputs);
                assert_eq!(vjp.outputs.len(), 1);
                assert_eq!(vjp.output_type(0), f.inputs[input]);
                if let Some(second) = vjp.vjp(0, input) {
                    second.verify().unwrap_or_else(|error| panic!("{error}\n{vjp}\n{second}"));
                }
            }
        }
    }
    assert!(found > 500, "{found}");
}

/// The text of `write(x, y)` simplified, without its signature; x is an f32 element, y an f32 of the row.
fn text(write: impl FnOnce(&mut Builder, V, V) -> V) -> String {
    let mut b = Builder::new();
    let (x, y) = (b.input(Type::lane(F32)), b.input(Type::row(F32)));
    let output = write(&mut b, x, y);
    b.finish(&[output]).simplify().to_string().split_once('\n').unwrap().1.to_string()
}

const X: &str = "%0: f32 lane = input 0\nreturn %0";

#[test]
fn identities_vanish() {
    for (op, constant, left_too) in
        [(Binary::Mul, 1.0, true), (Binary::Div, 1.0, false), (Binary::Sub, 0.0, false), (Binary::Add, -0.0, true)]
    {
        let right = text(|b, x, _| {
            let k = b.float(F32, constant);
            b.binary(op, x, k)
        });
        let left = text(|b, x, _| {
            let k = b.float(F32, constant);
            b.binary(op, k, x)
        });
        assert_eq!(right, X, "{op} {constant}");
        assert_eq!(left == X, left_too, "{constant} {op}:\n{left}");
    }
    let x = [
        text(|b, x, _| {
            let n = b.unary(Unary::Neg, x);
            b.unary(Unary::Neg, n)
        }),
        text(|b, x, _| b.binary(Binary::Max, x, x)),
        text(|b, x, _| {
            let wide = b.cast(x, DType::F64);
            b.cast(wide, F32)
        }),
        text(|b, x, _| {
            let nan = b.compare(Compare::Ne, x, x);
            b.select(nan, x, x)
        }),
        text(|b, x, _| {
            let (k, n) = (b.float(F32, 2.0), b.float(F32, 3.0));
            let less = b.compare(Compare::Lt, k, n);
            let other = b.unary(Unary::Exp, x);
            b.select(less, x, other)
        }),
    ];
    assert!(x.iter().all(|text| text == X), "{x:?}");
}

#[test]
fn what_would_change_bits_stays() {
    for (op, constant) in [(Binary::Mul, 0.0), (Binary::Add, 0.0), (Binary::Sub, -0.0), (Binary::Div, 3.0)] {
        let text = text(|b, x, _| {
            let k = b.float(F32, constant);
            b.binary(op, x, k)
        });
        assert!(text.contains(&format!("{op} %0, %1")), "{text}");
    }
    // Folding these would fix what a device may compute differently.
    for op in [Unary::Exp, Unary::Sin, Unary::Erf] {
        let text = text(|b, _, _| {
            let k = b.float(F32, 0.5);
            b.unary(op, k)
        });
        assert!(text.contains(op.name()), "{text}");
    }
    // The result is of the row where the operand is, and of the element where it was.
    let repeated = text(|b, _, y| b.repeat(y));
    assert_eq!(repeated, "%0: f32 row = input 1\n%1: f32 lane = cast %0\nreturn %1");
    let sum = text(|b, _, y| {
        let repeated = b.repeat(y);
        b.reduce(Reduce::Sum, repeated)
    });
    assert!(sum.contains("reduce_sum"), "{sum}");
    assert!(text(|b, x, _| b.detach(x)).contains("detach"));
}

#[test]
fn constants_fold() {
    let folded = text(|b, x, _| {
        let (two, three) = (b.float(F32, 2.0), b.float(F32, 3.0));
        let third = b.binary(Binary::Div, two, three);
        let root = b.unary(Unary::Sqrt, third);
        b.binary(Binary::Mul, x, root)
    });
    assert_eq!(folded, "%0: f32 lane = input 0\n%1: f32 row = const 0.8164966\n%2: f32 lane = mul %0, %1\nreturn %2");
    // NaNs and subnormals are left to the device.
    let nan = text(|b, _, _| {
        let zero = b.float(F32, 0.0);
        b.binary(Binary::Div, zero, zero)
    });
    assert!(nan.contains("div"), "{nan}");
    let tiny = text(|b, _, _| {
        let (a, k) = (b.float(F32, 1e-30), b.float(F32, 1e-10));
        b.binary(Binary::Mul, a, k)
    });
    assert!(tiny.contains("mul"), "{tiny}");
}

#[test]
fn division_by_a_power_of_two_multiplies() {
    let quarter = text(|b, x, _| {
        let four = b.float(F32, -4.0);
        b.binary(Binary::Div, x, four)
    });
    assert_eq!(quarter, "%0: f32 lane = input 0\n%1: f32 row = const -0.25\n%2: f32 lane = mul %0, %1\nreturn %2");
    // 1/2¹²⁷ is subnormal in f32.
    let tiny = text(|b, x, _| {
        let huge = b.float(F32, 2f64.powi(127));
        b.binary(Binary::Div, x, huge)
    });
    assert!(tiny.contains("div"), "{tiny}");
}

#[test]
fn common_subexpressions_meet() {
    let met = text(|b, x, y| {
        let (p, q) = (b.binary(Binary::Mul, x, y), b.binary(Binary::Mul, y, x));
        let (less, more) = (b.compare(Compare::Lt, p, x), b.compare(Compare::Gt, x, q));
        let both = b.binary(Binary::And, less, more);
        b.select(both, p, x)
    });
    assert_eq!(
        met,
        "%0: f32 lane = input 0\n%1: f32 row = input 1\n%2: f32 lane = mul %0, %1\n\
         %3: bool lane = lt %2, %0\n%4: f32 lane = select %3, %2, %0\nreturn %4"
    );
    // Swapped operands are another value where they do not commute.
    let apart = text(|b, x, y| {
        let (less, more) = (b.compare(Compare::Lt, x, y), b.compare(Compare::Lt, y, x));
        let (p, q) = (b.binary(Binary::Sub, x, y), b.binary(Binary::Sub, y, x));
        let (p, q) = (b.select(less, p, x), b.select(more, q, x));
        b.binary(Binary::Mul, p, q)
    });
    assert_eq!(apart.lines().count(), 10, "{apart}");
}

#[test]
fn parameters_stay_in_the_signature() {
    let mut b = Builder::new();
    let inputs: Vec<V> = [F32, DType::I64, F32].map(|dtype| b.input(Type::lane(dtype))).to_vec();
    let f = b.finish(&[inputs[2]]).simplify();
    assert_eq!(f.to_string(), "fn(f32 lane, i64 lane, f32 lane)\n%0: f32 lane = input 2\nreturn %0");
}
