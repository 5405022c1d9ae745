//! The walk of the registry on Vulkan: values in every dtype and form, first and second derivatives, all against the
//! reference device.

use std::collections::BTreeSet;

use expect_test::expect;
use tapeflow::registry::{OpCase, Operand, ops};
use tapeflow::{DType, Device, Error, Problem, Result, Tensor, grad};

use super::Vulkan;
use super::operands::{Extents, Form, floats, shape_of, tensor, values};
use super::walk::{Stored, differs, dtypes, run};

/// What a walk found.
#[derive(Default)]
struct Findings {
    checked: usize,
    wrong: Vec<String>,
    /// What has no lowering: the kernel and the reason.
    unsupported: BTreeSet<String>,
}

impl Findings {
    fn refused(&mut self, error: &Error, name: &str, seen: impl Fn() -> String) {
        match error {
            Error::Tensor(e) if matches!(e.problem(), Problem::Unsupported { .. }) => {
                let Problem::Unsupported { reason, .. } = e.problem() else { return };
                self.unsupported.insert(format!("{name}: {reason}"));
            }
            _ => self.wrong.push(format!("{}: {error}", seen())),
        }
    }

    fn compare(
        &mut self,
        on: Device,
        case: &OpCase,
        extents: Extents,
        shapes: &[Vec<usize>],
        form: impl Fn(usize) -> Form,
    ) {
        for (shared, index) in dtypes(case) {
            let stored = |(i, (o, shape)): (usize, (&Operand, &Vec<usize>))| {
                Stored::new(o, o.dtype(shared, index), extents, shape.clone(), form(i), 10 + i as u64)
            };
            let operands: Vec<Stored> = case.operands.iter().zip(shapes).enumerate().map(stored).collect();
            let seen = || {
                let all = operands.iter().map(|o| format!("{} {:?} {:?}", o.dtype, o.shape, o.form));
                format!("{} of {}", case.name, all.collect::<Vec<_>>().join(", "))
            };
            self.checked += 1;
            match on.scope(|| run(case, &operands)) {
                Ok(found) => self.wrong.extend(differs(on, case, &operands, found).map(|d| format!("{}: {d}", seen()))),
                Err(error) => self.refused(&error, &format!("{} of {shared}", case.name), seen),
            }
        }
    }

    fn report(self, unsupported: expect_test::Expect) {
        println!("{} comparisons, {} kinds without a lowering", self.checked, self.unsupported.len());
        assert!(self.wrong.is_empty(), "{} differences:\n{}", self.wrong.len(), self.wrong.join("\n"));
        let listed: Vec<String> = self.unsupported.into_iter().collect();
        unsupported.assert_eq(&listed.join("\n"));
    }
}

#[test]
fn every_registered_op_agrees_with_the_reference_in_every_form() {
    let Some(vulkan) = Vulkan::open() else { return };
    let mut findings = Findings::default();
    for case in ops() {
        let shapes: Vec<_> = case.operands.iter().map(|o| shape_of(o, Extents::Small)).collect();
        for form in Form::ALL {
            findings.compare(vulkan.device, case, Extents::Small, &shapes, |_| form);
        }
    }
    findings.report(expect![[""]]);
}

#[test]
fn every_registered_op_agrees_with_the_reference_at_every_extent() {
    let Some(vulkan) = Vulkan::open() else { return };
    let mut findings = Findings::default();
    for case in ops() {
        for extents in Extents::of_case(case) {
            let shapes: Vec<_> = case.operands.iter().map(|o| shape_of(o, extents)).collect();
            findings.compare(vulkan.device, case, extents, &shapes, |_| Form::Transposed);
        }
    }
    findings.report(expect![[""]]);
}

/// A weighted sum of the elements, with weights between 0.5 and 1.5 that are not related to anything.
fn weighted_sum(x: &Tensor, seed: f64) -> Tensor {
    let weights = (0..x.numel()).map(|i| 1.0 + 0.5 * (1.7 * i as f64 + seed).sin());
    let weights = tensor(&weights.collect::<Vec<f64>>(), x.dtype(), x.shape());
    (x * weights).sum()
}

/// The gradients of a case, and the gradients of a weighted sum of those.
fn derivatives(case: &OpCase, dtype: DType, form: Form) -> Result<Vec<Vec<f64>>> {
    let leaves = case.operands.iter().enumerate().map(|(i, o)| {
        let stored = form.stored(&shape_of(o, Extents::Small));
        let dtype = o.dtype(dtype, DType::I64);
        tensor(&values(o, &stored, dtype, Extents::Small, 40 + i as u64), dtype, &stored)
    });
    let leaves: Vec<Tensor> = leaves.collect();
    let shapes = case.operands.iter().map(|o| shape_of(o, Extents::Small));
    let views: Vec<Tensor> = leaves.iter().zip(shapes).map(|(x, shape)| form.view(x, &shape)).collect();
    let wanted: Vec<&Tensor> =
        leaves.iter().zip(&case.operands).filter(|(_, o)| o.differentiable).map(|(x, _)| x).collect();
    let first = grad(&weighted_sum(&(case.apply)(&views), 1.0), &wanted)?;
    let slope = first.iter().enumerate().map(|(i, g)| weighted_sum(g, 2.0 + i as f64)).reduce(|a, b| a + b);
    let second = slope.map_or(Ok(Vec::new()), |slope| grad(&slope, &wanted))?;
    first.iter().chain(&second).map(floats).collect()
}

#[test]
fn every_registered_op_has_the_derivatives_of_the_reference() {
    let Some(vulkan) = Vulkan::open() else { return };
    let mut findings = Findings::default();
    for case in ops().iter().filter(|c| c.operands.iter().any(|o| o.differentiable)) {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16].into_iter().filter(|d| case.dtypes().contains(d))
        {
            // Differences of f32 against values carried in f64 inside operations; of half precision, units of results
            // that rounded the other way on the way.
            let (relative, absolute) = match dtype {
                DType::F32 => (2e-4, 2e-5),
                DType::F16 => (2e-2, 2e-2),
                DType::BF16 => (1e-1, 1e-1),
                _ => (1e-9, 1e-10),
            };
            // How operands of half precision lie is a matter of values, which other walks compare.
            let forms = if dtype.is_half() { 1 } else { 2 };
            for form in [Form::Contiguous, Form::Transposed].into_iter().take(forms) {
                let seen = || format!("{} of {dtype} {form:?}", case.name);
                findings.checked += 1;
                let expected = match Device::reference().scope(|| derivatives(case, dtype, form)) {
                    Ok(expected) => expected,
                    Err(e) => {
                        findings.wrong.push(format!("{}: the reference refuses: {e}", seen()));
                        continue;
                    }
                };
                match vulkan.device.scope(|| derivatives(case, dtype, form)) {
                    Ok(found) => {
                        let pairs = found.iter().flatten().zip(expected.iter().flatten());
                        let far = |(a, b): &(&f64, &f64)| {
                            (*a - *b).abs() > relative * b.abs() + absolute || a.is_nan() != b.is_nan()
                        };
                        let first = pairs.enumerate().find(|(_, pair)| far(pair));
                        findings
                            .wrong
                            .extend(first.map(|(i, (a, b))| format!("{}: derivative {i} is {a:e}, not {b:e}", seen())));
                    }
                    Err(error) => findings.refused(&error, &format!("{} of {dtype}", case.name), seen),
                }
            }
        }
    }
    findings.report(expect![[""]]);
}
