//! Every registered operation on the CPU against the reference device: all dtypes, forms of operands and kinds of
//! extents. And the registry against the sources: no public operation may be missing from it.

mod elements;
mod operands;
mod walk;

use operands::{Extents, Form, shape_of};
use tapeflow::registry::{OpCase, Operand, ops};
use tapeflow::{DType, Device, Result, Tensor};
use walk::{Stored, differs, dtypes, run};

/// What differs between the CPU and the reference, if anything does.
fn difference(case: &OpCase, operands: &[Stored]) -> Option<String> {
    match run(case, operands) {
        Ok(found) => differs(Device::cpu(), case, operands, found),
        Err(refused) => Some(format!("the CPU refuses: {refused}")),
    }
}

/// Tries a case in every dtype with these forms and shapes, and notes what differs.
fn compare(
    case: &OpCase,
    extents: Extents,
    shapes: &[Vec<usize>],
    form: impl Fn(usize) -> Form,
    bad: &mut Vec<String>,
) {
    for (shared, index) in dtypes(case) {
        let operands: Vec<Stored> = case
            .operands
            .iter()
            .zip(shapes)
            .enumerate()
            .map(|(i, (o, shape))| {
                Stored::new(o, o.dtype(shared, index), extents, shape.clone(), form(i), 10 + i as u64)
            })
            .collect();
        if let Some(difference) = difference(case, &operands) {
            let seen: Vec<String> =
                operands.iter().map(|o| format!("{} {:?} {:?}", o.dtype, o.shape, o.form)).collect();
            bad.push(format!("{} of {}: {difference}", case.name, seen.join(", ")));
        }
    }
}

