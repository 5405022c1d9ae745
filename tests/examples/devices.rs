//! The examples on other devices, and what they say of one that is not there.

use std::io::Write;

use super::*;

/// Whether the first Vulkan device can be had; if not, that is said past the test harness, so that it is counted.
fn has_vulkan() -> bool {
    let device = tapeflow::Device::open("vulkan", 0);
    if let Err(why) = &device {
        let _ = writeln!(std::io::stdout().lock(), "skipped: no Vulkan device ({})", why.problem());
    }
    device.is_ok()
}

#[test]
fn xor_is_learned_on_vulkan() {
    if has_vulkan() {
        let said = succeeded(&example("xor").args(["--device", "vulkan"]).output().unwrap()).to_owned();
        assert_eq!(said.matches("1 xor 0 =  1.0").count(), 2, "{said}");
    }
}

#[test]
fn a_run_on_vulkan_ends_where_the_cpu_does() {
    if !has_vulkan() {
        return;
    }
    let folder = Folder::new("vulkan");
    let loss = |device: &str| -> f64 {
        let words = ["--config", "tiny", "--steps", "60", "--tokens", "8", "--device", device, "--out", device];
        succeeded(&folder.gpt(&words));
        let metrics = folder.read(&format!("{device}/metrics.jsonl"));
        let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        last["val_loss"].as_f64().unwrap()
    };
    let (cpu, vulkan) = (loss("cpu"), loss("vulkan:0"));
    assert!((cpu - vulkan).abs() < 0.02, "{vulkan} on Vulkan, {cpu} on the CPU");
}

#[test]
fn a_device_that_is_not_there_is_one_clear_line() {
    let folder = Folder::new("nowhere");
    refused(&folder.gpt(&["--device", "abacus"]), 2, &["abacus", "known are cpu, reference, best, vulkan, vulkan:1"]);
    // No driver is the same as a manifest that is not there.
    let mut without = example("gpt");
    without.args(["--device", "vulkan"]).current_dir(&folder.0);
    without.env("VK_ICD_FILENAMES", "nowhere.json").env("VK_DRIVER_FILES", "nowhere.json");
    refused(&without.output().unwrap(), 2, &["vulkan"]);
    let mut on_the_cpu = example("gpt");
    on_the_cpu.args(["--device", "best", "--config", "tiny", "--steps", "2", "--tokens", "4"]).current_dir(&folder.0);
    on_the_cpu.env("VK_ICD_FILENAMES", "nowhere.json").env("VK_DRIVER_FILES", "nowhere.json");
    succeeded(&on_the_cpu.output().unwrap());
}
