//! Profiles of Vulkan programs: every step with the device's own times, and the same bits.

use std::collections::BTreeSet;

use serde_json::Value;
use tapeflow::prelude::*;
use tapeflow::{Result, profile};

use super::Vulkan;

fn train() -> Result<Vec<u32>> {
    let generator = Generator::new(7);
    let model = Mlp::new(&[20, 33, 33, 5], Tensor::gelu, &generator)?;
    let inputs = generator.randn([17, 20]);
    let targets = Tensor::from_vec((0..17).map(|i| i % 5).collect::<Vec<i64>>(), [17]);
    let mut optimizer = Adam::new(&model).learning_rate(1e-2);
    let mut losses = Vec::new();
    for _ in 0..5 {
        let loss = model.forward(&inputs).cross_entropy(&targets);
        optimizer.step(loss.backward()?)?;
        losses.push(loss.item::<f32>()?.to_bits());
    }
    Ok(losses)
}

#[test]
fn steps_are_timed_by_the_device() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    let device = vulkan.device;
    let plain = device.scope(train)?;
    let (recorded, taken) = profile(|| device.scope(train));
    assert_eq!(plain, recorded?);
    assert_eq!(plain, device.scope(train)?);

    let kernels = taken.kernels();
    let product = kernels.iter().find(|k| k.name == "matmul" && k.flops == 2 * 17 * 33 * 20).expect("the first layer");
    assert_eq!((product.device, product.calls), (device, 5));
    assert!(product.total.as_nanos() > 0, "{product:?}");

    let mut json = Vec::new();
    taken.write_json(&mut json).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let name = device.to_string();
    let is_track = |e: &&Value| e["name"] == "thread_name" && e["args"]["name"] == name.as_str();
    let track = events.iter().find(is_track).expect("a track of the device");
    let mine = |category: &str| -> Vec<&Value> {
        let on_track = |e: &&Value| e["pid"] == track["pid"] && e["tid"] == track["tid"];
        events.iter().filter(on_track).filter(|e| e["cat"] == category).collect()
    };
    let (runs, steps) = (mine("run"), mine("step"));
    let span = |e: &Value| (e["ts"].as_f64().unwrap(), e["ts"].as_f64().unwrap() + e["dur"].as_f64().unwrap());
    // One device does one thing after the other; nanoseconds are written in thousandths of a microsecond.
    for pair in runs.windows(2).chain(steps.windows(2)) {
        assert!(span(pair[0]).1 <= span(pair[1]).0 + 1e-3, "{pair:?}");
    }
    for step in &steps {
        let holds = |run: &&&Value| span(run).0 <= span(step).0 + 1e-3 && span(step).1 <= span(run).1 + 1e-3;
        assert!(runs.iter().any(|run| holds(&run)), "{step}");
    }
    let names: BTreeSet<&str> = steps.iter().filter_map(|e| e["name"].as_str()).collect();
    for kernel in kernels.iter().filter(|k| k.device == device) {
        assert!(names.contains(kernel.name.as_str()), "{kernel:?}");
    }
    assert!(events.iter().any(|e| e["cat"] == "phase" && e["name"] == "wait for the device"));
    Ok(())
}

#[test]
fn programs_over_both_devices_are_on_both_tracks() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    let x = Tensor::from_vec(vec![0.5f32; 64], [64]);
    let (out, taken) = profile(|| ((x.exp().to(vulkan.device) * 2.0).to(Device::cpu()) + 1.0).to_vec::<f32>());
    out?;
    let kernels = taken.kernels();
    let on = |device: Device| kernels.iter().filter(|k| k.device == device).map(|k| k.calls).sum::<u64>();
    assert!(on(vulkan.device) >= 1 && on(Device::cpu()) >= 2, "{kernels:?}");
    Ok(())
}
