//! Derivatives of every registered operation, of first and second order, against central differences in f64;
//! derivatives of expressions against the scalar engine, which shares no code with the tensors; and what must be
//! refused.

mod elements;
mod operands;

use operands::{Extents, Form, floats, shape_of, tensor, values};
use tapeflow::registry::{OpCase, ops};
use tapeflow::scalar::Value;
use tapeflow::{DType, Result, Tensor, grad};

const RTOL: f64 = 1e-6;
const ATOL: f64 = 1e-8;
/// The step of differences. Their error is of order `STEP⁶`; domains keep kinks farther away than three steps.
const STEP: f64 = 1e-2;

/// A case with its operands' values: a function of the stored elements of the differentiable ones.
struct Function<'c> {
    case: &'c OpCase,
    form: Form,
    shapes: Vec<Vec<usize>>,
    stored: Vec<Vec<f64>>,
}

impl<'c> Function<'c> {
    fn new(case: &'c OpCase, form: Form, extents: Extents) -> Function<'c> {
        let shapes: Vec<_> = case.operands.iter().map(|o| shape_of(o, extents)).collect();
        let operands = case.operands.iter().zip(&shapes).enumerate();
        let draw = |(i, (o, shape)): (usize, (_, &Vec<usize>))| {
            let o: &tapeflow::registry::Operand = o;
            values(o, &form.stored(shape), o.dtype(DType::F64, DType::I64), extents, 40 + i as u64)
        };
        let stored = operands.map(draw).collect();
        Function { case, form, shapes, stored }
    }

    fn leaves(&self, stored: &[Vec<f64>]) -> Vec<Tensor> {
        let operands = self.case.operands.iter().zip(&self.shapes).zip(stored);
        operands
            .map(|((o, shape), values)| tensor(values, o.dtype(DType::F64, DType::I64), &self.form.stored(shape)))
            .collect()
    }

    fn differentiable(&self) -> Vec<usize> {
        (0..self.stored.len()).filter(|&i| self.case.operands[i].differentiable).collect()
    }

    /// A weighted sum of the results.
    fn primal(&self, leaves: &[Tensor]) -> Tensor {
        let views: Vec<Tensor> = leaves.iter().zip(&self.shapes).map(|(x, shape)| self.form.view(x, shape)).collect();
        weighted_sum(&(self.case.apply)(&views), 1.0)
    }

    fn gradients(&self, leaves: &[Tensor]) -> Result<Vec<Tensor>> {
        let wanted: Vec<&Tensor> = self.differentiable().into_iter().map(|i| &leaves[i]).collect();
        Ok(grad(&self.primal(leaves), &wanted)?)
    }

    /// A weighted sum of the gradients.
    fn slope(&self, leaves: &[Tensor]) -> Result<Tensor> {
        let gradients = self.gradients(leaves)?;
        let sums = gradients.iter().enumerate().map(|(i, g)| weighted_sum(g, 2.0 + i as f64));
        Ok(sums.reduce(|a, b| a + b).unwrap_or_else(|| Tensor::scalar(0.0)))
    }

    fn second_gradients(&self, leaves: &[Tensor]) -> Result<Vec<Tensor>> {
        let wanted: Vec<&Tensor> = self.differentiable().into_iter().map(|i| &leaves[i]).collect();
        Ok(grad(&self.slope(leaves)?, &wanted)?)
    }

    /// The derivatives of `f` by all stored elements, from six values of it each.
    fn differences(&self, f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Vec<f64>>> {
        let mut out = Vec::new();
        for operand in self.differentiable() {
            let at = |element: usize, offset: f64| -> Result<f64> {
                let mut stored = self.stored.clone();
                stored[operand][element] += offset * STEP;
                Ok(f(&self.leaves(&stored))?.item::<f64>()?)
            };
            let derivative = |element| -> Result<f64> {
                // Fornberg 1988, table 1: order of accuracy 6.
                let pair = |offset: f64| -> Result<f64> { Ok(at(element, offset)? - at(element, -offset)?) };
                Ok((45.0 * pair(1.0)? - 9.0 * pair(2.0)? + pair(3.0)?) / (60.0 * STEP))
            };
            out.push((0..self.stored[operand].len()).map(derivative).collect::<Result<Vec<f64>>>()?);
        }
        Ok(out)
    }

    /// What is wrong with gradients that should be `expected`.
    fn compare(&self, found: Result<Vec<Tensor>>, expected: Result<Vec<Vec<f64>>>) -> Option<String> {
        let what = || format!("{} of {:?} {:?}", self.case.name, self.shapes, self.form);
        let (found, expected) = match (found, expected) {
            (Ok(found), Ok(expected)) => (found, expected),
            (Err(e), _) | (_, Err(e)) => return Some(format!("{}: {e}", what())),
        };
        for ((&operand, found), expected) in self.differentiable().iter().zip(found).zip(expected) {
            let stored = self.form.stored(&self.shapes[operand]);
            if found.shape()[..] != stored[..] {
                return Some(format!("{}: gradient {operand} is {}, not {stored:?}", what(), found.shape()));
            }
            let found = match floats(&found) {
                Ok(found) => found,
                Err(e) => return Some(format!("{}: {e}", what())),
            };
            for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                if (a - b).abs() > RTOL * b.abs() + ATOL || a.is_nan() != b.is_nan() {
                    return Some(format!("{}: gradient {operand}[{i}] is {a:e}, the difference {b:e}", what()));
                }
            }
        }
        None
    }
}

/// The sum of the elements times weights between 0.5 and 1.5 that are not related to anything.
fn weighted_sum(x: &Tensor, seed: f64) -> Tensor {
    let weights = (0..x.numel()).map(|i| 1.0 + 0.5 * (1.7 * i as f64 + seed).sin()).collect::<Vec<f64>>();
    (x * Tensor::from_vec(weights, x.shape())).sum()
}

/// The functions that derivatives are checked for: every case with a differentiable operand, in all forms, and with
/// each letter of its shapes as 1 and as 0.
fn functions() -> impl Iterator<Item = Function<'static>> {
    let cases =
        ops().iter().filter(|c| c.dtypes().contains(&DType::F64) && c.operands.iter().any(|o| o.differentiable));
    cases.flat_map(|case| {
        let forms = Form::ALL.into_iter().map(|form| Function::new(case, form, Extents::Small));
        let extents = Extents::of_case(case).into_iter().filter(|e| matches!(e, Extents::With(..)));
        let forms_and_extents = extents.map(|e| Function::new(case, Form::Transposed, e));
        forms.chain(forms_and_extents).collect::<Vec<_>>()
    })
}

