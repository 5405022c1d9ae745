//! Random graphs on Vulkan: the reference agrees, and fused and unfused programs give the same bits.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tapeflow::{DType, Device, without_fusion};

use super::Vulkan;
use super::graphs::{Graph, config, graphs, ok, same_bits};

fn near(vulkan: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64) -> Result<(), TestCaseError> {
    for (k, (a, b)) in vulkan.iter().zip(expected).enumerate() {
        prop_assert_eq!(a.len(), b.len());
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            let near = (x - y).abs() <= tolerance * (1.0 + y.abs()) || (x.is_nan() && y.is_nan()) || x == y;
            prop_assert!(near, "result {}[{}] is {:e}, not {:e}", k, i, x, y);
        }
    }
    Ok(())
}

fn check(cases: u32, dtype: DType, test: impl Fn(&Graph) -> Result<(), TestCaseError>) {
    let checked = TestRunner::new(config(cases)).run(&graphs(dtype), |graph| test(&graph));
    if let Err(error) = checked {
        panic!("{error}");
    }
}

#[test]
fn the_reference_agrees() {
    let Some(vulkan) = Vulkan::open() else { return };
    check(40, DType::F64, |graph| {
        let found = ok(vulkan.device.scope(|| graph.run(true)))?;
        near(&found, &ok(Device::reference().scope(|| graph.run(true)))?, 1e-9)
    });
}

/// Within some units of the dtype: what rounds the other way is not blown up.
#[test]
fn the_reference_agrees_in_half_precision() {
    let Some(vulkan) = Vulkan::open() else { return };
    for (dtype, unit) in [(DType::F16, f64::powi(2.0, -10)), (DType::BF16, f64::powi(2.0, -7))] {
        check(25, dtype, |graph| {
            let found = ok(vulkan.device.scope(|| graph.run(true)))?;
            near(&found, &ok(Device::reference().scope(|| graph.run(true)))?, 16.0 * unit)
        });
    }
}

#[test]
fn fused_and_unfused_programs_give_the_same_bits() {
    let Some(vulkan) = Vulkan::open() else { return };
    for dtype in [DType::F16, DType::BF16] {
        check(15, dtype, |graph| {
            let fused = ok(vulkan.device.scope(|| graph.run(true)))?;
            same_bits("fused and unfused", &fused, &ok(vulkan.device.scope(|| without_fusion(|| graph.run(true))))?)
        });
    }
    check(40, DType::F32, |graph| {
        let fused = ok(vulkan.device.scope(|| graph.run(true)))?;
        same_bits("fused and unfused", &fused, &ok(vulkan.device.scope(|| without_fusion(|| graph.run(true))))?)?;
        same_bits("once and twice", &fused, &ok(vulkan.device.scope(|| graph.run(true)))?)
    });
}
