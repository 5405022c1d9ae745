//! A case of the registry on a device and on the reference, and what differs. Owns no test.

use tapeflow::registry::{Accuracy, Class, OpCase, Operand};
use tapeflow::{DType, Device, Result, Tensor, bf16, f16};

use super::operands::{Extents, Form, floats, tensor, values};

/// One operand as it lies in memory.
pub struct Stored {
    pub values: Vec<f64>,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub form: Form,
}

impl Stored {
    pub fn new(operand: &Operand, dtype: DType, extents: Extents, shape: Vec<usize>, form: Form, seed: u64) -> Stored {
        let values = values(operand, &form.stored(&shape), dtype, extents, seed);
        Stored { values, dtype, shape, form }
    }

    pub fn tensor(&self) -> Tensor {
        self.form.view(&tensor(&self.values, self.dtype, &self.form.stored(&self.shape)), &self.shape)
    }
}

/// What an operation gave: floats as numbers, everything else as bytes.
#[derive(PartialEq, Debug)]
pub enum Elements {
    Floats(Vec<f64>),
    Bytes(Vec<u8>),
}

/// A result's dtype, shape and elements.
pub type Found = (DType, Vec<usize>, Elements);

/// The case on this thread's device.
pub fn run(case: &OpCase, operands: &[Stored]) -> Result<Found> {
    let out = (case.apply)(&operands.iter().map(Stored::tensor).collect::<Vec<_>>());
    let elements = match out.dtype().is_float() {
        true => Elements::Floats(floats(&out)?),
        false => Elements::Bytes(out.with_bytes(<[u8]>::to_vec)?),
    };
    Ok((out.dtype(), out.shape().to_vec(), elements))
}

/// What differs between what a device found and the reference.
pub fn differs(on: Device, case: &OpCase, operands: &[Stored], found: Found) -> Option<String> {
    let reference = match Device::reference().scope(|| run(case, operands)) {
        Ok(reference) => reference,
        Err(refused) => return Some(format!("the reference refuses: {refused}")),
    };
    if (found.0, &found.1) != (reference.0, &reference.1) {
        let (ours, theirs) = (&found.1, &reference.1);
        return Some(format!("{} {ours:?} on {on}, {} {theirs:?} on the reference", found.0, reference.0));
    }
    match (found.2, reference.2) {
        (Elements::Floats(ours), Elements::Floats(theirs)) => {
            let count = found.1.iter().product::<usize>();
            if ours.len() != count || theirs.len() != count {
                return Some(format!("{} and {} elements for the shape {:?}", ours.len(), theirs.len(), found.1));
            }
            // As many terms go into each sum as there are elements for each result.
            let largest = operands.iter().map(|o| o.shape.iter().product()).max().unwrap_or(0);
            let terms = (largest / count.max(1)).max(16) as f64;
            let wrong = |(i, (&a, &b)): (usize, (&f64, &f64))| {
                let near = agrees(case.accuracy, found.0, terms, a, b);
                (!near).then(|| format!("element {i} is {a:e}, of the reference {b:e}"))
            };
            ours.iter().zip(&theirs).enumerate().find_map(wrong)
        }
        (Elements::Bytes(ours), Elements::Bytes(theirs)) => {
            (ours != theirs).then(|| format!("{ours:?}, of the reference {theirs:?}"))
        }
        _ => None,
    }
}

pub fn agrees(accuracy: Accuracy, dtype: DType, terms: f64, a: f64, b: f64) -> bool {
    if a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (epsilon, least) = match dtype {
        DType::F32 => (f64::from(f32::EPSILON), f64::from(f32::MIN_POSITIVE)),
        // What rounds the other way is one unit off; below the least normal f16 a unit is 2⁻²⁴.
        DType::F16 => (f64::from(f16::EPSILON), f64::powi(2.0, -24)),
        DType::BF16 => (f64::from(bf16::EPSILON), f64::from(bf16::MIN_POSITIVE)),
        _ => (f64::EPSILON, f64::MIN_POSITIVE),
    };
    match accuracy {
        Accuracy::Exact => false,
        Accuracy::Ulps(n) => (a - b).abs() <= n.max(1.0) * epsilon * b.abs() + least,
        Accuracy::Sums(n) => (a - b).abs() <= n * epsilon * (b.abs() + terms),
    }
}

/// The dtypes to try a case with: those that its operands share, and those of indices.
pub fn dtypes(case: &OpCase) -> Vec<(DType, DType)> {
    let shared = case.dtypes();
    let shared = if shared.is_empty() { vec![DType::Bool] } else { shared };
    let mut all: Vec<_> = shared.into_iter().map(|d| (d, DType::I64)).collect();
    if case.operands.iter().any(|o| matches!(o.class, Class::Index(_))) {
        all.extend([(DType::F32, DType::I32), (DType::F32, DType::U32)]);
    }
    all
}
