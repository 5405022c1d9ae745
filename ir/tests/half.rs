//! Half precision: the conversions of every bit pattern against the formats' definition, and what functions make of it.

mod common;

use common::Random;
use tapeflow_ir::half::{bf16_from_f32, bf16_to_f32, f16_from_f32, f16_to_f32, rounded};
use tapeflow_ir::{
    Binary, Builder, Column, Compare, DType, Extent, Hole, Op, Precision, Template, TemplateInput, TemplateRow, Type,
    TypeError, Unary,
};

/// The value of a pattern by the definition of IEEE 754: `mantissa` bits after the exponent's `exponent`.
fn defined(bits: u16, exponent: i32, mantissa: i32) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let field = i32::from(bits & 0x7fff);
    let (e, m) = (field >> mantissa, f64::from(field & ((1 << mantissa) - 1)) / f64::powi(2.0, mantissa));
    let bias = (1 << (exponent - 1)) - 1;
    sign * match e {
        0 => m * f64::powi(2.0, 1 - bias),
        _ if e == (1 << exponent) - 1 => {
            if m == 0.0 {
                f64::INFINITY
            } else {
                f64::NAN
            }
        }
        _ => (1.0 + m) * f64::powi(2.0, e - bias),
    }
}

struct Format {
    dtype: DType,
    exponent: i32,
    mantissa: i32,
    to: fn(u16) -> f32,
    from: fn(f32) -> u16,
}

const FORMATS: [Format; 2] = [
    Format { dtype: DType::F16, exponent: 5, mantissa: 10, to: f16_to_f32, from: f16_from_f32 },
    Format { dtype: DType::BF16, exponent: 8, mantissa: 7, to: bf16_to_f32, from: bf16_from_f32 },
];

#[test]
fn every_pattern_is_what_the_format_says_and_comes_back() {
    for format in FORMATS {
        for bits in 0..=u16::MAX {
            let (value, expected) = ((format.to)(bits), defined(bits, format.exponent, format.mantissa));
            if expected.is_nan() {
                assert!(value.is_nan(), "{bits:#x}");
                let back = (format.from)(value);
                assert!((format.to)(back).is_nan() && back >> 15 == bits >> 15, "{bits:#x}");
                assert_ne!(back & (1 << (format.mantissa - 1)), 0, "{bits:#x}: not quiet");
            } else {
                assert_eq!(f64::from(value).to_bits(), expected.to_bits(), "{} {bits:#x}", format.dtype);
                assert_eq!((format.from)(value), bits, "{} {bits:#x}", format.dtype);
            }
        }
    }
}

/// At every boundary between two neighbours: a hair below it the lower one, on it the even one, a hair above the upper.
#[test]
fn rounding_is_to_nearest_and_ties_go_to_even() {
    for format in FORMATS {
        let infinity = ((1u16 << format.exponent) - 1) << format.mantissa;
        for bits in 0..infinity {
            let low = defined(bits, format.exponent, format.mantissa);
            let high = if bits + 1 < infinity {
                defined(bits + 1, format.exponent, format.mantissa)
            } else {
                // What would follow the largest number, if there were room.
                2.0 * low - defined(bits - 1, format.exponent, format.mantissa)
            };
            let middle = ((low + high) / 2.0) as f32;
            assert_eq!(f64::from(middle), (low + high) / 2.0, "the middle is an f32");
            for sign in [0u16, 0x8000] {
                let signed = |x: f32| if sign == 0 { x } else { -x };
                let of = |x: f32| (format.from)(signed(x));
                assert_eq!(of(middle), sign | (bits + (bits & 1)), "{} {bits:#x}", format.dtype);
                assert_eq!(of(middle.next_down()), sign | bits, "{} {bits:#x}", format.dtype);
                assert_eq!(of(middle.next_up()), sign | (bits + 1), "{} {bits:#x}", format.dtype);
            }
        }
        assert_eq!((format.from)(f32::INFINITY), infinity);
        assert_eq!((format.from)(f32::MAX), infinity);
        assert_eq!((format.from)(-f32::MAX), infinity | 0x8000);
    }
}

#[test]
fn wider_numbers_go_through_f32() {
    // A hair above the tie between 1 and its neighbour: f32 rounds it to the tie, which goes to even.
    assert_eq!(rounded(DType::BF16, 1.0 + f64::powi(2.0, -8) + f64::powi(2.0, -30)), 1.0);
    assert_eq!(rounded(DType::F16, 1.0 + f64::powi(2.0, -11) + f64::powi(2.0, -40)), 1.0);
    assert_eq!(rounded(DType::F32, 0.1), f64::from(0.1f32));
    assert_eq!(rounded(DType::F64, 0.1), 0.1);
}