fn report(bad: Vec<String>) {
    assert!(bad.is_empty(), "{} differences:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn every_registered_op_agrees_with_the_reference_in_every_form() {
    let mut bad = Vec::new();
    for case in ops() {
        let shapes: Vec<_> = case.operands.iter().map(|o| shape_of(o, Extents::Small)).collect();
        for form in Form::ALL {
            compare(case, Extents::Small, &shapes, |_| form, &mut bad);
        }
        if shapes.len() > 1 {
            for first in 0..Form::ALL.len() {
                compare(case, Extents::Small, &shapes, |i| Form::ALL[(first + 2 * i) % Form::ALL.len()], &mut bad);
            }
        }
    }
    report(bad);
}

#[test]
fn every_registered_op_agrees_with_the_reference_at_every_extent() {
    let mut bad = Vec::new();
    for case in ops() {
        for extents in Extents::of_case(case) {
            let shapes: Vec<_> = case.operands.iter().map(|o| shape_of(o, extents)).collect();
            for form in [Form::Contiguous, Form::Transposed, Form::Sliced] {
                compare(case, extents, &shapes, |_| form, &mut bad);
            }
        }
    }
    report(bad);
}

#[test]
fn operands_broadcast_as_the_reference_has_them() {
    let mut bad = Vec::new();
    for case in ops().iter().filter(|c| c.operands.len() > 1) {
        let shapes: Vec<_> = case.operands.iter().map(|o| shape_of(o, Extents::Small)).collect();
        for (i, operand) in case.operands.iter().enumerate().filter(|(_, o)| o.broadcasts) {
            let full = shape_of(operand, Extents::Small);
            let mut variants = vec![Vec::new(), full[1..].to_vec()];
            for axis in 0..full.len() {
                variants.push(full.clone());
                variants.last_mut().unwrap()[axis] = 1;
            }
            for variant in variants {
                let mut shapes = shapes.clone();
                shapes[i] = variant;
                compare(case, Extents::Small, &shapes, |_| Form::Contiguous, &mut bad);
                compare(case, Extents::Small, &shapes, |_| Form::Sliced, &mut bad);
            }
        }
    }
    report(bad);
}

const SPECIAL_FLOATS: [f64; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    1e-30,
    -1e-10,
    700.0,
    -700.0,
    3e5,
    2147483648.0,
    -1e19,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

fn special_integers(dtype: DType) -> Vec<f64> {
    match dtype {
        DType::Bool => vec![0.0, 1.0],
        DType::U8 => vec![0.0, 1.0, 2.0, 127.0, 200.0, 255.0],
        DType::I32 => vec![0.0, 1.0, -1.0, 7.0, f64::from(i32::MAX), f64::from(i32::MIN)],
        DType::U32 => vec![0.0, 1.0, 3.0, 65536.0, 2147483648.0, f64::from(u32::MAX)],
        // The largest is not a float; saturating casts make it.
        _ => vec![0.0, 1.0, -1.0, 4294967296.0, 9.3e18, -9.3e18],
    }
}

/// NaN, infinities, zeros of both signs, the ends of integers, in all pairs.
#[test]
fn functions_of_single_elements_agree_with_the_reference_at_special_values() {
    let mut bad = Vec::new();
    for case in ops().iter().filter(|c| c.operands.iter().all(|o| o.broadcasts)) {
        for (shared, index) in dtypes(case) {
            let stored = |(i, o): (usize, &Operand)| {
                let dtype = o.dtype(shared, index);
                let values = if dtype.is_float() { SPECIAL_FLOATS.to_vec() } else { special_integers(dtype) };
                let mut shape = vec![1; case.operands.len()];
                shape[i] = values.len();
                Stored { values, dtype, shape, form: Form::Contiguous }
            };
            let operands: Vec<Stored> = case.operands.iter().enumerate().map(stored).collect();
            if let Some(difference) = difference(case, &operands) {
                bad.push(format!("{} of {shared}: {difference}", case.name));
            }
        }
    }
    report(bad);
}

#[test]
fn other_dtypes_are_refused_with_an_error() {
    let mut bad = Vec::new();
    for case in ops().iter().filter(|c| !c.dtypes().is_empty()) {
        for dtype in DType::ALL.into_iter().filter(|d| !case.dtypes().contains(d)) {
            let stored = |(i, o): (usize, &Operand)| {
                let shape = shape_of(o, Extents::Small);
                Stored::new(o, o.dtype(dtype, DType::I64), Extents::Small, shape, Form::Contiguous, i as u64)
            };
            let operands: Vec<Stored> = case.operands.iter().enumerate().map(stored).collect();
            if run(case, &operands).is_ok() {
                bad.push(format!("{} takes {dtype}", case.name));
            }
        }
    }
    report(bad);
}

/// The arithmetic of a product is a matter of its extents alone: whether an operand is read in place or was laid out in
/// order for somebody else must not show.
#[test]
fn a_product_has_the_same_bits_however_its_operands_lie() -> Result<()> {
    let mut bad = Vec::new();
    for (m, n, k) in [(70, 1, 70), (1, 70, 70), (3, 70, 33), (1, 1, 300), (17, 16, 40), (70, 70, 70), (100, 1, 2)] {
        let generator = tapeflow::Generator::new(3);
        let forms = |x: &Tensor| -> Result<Vec<Tensor>> {
            let transposed = x.t().with_grad()?.t();
            let sliced = Tensor::stack(&[x, x], 0).with_grad()?.narrow(0, 1, 1).squeeze(0);
            let strided = Tensor::stack(&[x, x], -1).with_grad()?.narrow(-1, 1, 1).squeeze(-1);
            Ok(vec![x.clone(), transposed, sliced, strided])
        };
        let (a, b) = (generator.randn([m, k]), generator.randn([k, n]));
        Tensor::realize_all(&[&a, &b])?;
        let expected = a.matmul(&b).to_vec::<f32>()?;
        for (i, a) in forms(&a)?.iter().enumerate() {
            for (j, b) in forms(&b)?.iter().enumerate() {
                if a.matmul(b).to_vec::<f32>()? != expected {
                    bad.push(format!("({m}, {k}) × ({k}, {n}) with operands of forms {i} and {j}"));
                }
            }
        }
    }
    report(bad);
    Ok(())
}

/// Public functions in `core/src/ops` that are no operations.
const NOT_OPERATIONS: &[(&str, &str)] = &[
    ("map", "the entry point of kernels, which are operations of the user's own"),
    ("to", "it computes nothing; the tests of devices move tensors"),
];

/// The operations that the sources of `core/src/ops` declare: public methods, rows of `methods!`, operators.
fn declared() -> Vec<String> {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/core/src/ops"))];
    let mut names = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("registry.rs") || path.ends_with("registry") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                names.extend(names_in(&source));
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

fn names_in(source: &str) -> Vec<String> {
    let identifier = |text: &str| {
        let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        (!name.is_empty()).then_some(name)
    };
    let (mut names, mut block) = (Vec::new(), "");
    for line in source.lines() {
        if !line.starts_with(' ') && line.ends_with('{') {
            block = line;
        }
        let text = line.trim_start();
        let method = block.starts_with("impl Tensor") && line.starts_with("    pub fn ");
        let function = line.starts_with("pub fn ");
        if method || function {
            names.extend(identifier(&text["pub fn ".len()..]));
        } else if block.starts_with("methods!") && text.contains(") = ") {
            names.extend(identifier(text));
        } else if let Some(rest) = line.strip_prefix("operator!(") {
            names.extend(rest.split(',').nth(1).and_then(|m| identifier(m.trim())));
        } else if line.starts_with("impl Neg for Tensor") {
            names.push("neg".into());
        }
    }
    names
}

#[test]
fn no_public_operation_is_missing_from_the_registry() {
    let declared = declared();
    // The scan itself: one of each kind of declaration.
    for name in ["softmax", "causal_attention", "tanh", "rem", "neg", "cat"] {
        assert!(declared.iter().any(|d| d == name), "the scan does not find `{name}` in {declared:?}");
    }
    let registered = |name: &str| ops().iter().any(|c| c.op == name);
    let excepted = |name: &str| NOT_OPERATIONS.iter().any(|(n, _)| *n == name);
    let missing: Vec<&String> = declared.iter().filter(|n| !registered(n) && !excepted(n)).collect();
    assert!(missing.is_empty(), "without a case in `core/src/ops/registry`: {missing:?}");
    let unknown: Vec<&str> = ops().iter().map(|c| c.op).filter(|op| !declared.iter().any(|d| d == op)).collect();
    assert!(unknown.is_empty(), "registered, but no operation: {unknown:?}");
}