fn report(bad: Vec<String>) {
    assert!(bad.is_empty(), "{} wrong:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn every_registered_op_first_derivative() {
    let wrong = |f: Function<'static>| {
        let expected = f.differences(|leaves| Ok(f.primal(leaves)));
        f.compare(f.gradients(&f.leaves(&f.stored)), expected)
    };
    report(functions().filter_map(wrong).collect());
}

#[test]
fn every_registered_op_second_derivative() {
    let wrong = |f: Function<'static>| {
        let expected = f.differences(|leaves| f.slope(leaves));
        f.compare(f.second_gradients(&f.leaves(&f.stored)), expected)
    };
    report(functions().filter_map(wrong).collect());
}

/// Units in the last place of the largest element by which gradients of half precision may be off: every operation on
/// the way rounds, forward and backward.
const HALF_UNITS: f64 = 8.0;

/// Derivatives of half precision against those of f64 at the same, rounded, values.
#[test]
fn every_registered_op_in_half_precision_has_the_derivatives_of_f64() {
    let mut bad = Vec::new();
    for case in ops().iter().filter(|c| c.dtypes().contains(&DType::BF16)) {
        for (half, unit) in [(DType::F16, f64::powi(2.0, -10)), (DType::BF16, f64::powi(2.0, -7))] {
            for form in [Form::Contiguous, Form::Transposed] {
                let f = Function::new(case, form, Extents::Small);
                let stored = |dtype: DType| -> Vec<Tensor> {
                    let wide = f.leaves(&f.stored);
                    let is_float = |t: &Tensor| t.dtype().is_float();
                    wide.iter().map(|t| if is_float(t) { t.cast(half).cast(dtype) } else { t.clone() }).collect()
                };
                let gradients = |dtype: DType| -> Result<Vec<Vec<f64>>> {
                    let leaves = stored(dtype);
                    let views: Vec<Tensor> =
                        leaves.iter().zip(&f.shapes).map(|(x, shape)| form.view(x, shape)).collect();
                    let loss = weighted_sum(&(case.apply)(&views).cast(DType::F64), 1.0);
                    let wanted: Vec<&Tensor> = f.differentiable().into_iter().map(|i| &leaves[i]).collect();
                    grad(&loss, &wanted)?.iter().map(floats).collect()
                };
                let seen = || format!("{} of {half} {form:?}", case.name);
                match (gradients(half), gradients(DType::F64)) {
                    (Ok(found), Ok(expected)) => {
                        for (found, expected) in found.iter().zip(&expected) {
                            let largest = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
                            let far =
                                |(a, b): &(&f64, &f64)| (*a - *b).abs() > HALF_UNITS * unit * largest || a.is_nan();
                            let first = found.iter().zip(expected).find(far);
                            bad.extend(first.map(|(a, b)| format!("{}: {a:e}, in f64 {b:e}", seen())));
                        }
                    }
                    (Err(e), _) | (_, Err(e)) => bad.push(format!("{}: {e}", seen())),
                }
            }
        }
    }
    report(bad);
}