#[test]
fn nothing_is_computed_in_half_precision() {
    for half in [DType::F16, DType::BF16] {
        let undefined = |op: Op| {
            let mut b = Builder::new();
            let (x, y) = (b.input(Type::lane(half)), b.input(Type::lane(half)));
            assert_eq!([x.0, y.0], [0, 1]);
            let error = b.try_emit(op, half).expect_err("no arithmetic");
            assert!(matches!(error, TypeError::Undefined { dtype, .. } if dtype == half), "{op:?}: {error}");
        };
        let (x, y) = (tapeflow_ir::V(0), tapeflow_ir::V(1));
        Binary::ALL.into_iter().for_each(|op| undefined(Op::Binary(op, x, y)));
        Unary::ALL.into_iter().for_each(|op| undefined(Op::Unary(op, x)));
        undefined(Op::Compare(Compare::Lt, x, y));
        undefined(Op::MulAdd(x, y, y));
        undefined(Op::Reduce(tapeflow_ir::Reduce::Sum, x));
    }
}

const INPUT: TemplateInput = TemplateInput { name: "x", ty: Hole::Kernel, extent: Extent::Lane };

/// `x · x + 0.1`, and whether x is positive.
static SQUARE: Template = Template {
    name: "square",
    row: false,
    inputs: &[INPUT],
    rows: &[
        TemplateRow::Input(0),
        TemplateRow::Binary(Binary::Mul, 0, 0),
        TemplateRow::Float(0.1),
        TemplateRow::Binary(Binary::Add, 1, 2),
        TemplateRow::Float(0.0),
        TemplateRow::Compare(Compare::Gt, 0, 4),
    ],
    outputs: &[3, 5],
};

#[test]
fn a_kernel_computes_in_f32_and_rounds_once() {
    for half in [DType::F16, DType::BF16] {
        let function = SQUARE.instantiate(half).expect("a float").simplify();
        assert_eq!(function.verify(), Ok(()));
        assert_eq!(function.inputs, [Type::lane(half)]);
        assert_eq!([function.output_type(0).dtype, function.output_type(1).dtype], [half, DType::Bool]);
        let wide = SQUARE.instantiate(DType::F32).expect("a float");
        let mut random = Random(3);
        let x: Vec<f64> = (0..200).map(|_| rounded(half, random.between(-4.0, 4.0))).collect();
        let length = x.len();
        let narrow = function.eval(&[Column::Float(x.clone())], length, Precision::Exact);
        let expected = wide.eval(&[Column::Float(x)], length, Precision::Exact);
        let expected: Vec<f64> = expected[0].as_floats().expect("floats").iter().map(|&y| rounded(half, y)).collect();
        assert!(narrow[0].same_bits(&Column::Float(expected)));
    }
}

/// The derivative has the dtype of what it is a derivative by, and differentiates again.
#[test]
fn derivatives_of_half_functions_are_half() {
    for half in [DType::F16, DType::BF16] {
        let function = SQUARE.instantiate(half).expect("a float");
        let first = function.vjp(0, 0).expect("it depends on x");
        assert_eq!(first.verify(), Ok(()));
        assert_eq!((first.inputs.len(), first.output_type(0)), (2, Type::lane(half)));
        let at = |x: f64| Column::Float(vec![x]);
        assert_eq!(first.eval(&[at(1.5), at(1.0)], 1, Precision::Exact), [at(3.0)]);
        let second = first.vjp(0, 0).expect("2 x depends on x");
        assert_eq!(second.eval(&[at(1.5), at(1.0), at(1.0)], 1, Precision::Exact), [at(2.0)]);
    }
}

#[test]
fn rounding_is_never_simplified_away() {
    for half in [DType::F16, DType::BF16] {
        let mut b = Builder::new();
        let x = b.input(Type::lane(DType::F32));
        let narrow = b.cast(x, half);
        let back = b.cast(narrow, DType::F32);
        let again = b.cast(back, half);
        let function = b.finish(&[back, again]).simplify();
        let casts = |f: &tapeflow_ir::ScalarFn| f.values.iter().filter(|(op, _)| matches!(op, Op::Cast(_))).count();
        // There, back; the way there once more is the same value.
        assert_eq!(casts(&function), 2, "{function}");
        let outputs = function.eval(&[Column::Float(vec![1.001])], 1, Precision::Exact);
        assert_eq!(outputs[0], Column::Float(vec![rounded(half, 1.001)]));
        assert_eq!(outputs[1], outputs[0]);
        // A constant that goes there and back is a rounded constant.
        let mut b = Builder::new();
        let c = b.float(half, 0.1);
        let back = b.cast(c, DType::F32);
        let function = b.finish(&[back]).simplify();
        assert_eq!(casts(&function), 0, "{function}");
        assert_eq!(function.eval(&[], 1, Precision::Exact), [Column::Float(vec![rounded(half, 0.1)])]);
    }
}
