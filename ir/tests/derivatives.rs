//! The derivative table against central differences, first and second order (third for one operand), and the rules at
//! points where differences say nothing: kinks, ties, infinities, branches not taken.

mod common;

use common::{Random, check_derivatives, floats};
use tapeflow_ir::{Binary, Builder, Column, Compare, DType, Precision, Reduce, ScalarFn, Type, Unary, V};

const F64: DType = DType::F64;

fn function(types: &[Type], write: impl FnOnce(&mut Builder, &[V]) -> Vec<V>) -> ScalarFn {
    let mut b = Builder::new();
    let inputs: Vec<V> = types.iter().map(|&ty| b.input(ty)).collect();
    let outputs = write(&mut b, &inputs);
    b.finish(&outputs)
}

fn lane() -> Type {
    Type::lane(F64)
}

fn row() -> Type {
    Type::row(F64)
}

fn run(f: &ScalarFn, inputs: &[&[f64]], length: usize) -> Vec<f64> {
    let columns: Vec<Column> = inputs.iter().map(|values| Column::Float(values.to_vec())).collect();
    floats(&f.eval(&columns, length, Precision::Exact)[0]).to_vec()
}

/// Where an operation is smooth and of moderate size.
fn domain(op: Unary) -> (f64, f64) {
    match op {
        Unary::Sqrt | Unary::Cbrt | Unary::Ln | Unary::Log2 | Unary::Log10 => (0.5, 2.5),
        Unary::Ln1p => (-0.4, 2.0),
        Unary::Asin | Unary::Acos => (-0.7, 0.7),
        Unary::Tan => (-0.9, 0.9),
        Unary::Floor | Unary::Ceil | Unary::Trunc => (1.1, 1.9),
        Unary::Round => (0.6, 1.4),
        Unary::Abs | Unary::Sign => (-1.5, -0.5),
        _ => (-1.5, 1.5),
    }
}

#[test]
fn every_unary_to_the_third_order() {
    let mut random = Random(1);
    for op in Unary::ALL.into_iter().filter(|op| op.defined_for(F64)) {
        let f = function(&[lane()], |b, x| vec![b.unary(op, x[0])]);
        let (low, high) = domain(op);
        let x = random.column(lane(), 5, low, high);
        assert!(check_derivatives(op.name(), &f, &[x], 5, 3) > 0);
    }
}

#[test]
fn every_binary_to_the_second_order() {
    let mut random = Random(2);
    for op in Binary::ALL.into_iter().filter(|op| op.defined_for(F64)) {
        // No ties, no whole quotients, positive bases.
        for (types, b_range) in
            [([lane(), lane()], (1.6, 2.4)), ([lane(), row()], (1.6, 2.4)), ([row(), lane()], (1.6, 2.4))]
        {
            let f = function(&types, |b, x| vec![b.binary(op, x[0], x[1])]);
            let inputs = [random.column(types[0], 4, 0.8, 1.5), random.column(types[1], 4, b_range.0, b_range.1)];
            assert!(check_derivatives(op.name(), &f, &inputs, 4, 2) > 0);
        }
    }
}

#[test]
fn negative_operands() {
    let inputs = [Column::Float(vec![-1.3, 0.7, -0.9]), Column::Float(vec![0.6, -1.9, -2.2])];
    for op in [Binary::Div, Binary::Rem, Binary::Atan2, Binary::Copysign, Binary::Min, Binary::Max] {
        let f = function(&[lane(), lane()], |b, x| vec![b.binary(op, x[0], x[1])]);
        assert!(check_derivatives(op.name(), &f, &inputs, 3, 2) > 0);
    }
}

#[test]
fn constant_exponents() {
    for n in [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 2.5] {
        let f = function(&[lane()], |b, x| {
            let n = b.float(F64, n);
            vec![b.binary(Binary::Pow, x[0], n)]
        });
        check_derivatives(&format!("pow {n}"), &f, &[Column::Float(vec![0.7, 1.3, 2.1])], 3, 3);
    }
    // Negative bases and zero keep working where the exponent is whole.
    let square = function(&[lane()], |b, x| {
        let n = b.float(F64, 2.0);
        vec![b.binary(Binary::Pow, x[0], n)]
    });
    assert_eq!(run(&square.vjp(0, 0).unwrap(), &[&[-3.0, 0.0], &[1.0, 1.0]], 2), [-6.0, 0.0]);
}

