//! Tests of the scalar engine: derivatives against differences, micrograd's values, long chains, learning.

use super::{Activation, Mlp, Random, Value, WrongInputs};

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0), "{a} is not {b}");
}

/// Checks the gradient of `f` at a point against central differences.
fn check_gradient(name: &str, f: impl Fn(&[Value]) -> Value, point: &[f64]) {
    let values: Vec<Value> = point.iter().copied().map(Value::new).collect();
    f(&values).backward();
    for (index, value) in values.iter().enumerate() {
        let h = 1e-5;
        let at = |shift: f64| {
            let moved = point.iter().enumerate().map(|(i, x)| Value::new(if i == index { x + shift } else { *x }));
            f(&moved.collect::<Vec<_>>()).data()
        };
        let expected = (at(h) - at(-h)) / (2.0 * h);
        let error = (value.grad() - expected).abs() / expected.abs().max(1.0);
        assert!(error < 1e-8, "{name} at {point:?}: gradient {index} is {}, not {expected}", value.grad());
    }
}

#[test]
fn derivatives_agree_with_central_differences() {
    type Function = fn(&[Value]) -> Value;
    let unary: &[(&str, Function, &[f64])] = &[
        ("neg", |v| -&v[0], &[-1.5, 0.0, 2.0]),
        ("exp", |v| v[0].exp(), &[-2.0, 0.0, 1.5]),
        ("ln", |v| v[0].ln(), &[0.3, 1.0, 7.0]),
        ("sqrt", |v| v[0].sqrt(), &[0.3, 1.0, 7.0]),
        ("tanh", |v| v[0].tanh(), &[-3.0, -0.2, 0.0, 1.0]),
        ("sigmoid", |v| v[0].sigmoid(), &[-30.0, -0.2, 0.0, 1.0]),
        ("relu", |v| v[0].relu(), &[-1.0, 2.0]),
        ("powf 3", |v| v[0].powf(3.0), &[-1.5, 0.0, 2.0]),
        ("powf -0.5", |v| v[0].powf(-0.5), &[0.4, 2.0]),
        ("x * x + x", |v| &v[0] * &v[0] + &v[0], &[-1.0, 3.0]),
    ];
    for (name, f, points) in unary {
        points.iter().for_each(|&x| check_gradient(name, f, &[x]));
    }
    let binary: &[(&str, Function)] = &[
        ("add", |v| &v[0] + &v[1]),
        ("sub", |v| &v[0] - &v[1]),
        ("mul", |v| &v[0] * &v[1]),
        ("div", |v| &v[0] / &v[1]),
        ("pow", |v| v[0].pow(&v[1])),
        ("shared", |v| {
            let shared = (&v[0] * &v[1]).tanh();
            &shared * &shared / (&shared + &v[0])
        }),
    ];
    for (name, f) in binary {
        for point in [[0.7, 1.3], [2.0, -0.5], [1.5, 2.0]] {
            check_gradient(name, f, &point);
        }
    }
}

#[test]
fn derivatives_at_the_edges() {
    let slope = |x: f64, f: fn(&Value) -> Value| {
        let x = Value::new(x);
        f(&x).backward();
        x.grad()
    };
    assert_eq!(slope(0.0, Value::relu), 0.0);
    assert_eq!(slope(0.0, |x| x.powf(0.0)), 0.0);
    assert_eq!(slope(0.0, |x| x.pow(2.0)), 0.0);
    assert_eq!(slope(2.0, |x| Value::new(0.0).pow(x)), 0.0);
    assert!(slope(f64::NAN, Value::tanh).is_nan());
    assert!(Value::new(f64::NAN).relu().data().is_nan());
}

#[test]
fn every_combination_of_operands() {
    let (x, y) = (Value::new(6.0), Value::new(3.0));
    let results = [
        [&x + &y, &x - &y, &x * &y, &x / &y],
        [x.clone() + &y, x.clone() - &y, x.clone() * &y, x.clone() / &y],
        [&x + y.clone(), &x - y.clone(), &x * y.clone(), &x / y.clone()],
        [x.clone() + y.clone(), x.clone() - y.clone(), x.clone() * y.clone(), x.clone() / y.clone()],
        [&x + 3.0, &x - 3.0, &x * 3.0, &x / 3.0],
        [x.clone() + 3.0, x.clone() - 3.0, x.clone() * 3.0, x.clone() / 3.0],
        [6.0 + &y, 6.0 - &y, 6.0 * &y, 6.0 / &y],
        [6.0 + y.clone(), 6.0 - y.clone(), 6.0 * y.clone(), 6.0 / y.clone()],
    ];
    for row in results {
        assert_eq!(row.map(|value| value.data()), [9.0, 3.0, 18.0, 2.0]);
    }
    let mut z = x.clone();
    z += &y;
    z -= 1.0;
    z *= y.clone();
    z /= 2.0;
    assert_eq!((z.data(), x.data()), (12.0, 6.0));
    z.backward();
    assert_eq!((x.grad(), y.grad()), (1.5, 5.5)); // z = (x + y - 1) y / 2

    let values = [1.0, 2.0, 3.0].map(Value::new);
    assert_eq!(values.iter().sum::<Value>().data(), 6.0);
    assert_eq!(values.into_iter().sum::<Value>().data(), 6.0);
    assert_eq!(Vec::<Value>::new().into_iter().sum::<Value>().data(), 0.0);
    assert_eq!((-x).data(), -6.0);
}