/// An expression, written once for tensors and once for numbers.
struct Expression {
    name: &'static str,
    tensor: fn(&[Tensor]) -> Tensor,
    value: fn(&[Value]) -> Value,
}

const EXPRESSIONS: &[Expression] = &[
    Expression {
        name: "products",
        tensor: |x| &x[0] * &x[1] * &x[2] + &x[0],
        value: |x| &x[0] * &x[1] * &x[2] + &x[0],
    },
    Expression {
        name: "shared subexpressions",
        tensor: |x| {
            let e = (&x[0] * &x[1]).exp();
            &e * &e / (&e + &x[2])
        },
        value: |x| {
            let e = (&x[0] * &x[1]).exp();
            &e * &e / (&e + &x[2])
        },
    },
    Expression {
        name: "powers and roots",
        tensor: |x| x[0].pow(&x[1]) - x[2].sqrt() * x[0].log() + x[1].powf(2.5),
        value: |x| x[0].pow(&x[1]) - x[2].sqrt() * x[0].ln() + x[1].powf(2.5),
    },
    Expression {
        name: "a small network",
        tensor: |x| {
            let h = (&x[0] * &x[1] - 0.3).tanh();
            let g = (&h - &x[2]).sigmoid() + (&h * 2.0 - &x[0]).relu();
            -(&g * &h) / 3.0
        },
        value: |x| {
            let h = (&x[0] * &x[1] - 0.3).tanh();
            let g = (&h - &x[2]).sigmoid() + (&h * 2.0 - &x[0]).relu();
            -(&g * &h) / 3.0
        },
    },
    Expression {
        name: "a softmax by hand",
        tensor: |x| {
            let joined = Tensor::stack(&[&x[0], &x[1], &x[2]], 0);
            joined.softmax(0).narrow(0, 1, 1).squeeze(0).log()
        },
        value: |x| {
            let e = x.iter().map(Value::exp).collect::<Vec<_>>();
            (&e[1] / e.iter().sum::<Value>()).ln()
        },
    },
    Expression {
        name: "a variance by hand",
        tensor: |x| Tensor::stack(&[&x[0], &x[1], &x[2]], 0).var_dim(0, 1, false),
        value: |x| {
            let mean = x.iter().sum::<Value>() / 3.0;
            x.iter().map(|x| (x - &mean) * (x - &mean)).sum::<Value>() / 2.0
        },
    },
];

#[test]
fn expressions_agree_with_the_scalar_engine() -> Result<()> {
    let points = [[0.5, 1.25, 2.0], [1.5, 0.7, 0.3], [2.2, 0.4, 1.1], [0.9, 2.0, 0.8]];
    for expression in EXPRESSIONS {
        // All points at once as tensors, one by one as numbers.
        let x: Vec<Tensor> = (0..3).map(|k| Tensor::from_vec(points.map(|p| p[k]).to_vec(), [points.len()])).collect();
        let y = (expression.tensor)(&x);
        let gradients = grad(&y.sum(), &[&x[0], &x[1], &x[2]])?;
        for (i, point) in points.iter().enumerate() {
            let v = point.map(Value::new);
            let expected = (expression.value)(&v);
            expected.backward();
            let close = |what: &str, a: f64, b: f64| {
                assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{}, {what}: {a}, as a number {b}", expression.name);
            };
            close("value", y.to_vec::<f64>()?[i], expected.data());
            for k in 0..3 {
                close(&format!("derivative by {k}"), gradients[k].to_vec::<f64>()?[i], v[k].grad());
            }
        }
    }
    Ok(())
}

