//! The macros as a user meets them: kernels against the functions they were made from, and the errors as rustc shows
//! them.

use tapeflow::__macro::ir::{Column, DType, Precision, Template};
use tapeflow::kernel;

#[test]
fn errors() {
    trybuild::TestCases::new().compile_fail("tests/macros/*.rs");
}

/// Values that differ in sign, size and class.
const VALUES: [f64; 23] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    1.5,
    -2.5,
    0.1,
    -0.3,
    3.75,
    -7.25,
    1e-5,
    -1e-5,
    1e3,
    -1e3,
    1e10,
    -1e10,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

fn evaluate(template: &'static Template, inputs: &[&[f64]]) -> Vec<f64> {
    let function = template.instantiate(DType::F64).unwrap_or_else(|error| panic!("{error}"));
    let columns: Vec<Column> = inputs.iter().map(|values| Column::Float(values.to_vec())).collect();
    match function.eval(&columns, inputs[0].len(), Precision::Exact).remove(0) {
        Column::Float(values) => values,
        Column::Bool(values) => values.into_iter().map(f64::from).collect(),
        Column::Int(values) => values.into_iter().map(|value| value as f64).collect(),
    }
}

#[track_caller]
fn assert_close(name: &str, of: &[f64], found: f64, expected: f64) {
    let same = (found.is_nan() && expected.is_nan())
        || (found == expected && found.is_sign_negative() == expected.is_sign_negative())
        || ((found - expected).abs() <= 4e-15 * expected.abs() && expected != 0.0);
    assert!(same, "{name} of {of:?}: template {found:e}, function {expected:e}");
}

macro_rules! agree {
    ($($name:ident($($argument:ident),*) = $body:expr;)*) => {$(
        #[test]
        #[allow(clippy::neg_cmp_op_on_partial_ord)] // NaN is among the values
        fn $name() {
            #[kernel]
            fn function($($argument: f64),*) -> f64 {
                $body
            }
            let arity = [$(stringify!($argument)),*].len();
            let mut columns = vec![vec![]; arity];
            let combinations = VALUES.len().pow(arity as u32);
            for k in 0..combinations {
                for (place, column) in columns.iter_mut().enumerate() {
                    column.push(VALUES[k / VALUES.len().pow(place as u32) % VALUES.len()]);
                }
            }
            let inputs: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
            let found = evaluate(function::TEMPLATE, &inputs);
            for k in 0..combinations {
                let mut of = columns.iter().map(|column| column[k]);
                $(let $argument = of.next().unwrap_or_default();)*
                let expected = function($($argument),*);
                assert_close(stringify!($name), &[$($argument),*], found[k % found.len()], expected);
            }
        }
    )*};
}

const SCALE: f64 = 0.3;

agree! {
    silu(x) = x / (1.0 + (-x).exp());
    signum(x) = x.signum();
    recip(x) = x.recip();
    fract(x) = x.fract();
    log(x, base) = x.log(base);
    powi(x) = x.powi(2) + x.powi(3) * 0.5;
    powi_negative(x) = x.powi(-2);
    powi_zero(x) = x.powi(0);
    asinh(x) = x.asinh();
    acosh(x) = x.acosh();
    atanh(x) = x.atanh();
    to_degrees(x) = x.to_degrees();
    to_radians(x) = x.to_radians();
    clamp(x) = x.clamp(-1.0, 2.5);
    rem(x, y) = x % y;
    rem_euclid(x, y) = x.rem_euclid(y);
    copysign(x, y) = x.copysign(y);
    mul_add(x, y) = x.mul_add(y, SCALE);
    classes(x) = x.is_nan() as i32 as f64 + 2.0 * x.is_infinite() as i32 as f64 + 4.0 * x.is_finite() as i32 as f64;
    branches(x, y) = if x > 0.0 && !(y < 0.5) { x } else if x == y || x.is_nan() { SCALE } else { -y };
    constants(x) = x * std::f64::consts::PI + SCALE;
    casts(x) = (x as i32) as f64 + (x as u8) as f64 * 0.5;
    assignments(x, y) = {
        let mut a = x;
        let mut b = 1.0;
        if y > x {
            a *= 2.0;
            (a, b) = (b, a);
        }
        b -= a;
        b
    };
}

#[test]
fn hypot_of_finite_numbers() {
    #[kernel]
    fn function(x: f64, y: f64) -> f64 {
        x.hypot(y)
    }
    for x in VALUES.into_iter().filter(|v| !v.is_nan()) {
        for y in VALUES.into_iter().filter(|v| !v.is_nan()) {
            let found = evaluate(function::TEMPLATE, &[&[x], &[y]])[0];
            assert_close("hypot", &[x, y], found, function(x, y));
        }
    }
}

#[test]
fn several_outputs_of_a_call() {
    #[kernel]
    fn polar(x: f64, y: f64) -> (f64, f64) {
        ((x * x + y * y).sqrt(), y.atan2(x))
    }
    #[kernel]
    fn sum(x: f64, y: f64) -> f64 {
        let (r, a) = polar(x, y);
        r + a
    }
    assert_close("sum", &[3.0, 4.0], evaluate(sum::TEMPLATE, &[&[3.0], &[4.0]])[0], sum(3.0, 4.0));
}

#[test]
fn rows_reduce() {
    use tapeflow::Row;
    #[kernel]
    fn normalised(x: Row) -> Row {
        let centered = x - x.mean();
        centered / ((centered * centered).sum() / x.len()).sqrt()
    }
    let found = evaluate(normalised::TEMPLATE, &[&[1.0, 3.0]]);
    assert_eq!(found, [-1.0, 1.0]);
}