#[test]
fn power_of_zero() {
    let f = function(&[lane(), lane()], |b, x| vec![b.binary(Binary::Pow, x[0], x[1])]);
    let (by_base, by_exponent) = (f.vjp(0, 0).unwrap(), f.vjp(0, 1).unwrap());
    assert_eq!(run(&by_base, &[&[0.0, 0.0, 3.0], &[0.0, 2.0, 0.0], &[1.0; 3]], 3), [0.0, 0.0, 0.0]);
    assert_eq!(run(&by_exponent, &[&[0.0, 0.0, 1.0], &[0.0, 2.0, 5.0], &[1.0; 3]], 3), [0.0, 0.0, 0.0]);
}

#[test]
fn select_mul_add_cast_detach() {
    let mut random = Random(3);
    let f = function(&[lane(), lane(), row()], |b, x| {
        let greater = b.compare(Compare::Gt, x[0], x[1]);
        let sin = b.unary(Unary::Sin, x[0]);
        let fused = b.mul_add(x[0], x[1], x[2]);
        let chosen = b.select(greater, sin, fused);
        let squared = b.binary(Binary::Mul, chosen, chosen);
        vec![squared, fused]
    });
    let inputs =
        [random.column(lane(), 6, -1.0, 1.0), random.column(lane(), 6, -1.0, 1.0), random.column(row(), 6, 0.5, 1.0)];
    assert!(check_derivatives("select", &f, &inputs, 6, 2) > 0);

    // Through f32 and back, the cotangent is rounded on its way as the value is.
    let f = function(&[lane()], |b, x| {
        let narrow = b.cast(x[0], DType::F32);
        vec![b.cast(narrow, F64)]
    });
    assert_eq!(run(&f.vjp(0, 0).unwrap(), &[&[1.0], &[0.1]], 1), [f64::from(0.1f32)]);

    // x · detach(x) has the derivative x.
    let f = function(&[lane()], |b, x| {
        let detached = b.detach(x[0]);
        vec![b.binary(Binary::Mul, x[0], detached)]
    });
    assert_eq!(run(&f.vjp(0, 0).unwrap(), &[&[3.0], &[1.0]], 1), [3.0]);
}

#[test]
fn no_float_path_is_none_and_a_flat_one_is_zero() {
    let f = function(&[lane(), Type::lane(DType::I64)], |b, x| {
        let positive = b.compare(Compare::Gt, x[0], x[0]);
        let whole = b.cast(x[0], DType::I32);
        let back = b.cast(whole, F64);
        let detached = b.detach(x[0]);
        let count = b.cast(x[1], F64);
        let floor = b.unary(Unary::Floor, x[0]);
        let product = b.binary(Binary::Mul, floor, count);
        let zero = b.float(F64, 0.0);
        let cut = b.select(positive, back, zero);
        let cut = b.binary(Binary::Add, cut, detached);
        vec![positive, cut, product]
    });
    assert_eq!(f.vjp(0, 0), None);
    assert_eq!(f.vjp(1, 0), None);
    assert_eq!(f.vjp(1, 1), None);
    assert_eq!(f.vjp(2, 1), None);
    let flat = f.vjp(2, 0).unwrap();
    flat.verify().unwrap();
    let inputs = [Column::Float(vec![1.5, 2.5]), Column::Int(vec![1, 2]), Column::Float(vec![1.0, 1.0])];
    assert_eq!(flat.eval(&inputs, 2, Precision::Exact), [Column::Float(vec![0.0, 0.0])]);
}

#[test]
fn several_at_once_share_their_work() {
    let f = function(&[lane(), Type::lane(DType::I32), lane()], |b, x| vec![b.binary(Binary::Div, x[0], x[2])]);
    let vjps = f.vjps(0, &[2, 1, 0]);
    assert_eq!(vjps.shares, [Some(0), None, Some(1)]);
    vjps.function.verify().unwrap();
    let single = [f.vjp(0, 2).unwrap(), f.vjp(0, 0).unwrap()];
    let inputs = [
        Column::Float(vec![3.0, 5.0]),
        Column::Int(vec![0]),
        Column::Float(vec![7.0, -0.3]),
        Column::Float(vec![1.1, 2.2]),
    ];
    let together = vjps.function.eval(&inputs, 2, Precision::Exact);
    for (index, single) in single.iter().enumerate() {
        assert_eq!(single.eval(&inputs, 2, Precision::Exact)[0], together[index]);
    }
    assert!(vjps.function.values.len() < single[0].values.len() + single[1].values.len());
}