/// The example of micrograd's README, with its printed results.
#[test]
fn micrograd_example() {
    let (a, b) = (Value::new(-4.0), Value::new(2.0));
    let mut c = &a + &b;
    let mut d = &a * &b + b.powf(3.0);
    c += &c + 1.0;
    c += 1.0 + &c + (-&a);
    d += &d * 2.0 + (&b + &a).relu();
    d += 3.0 * &d + (&b - &a).relu();
    let e = &c - &d;
    let f = e.powf(2.0);
    let mut g = &f / 2.0;
    g += 10.0 / &f;
    close(g.data(), 24.7041, 1e-5);
    g.backward();
    close(a.grad(), 138.8338, 1e-6);
    close(b.grad(), 645.5773, 1e-6);
}

#[test]
fn gradients_accumulate_until_reset() {
    let x = Value::new(3.0);
    let square = &x * &x;
    let y = &square * 2.0;
    y.backward();
    assert_eq!((x.grad(), square.grad(), y.grad()), (12.0, 2.0, 1.0));
    y.backward();
    assert_eq!((x.grad(), square.grad(), y.grad()), (24.0, 4.0, 2.0));
    (&x * 5.0).backward();
    assert_eq!(x.grad(), 29.0);
    x.zero_grad();
    assert_eq!((x.grad(), square.grad()), (0.0, 4.0));
    // Derivatives are those of the time of computing.
    x.set_data(100.0);
    y.backward();
    assert_eq!((x.grad(), y.data()), (12.0, 18.0));
}

#[test]
fn a_million_nodes_neither_backward_nor_drop_overflows() {
    // A small stack, so that recursion would be noticed on any machine.
    let small = std::thread::Builder::new().stack_size(128 << 10);
    let run = || {
        let x = Value::new(0.5);
        let mut y = x.clone();
        for _ in 0..1_000_000 {
            y += 1e-6;
        }
        y.backward();
        assert_eq!(x.grad(), 1.0);
        let twin = y.clone();
        drop(y);
        drop(twin);
        // A ladder in which every node is used twice: 2¹⁰⁰ paths.
        let mut z = x.clone();
        for _ in 0..100 {
            z = (&z + &z) * 0.5;
        }
        x.zero_grad();
        z.backward();
        assert_eq!(x.grad(), 1.0);
    };
    assert!(small.spawn(run).unwrap().join().is_ok());
}

#[test]
fn learns_xor_from_any_seed() {
    let xor = [([0.0, 0.0], 0.0), ([0.0, 1.0], 1.0), ([1.0, 0.0], 1.0), ([1.0, 1.0], 0.0)];
    for seed in 0..3 {
        let model = Mlp::new(&[2, 4, 1], Activation::Tanh, Activation::Linear, &mut Random::new(seed));
        let mut losses = vec![];
        for _ in 0..2000 {
            let errors = xor.iter().map(|(x, y)| (&model.forward(&x.map(Value::new)).unwrap()[0] - *y).powf(2.0));
            let loss: Value = errors.sum();
            model.zero_grad();
            loss.backward();
            for parameter in model.parameters() {
                parameter.set_data(parameter.data() - 0.1 * parameter.grad());
            }
            losses.push(loss.data());
        }
        assert!(losses[1999] < 1e-3, "seed {seed} ends at {}", losses[1999]);
        assert!(losses[0] > 0.1);
    }
}

#[test]
fn a_wrong_number_of_inputs_is_an_error() {
    let model = Mlp::new(&[2, 4, 1], Activation::Relu, Activation::Linear, &mut Random::new(0));
    let inputs = [1.0, 2.0, 3.0].map(Value::new);
    assert_eq!(model.forward(&inputs).unwrap_err(), WrongInputs { expected: 2, found: 3 });
    assert!(model.forward(&inputs[..2]).is_ok());
}

#[test]
fn drawings_escape_names() {
    let x = Value::new(1.0).named("a|b \"c\"");
    assert!(x.to_dot().contains(r#"v0 [label="{ a\|b\ \"c\" | data 1.0000 | grad 0.0000 }"];"#));
    assert_eq!(format!("{x} {x:?}"), "1 Value(data=1, grad=0)");
}
