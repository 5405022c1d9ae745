//! Programs over the CPU and Vulkan: values and cotangents cross, errors change nothing.

use expect_test::expect;
use tapeflow::__test::dumped;
use tapeflow::prelude::*;
use tapeflow::vulkan::counts;
use tapeflow::{Result, grad};

use super::Vulkan;

fn data(n: usize, seed: f64) -> Vec<f32> {
    (0..n).map(|i| (i as f64 * 0.37 + seed).sin() as f32).collect()
}

#[test]
fn values_and_cotangents_cross_between_devices() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    let compute = |there: Device| -> Result<Vec<Vec<f32>>> {
        let x = Tensor::from_vec(data(12, 0.0), [3, 4]).with_grad()?;
        let w = there.scope(|| Tensor::from_vec(data(20, 1.0), [4, 5]).with_grad())?;
        let beside = (&x * 2.0).tanh();
        let y = x.to(there).matmul(&w).relu();
        let back = y.to(x.device()) + beside.sum();
        let loss = (back.to(there).square().sum().to(x.device()) + back.sum()) * 0.1;
        let gradients = grad(&loss, &[&x, &w])?;
        Ok(vec![loss.to_vec()?, gradients[0].to_vec()?, gradients[1].to_vec()?, beside.to_vec()?])
    };
    let (ours, cpu) = (compute(vulkan.device)?, compute(Device::cpu())?);
    for (a, b) in ours.iter().flatten().zip(cpu.iter().flatten()) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} is not {b}");
    }
    Ok(())
}

#[test]
fn each_segment_is_one_submission() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    let run = || -> Result<Vec<f32>> {
        let x = Tensor::from_vec(data(6, 0.0), [6]);
        let there = ((x.to(vulkan.device) * 2.0).exp() + 1.0).sum();
        let again = (there.to(x.device()) * &x).to(vulkan.device).square().sum();
        Ok(again.to(x.device()).to_vec()?)
    };
    run()?;
    let before = counts();
    run()?;
    let after = counts();
    assert_eq!(after.submits - before.submits, 2);
    assert_eq!((after.pipelines, after.recorded, after.bytes), (before.pipelines, before.recorded, before.bytes));
    Ok(())
}

#[test]
fn what_does_not_wait_for_each_other_runs_at_once() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    let (done, dump) = dumped(|| -> Result<()> {
        let x = Tensor::from_vec(data(6, 0.0), [2, 3]);
        let there = vulkan.device.scope(|| Tensor::from_vec(data(6, 1.0), [3, 2]));
        let (here, there) = (x.matmul(&x.t()), there.matmul(&there.t()));
        Tensor::realize_all(&[&(here.sum() + there.to(x.device()).sum())])?;
        Ok(())
    });
    done?;
    let place = &dump[dump.find("== place").unwrap_or_default()..];
    let place = &place[..place[3..].find("== ").map_or(place.len(), |end| end + 3)];
    expect![[r#"
        == place
        level 0: cpu computes %2 %3
        level 0: vulkan:0 computes %6
        after level 0: %6 is copied to %7
        level 1: cpu computes %8 %9
    "#]]
    .assert_eq(place);
    Ok(())
}

#[test]
fn operands_on_two_devices_are_a_mistake() {
    let Some(vulkan) = Vulkan::open() else { return };
    let here = Tensor::from_vec(vec![1.0f32], [1]);
    let there = vulkan.device.scope(|| Tensor::from_vec(vec![1.0f32], [1]));
    let error = (here + there).to_vec::<f32>().unwrap_err().to_string();
    assert!(error.contains("cpu and vulkan:0: move one of them with `to`"), "{error}");
}

#[test]
fn a_failed_check_anywhere_leaves_all_parameters_as_they_were() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    vulkan.device.scope(|| {
        let model = super::training::gpt(1, 0.0)?;
        let mut optimizer = AdamW::new(&model).learning_rate(1e-2);
        super::training::gpt_step(&model, &mut optimizer, 0)?;
        let state = || -> Result<Vec<Vec<f32>>> {
            model.parameters().iter().map(|p| Ok(p.tensor().to_vec::<f32>()?)).collect()
        };
        let before = state()?;
        let bad = Tensor::from_vec(vec![3i64; 15].into_iter().chain([19]).collect::<Vec<_>>(), [1, 16]);
        let good = Tensor::from_vec(vec![2i64; 16], [1, 16]);
        for (inputs, targets) in [(&bad, &good), (&good, &bad)] {
            let loss = model.loss(inputs, targets);
            let error = loss.backward().map_err(tapeflow::Error::from).and_then(|g| optimizer.step(g)).unwrap_err();
            assert!(error.to_string().contains("index 19 is out of range for an axis of 19"), "{error}");
            assert_eq!(state()?, before);
        }
        super::training::gpt_step(&model, &mut optimizer, 1)?;
        assert_ne!(state()?, before);
        Ok(())
    })
}