/// `if x > 0 { √x } else { 0 }`: the derivative of the branch not taken is infinite or NaN, and stays out.
#[test]
fn a_branch_not_taken_gives_zero() {
    let f = function(&[lane()], |b, x| {
        let zero = b.float(F64, 0.0);
        let positive = b.compare(Compare::Gt, x[0], zero);
        let root = b.unary(Unary::Sqrt, x[0]);
        vec![b.select(positive, root, zero)]
    });
    let first = f.vjp(0, 0).unwrap();
    assert_eq!(run(&first, &[&[4.0, 0.0, -1.0], &[1.0; 3]], 3), [0.25, 0.0, 0.0]);
    let second = first.vjp(0, 0).unwrap();
    assert_eq!(run(&second, &[&[4.0, 0.0, -1.0], &[1.0; 3], &[1.0; 3]], 3), [-1.0 / 32.0, 0.0, 0.0]);
}

/// Both branches use x several times: one selection between their totals, with no addition of zeros.
#[test]
fn branches_meet_in_one_selection() {
    let f = function(&[lane()], |b, x| {
        let zero = b.float(F64, 0.0);
        let slope = b.float(F64, 0.01);
        let positive = b.compare(Compare::Gt, x[0], zero);
        let square = b.binary(Binary::Mul, x[0], x[0]);
        let leak = b.binary(Binary::Mul, x[0], slope);
        vec![b.select(positive, square, leak)]
    });
    let vjp = f.vjp(0, 0).unwrap();
    let text = vjp.to_string();
    assert_eq!(text.matches("select").count(), 1, "{text}");
    assert_eq!(
        run(&vjp, &[&[2.0, -2.0], &[1.0, -0.0]], 2).iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
        [4.0f64.to_bits(), (-0.0f64).to_bits()]
    );
}

#[test]
fn extremes_and_ties() {
    let max = function(&[lane(), lane()], |b, x| vec![b.binary(Binary::Max, x[0], x[1])]);
    let (a, b): (&[f64], &[f64]) = (&[1.0, 2.0, 3.0], &[2.0, 2.0, f64::NEG_INFINITY]);
    assert_eq!(run(&max.vjp(0, 0).unwrap(), &[a, b, &[1.0; 3]], 3), [0.0, 0.5, 1.0]);
    assert_eq!(run(&max.vjp(0, 1).unwrap(), &[a, b, &[1.0; 3]], 3), [1.0, 0.5, 0.0]);
    let min = function(&[lane(), lane()], |b, x| vec![b.binary(Binary::Min, x[0], x[1])]);
    assert_eq!(run(&min.vjp(0, 0).unwrap(), &[a, b, &[1.0; 3]], 3), [1.0, 0.5, 0.0]);

    let row_max = function(&[lane()], |b, x| vec![b.reduce(Reduce::Max, x[0])]);
    let vjp = row_max.vjp(0, 0).unwrap();
    assert_eq!(run(&vjp, &[&[1.0, 5.0, 5.0, f64::NEG_INFINITY], &[3.0]], 4), [0.0, 1.5, 1.5, 0.0]);
    let copysign = function(&[lane(), lane()], |b, x| vec![b.binary(Binary::Copysign, x[0], x[1])]);
    let shares = run(&copysign.vjp(0, 0).unwrap(), &[&[0.0, -2.0, -2.0], &[-1.0, -0.0, 3.0], &[5.0; 3]], 3);
    assert_eq!(shares, [0.0, 5.0, -5.0]);
    // |x| at ±0 and infinities.
    let abs = function(&[lane()], |b, x| vec![b.unary(Unary::Abs, x[0])]);
    assert_eq!(run(&abs.vjp(0, 0).unwrap(), &[&[0.0, -0.0, f64::NEG_INFINITY], &[2.0; 3]], 3), [0.0, 0.0, -2.0]);
}