#[test]
fn reading_a_result_before_its_gradient_does_not_cut_the_graph() -> Result<()> {
    let x = Tensor::from_vec(vec![0.5f64, 2.0], [2]);
    let (square, cube) = (x.square(), x.powf(3.0));
    let slope = grad(&(&square + &cube).sum(), &[&x])?.remove(0);
    let bend = grad(&slope.sum(), &[&x])?.remove(0);
    assert_eq!(square.to_vec::<f64>()?, [0.25, 4.0]);
    assert_eq!(slope.to_vec::<f64>()?, [1.75, 16.0]);
    assert_eq!(bend.to_vec::<f64>()?, [5.0, 14.0]);
    Ok(())
}

#[test]
fn a_gradient_of_a_part_is_zero_outside_whatever_else_is_read_with_it() -> Result<()> {
    let (x, y) = (Tensor::arange(8, DType::F64).reshape([4, 2]), Tensor::ones([4, 2], DType::F64));
    let part = |t: &Tensor| t.slice_step(0, 1.., 2);
    let gradients = grad(&(part(&x) * part(&y)).sum(), &[&x, &y])?;
    // Both gradients are written in two regions each, and read at once.
    let total = gradients[0].sum() + gradients[1].sum();
    assert_eq!(total.item::<f64>()?, 4.0 + 18.0);
    assert_eq!(gradients[1].to_vec::<f64>()?, [0.0, 0.0, 2.0, 3.0, 0.0, 0.0, 6.0, 7.0]);
    Ok(())
}

#[test]
fn a_cast_between_floats_carries_the_cotangent_and_one_through_integers_is_refused() -> Result<()> {
    let x = Tensor::from_vec(vec![0.5f64, -1.5], [2]);
    let y = (x.cast(DType::F32) * 3.0).cast(DType::F64).sum();
    assert_eq!(grad(&y, &[&x])?[0].to_vec::<f64>()?, [3.0, 3.0]);

    let through_integers = (&x * &x.cast(DType::I64).cast(DType::F64)).sum();
    let error = grad(&through_integers, &[&x]).unwrap_err().to_string();
    assert!(error.contains("detach"), "{error}");

    let detached = (&x * &x.detach().cast(DType::I64).cast(DType::F64)).sum();
    assert_eq!(grad(&detached, &[&x])?[0].to_vec::<f64>()?, [0.0, -1.0]);
    Ok(())
}

#[test]
fn equal_elements_share_the_gradient_of_an_extreme() -> Result<()> {
    let x = Tensor::from_vec(vec![1.0f64, 3.0, 3.0, 2.0], [4]);
    assert_eq!(grad(&x.max(), &[&x])?[0].to_vec::<f64>()?, [0.0, 0.5, 0.5, 0.0]);
    let y = Tensor::from_vec(vec![1.0f64, 2.0, 3.0, 4.0], [4]);
    let maximum = grad(&x.maximum(&y).sum(), &[&x, &y])?;
    assert_eq!(maximum[0].to_vec::<f64>()?, [0.5, 1.0, 0.5, 0.0]);
    assert_eq!(maximum[1].to_vec::<f64>()?, [0.5, 0.0, 0.5, 1.0]);
    Ok(())
}

#[test]
fn the_gradient_of_a_choice_ignores_the_other_side() -> Result<()> {
    // √x has no derivative where x < 0; the side that is not chosen must not leak its NaN.
    let x = Tensor::from_vec(vec![-1.0f64, 4.0], [2]);
    let zero = x.zeros_like();
    let y = x.gt(&zero).where_(&x.sqrt(), &zero).sum();
    let gradient = grad(&y, &[&x])?[0].to_vec::<f64>()?;
    assert_eq!(gradient[1], 0.25);
    Ok(())
}
