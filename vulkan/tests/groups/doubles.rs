//! Transcendental functions of f64 against the mathematics library, by their relative errors.

use tapeflow_core::driver::Kernel;
use tapeflow_ir::{Binary, Builder, DType, Type, Unary};

use super::functions::inputs;
use super::{Buffer, Rng, elementwise, run_for, run_on_cpu, targets};

#[test]
fn functions_of_f64() {
    let Some(target) = targets().into_iter().next() else { return };
    let mut rng = Rng(36);
    let mut values: Vec<f64> = inputs(&mut rng).into_iter().take(4000).map(f64::from).collect();
    values
        .extend([5e-324, -1e-310, 1e-300, 1e300, -1e300, 709.7, 709.8, -745.2, -708.5, 1023.9, 1024.0, -1074.5, 1e15]);
    values.extend((0..3000).map(|_| f64::from_bits(rng.word())));
    values.extend((0..3000).map(|_| rng.float(false) * 100.0 + rng.float(false) * 1e-9));
    let n = values.len();
    let bytes = |values: &[f64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut rotated = values.clone();
    rotated.rotate_left(4003);
    let buffers = [bytes(&values), bytes(&rotated), vec![0; 8 * n]].map(|bytes| Buffer { dtype: DType::F64, bytes });
    let worst = |kernel: &Kernel, skip: &dyn Fn(f64) -> bool| -> (f64, usize) {
        let Some(device) = run_for(&target, kernel, &buffers, &[]) else { return (0.0, 0) };
        let cpu = run_on_cpu(kernel, &buffers, &[]);
        let at = |buffers: &[Buffer], i: usize| {
            f64::from_le_bytes(std::array::from_fn(|byte| buffers[2].bytes[8 * i + byte]))
        };
        let error = |i: usize| match (at(&device, i), at(&cpu, i)) {
            _ if skip(values[i]) => 0.0,
            (a, b) if a.is_nan() && b.is_nan() || a == b && a.signum() == b.signum() => 0.0,
            (a, b) if b.is_finite() => (a - b).abs() / b.abs().max(1e-307),
            _ => f64::INFINITY,
        };
        (0..n)
            .map(|i| (if error(i).is_nan() { f64::INFINITY } else { error(i) }, i))
            .fold((0.0, 0), |a, b| if b.0 > a.0 { b } else { a })
    };
    let mut failures = Vec::new();
    for op in Unary::ALL.into_iter().filter(|op| op.defined_for(DType::F64)) {
        let mut b = Builder::new();
        let (x, _) = (b.input(Type::lane(DType::F64)), b.input(Type::lane(DType::F64)));
        let y = b.unary(op, x);
        let kernel = Kernel::Group(elementwise(&[n], b.finish(&[y])));
        let circular = matches!(op, Unary::Sin | Unary::Cos | Unary::Tan);
        let (error, at) = worst(&kernel, &|x| circular && x.abs() > 1e15);
        if error > 3e-15 {
            failures.push(format!("{op} of {:e}: {error:e}", values[at]));
        }
    }
    for op in [Binary::Pow, Binary::Atan2] {
        let mut b = Builder::new();
        let (x, y) = (b.input(Type::lane(DType::F64)), b.input(Type::lane(DType::F64)));
        let z = b.binary(op, x, y);
        let (error, at) = worst(&Kernel::Group(elementwise(&[n], b.finish(&[z]))), &|_| false);
        if error > if op == Binary::Pow { 3e-13 } else { 3e-15 } {
            failures.push(format!("{op} of {:e}, {:e}: {error:e}", values[at], rotated[at]));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