#[test]
fn reductions() {
    let mut random = Random(4);
    let x = random.column(lane(), 7, -1.0, 1.0);
    for op in Reduce::ALL {
        let f = function(&[lane(), row()], |b, x| {
            let scaled = b.binary(Binary::Mul, x[0], x[1]);
            let reduced = b.reduce(op, scaled);
            let squared = b.binary(Binary::Mul, reduced, reduced);
            let repeated = b.binary(Binary::Mul, x[0], squared);
            vec![squared, repeated]
        });
        let inputs = [x.clone(), random.column(row(), 7, 0.5, 1.5)];
        assert!(check_derivatives(op.name(), &f, &inputs, 7, 2) > 0);
    }
    // The cotangent of the sum of a repeated value.
    let f = function(&[row(), lane()], |b, x| {
        let sum = b.reduce(Reduce::Sum, x[0]);
        vec![b.binary(Binary::Mul, sum, x[1])]
    });
    assert!(check_derivatives("sum of row", &f, &[Column::Float(vec![0.3]), x], 7, 2) > 0);
}

fn softmax(b: &mut Builder, x: V) -> V {
    let max = b.reduce(Reduce::Max, x);
    let max = b.detach(max);
    let shifted = b.binary(Binary::Sub, x, max);
    let e = b.unary(Unary::Exp, shifted);
    let sum = b.reduce(Reduce::Sum, e);
    b.binary(Binary::Div, e, sum)
}

#[test]
fn row_kernels() {
    let mut random = Random(5);
    let f = function(&[lane()], |b, x| vec![softmax(b, x[0])]);
    assert!(check_derivatives("softmax", &f, &[random.column(lane(), 6, -2.0, 2.0)], 6, 2) > 0);

    let f = function(&[lane()], |b, x| {
        let max = b.reduce(Reduce::Max, x[0]);
        let max = b.detach(max);
        let shifted = b.binary(Binary::Sub, x[0], max);
        let e = b.unary(Unary::Exp, shifted);
        let sum = b.reduce(Reduce::Sum, e);
        let ln = b.unary(Unary::Ln, sum);
        let logsumexp = b.binary(Binary::Add, ln, max);
        vec![logsumexp, b.binary(Binary::Sub, x[0], logsumexp)]
    });
    assert!(check_derivatives("logsumexp, log_softmax", &f, &[random.column(lane(), 6, -2.0, 2.0)], 6, 2) > 0);

    // x, weight, bias, eps
    let f = function(&[lane(), lane(), lane(), row()], |b, x| {
        let length = b.length(F64);
        let sum = b.reduce(Reduce::Sum, x[0]);
        let mean = b.binary(Binary::Div, sum, length);
        let centred = b.binary(Binary::Sub, x[0], mean);
        let square = b.binary(Binary::Mul, centred, centred);
        let sum = b.reduce(Reduce::Sum, square);
        let variance = b.binary(Binary::Div, sum, length);
        let safe = b.binary(Binary::Add, variance, x[3]);
        let deviation = b.unary(Unary::Sqrt, safe);
        let normal = b.binary(Binary::Div, centred, deviation);
        vec![b.mul_add(normal, x[1], x[2])]
    });
    let inputs = [
        random.column(lane(), 5, -2.0, 2.0),
        random.column(lane(), 5, 0.5, 1.5),
        random.column(lane(), 5, -1.0, 1.0),
        random.column(row(), 5, 0.1, 0.2),
    ];
    assert!(check_derivatives("layer_norm", &f, &inputs, 5, 2) > 0);
}

/// The vjp of softmax is the textbook `y · (c − Σ y c)`.
#[test]
fn softmax_by_hand() {
    let f = function(&[lane()], |b, x| vec![softmax(b, x[0])]);
    let (x, c) = ([0.5, -1.0, 2.0], [1.0, -2.0, 0.25]);
    let y = run(&f, &[&x], 3);
    let dot: f64 = y.iter().zip(c).map(|(y, c)| y * c).sum();
    for (share, (y, c)) in run(&f.vjp(0, 0).unwrap(), &[&x, &c], 3).into_iter().zip(y.into_iter().zip(c)) {
        assert!((share - y * (c - dot)).abs() < 1e-15);
    }
}
