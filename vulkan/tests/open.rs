//! Finding and opening devices, and what is said where that cannot be done. What depends on the environment of the
//! process runs in a process of its own.

#[path = "support/shaders.rs"]
#[allow(dead_code)]
mod shaders;
mod support;

use std::sync::Arc;

use shaders::{Body, kernel};
use support::{driver, rerun};
use tapeflow_core::driver::{DriverError, FAMILIES};
use tapeflow_vulkan::stage::Shader;
use tapeflow_vulkan::{Driver, Options, VULKAN, validation_messages};

#[test]
fn the_family_is_registered_and_lists_devices() {
    assert!(FAMILIES.iter().any(|family| family.name == "vulkan"));
    let Some(_) = driver() else { return };
    let devices = (VULKAN.list)().unwrap();
    assert!(!devices.is_empty());
    for (i, device) in devices.iter().enumerate() {
        assert_eq!(device.index, i);
        assert!(!device.name.is_empty() && device.memory > 0, "{device:?}");
        assert!(device.properties.iter().any(|(what, value)| *what == "subgroup size" && value != "unknown"));
    }
    let error = (VULKAN.open)(devices.len()).unwrap_err();
    assert!(matches!(&error, DriverError::Unavailable(why) if why.contains("there is no Vulkan device")), "{error}");
    assert!(!error.to_string().contains('\n'));
    assert!((VULKAN.open)(0).unwrap().lost().is_none());
}

/// A test of this file, by name, in a process with these variables.
fn in_process(test: &str, environment: &[(&str, &str)]) {
    let arguments = ["--exact", test].map(String::from);
    let (is_right, said) = rerun(arguments, environment);
    assert!(is_right && said.contains("1 passed"), "{said}");
}

/// Whether this process was started for one test; in any other those tests have nothing to do.
fn is_child() -> bool {
    std::env::var_os(support::CHILD).is_some()
}

fn refusal() -> String {
    let opened = Driver::open(0, &Options::default()).map(|_| ()).unwrap_err();
    let listed = (VULKAN.list)().map(|_| ()).unwrap_err();
    assert_eq!(opened, listed);
    let DriverError::Unavailable(why) = opened else { panic!("{opened}") };
    assert!(!why.contains('\n'), "{why}");
    why
}

#[test]
fn a_machine_without_a_driver_is_told_what_to_install() {
    let Some(_) = driver() else { return };
    let nowhere = [("VK_ICD_FILENAMES", "/nowhere.json"), ("VK_DRIVER_FILES", "/nowhere.json")];
    in_process("child_without_a_driver", &nowhere);
}

#[test]
fn child_without_a_driver() {
    if !is_child() {
        return;
    }
    let why = refusal();
    assert!(why.contains("no driver") && why.contains("mesa-vulkan-drivers"), "{why}");
}

#[test]
fn a_missing_validation_layer_is_an_error() {
    let Some(_) = driver() else { return };
    in_process("child_without_the_layer", &[("TAPEFLOW_VALIDATE", "1"), ("VK_LAYER_PATH", "/nowhere")]);
}

#[test]
fn child_without_the_layer() {
    if !is_child() {
        return;
    }
    let why = refusal();
    assert!(why.contains("VK_LAYER_KHRONOS_validation is not installed"), "{why}");
}

/// Otherwise the tests that count no messages would prove nothing.
#[test]
fn the_validation_layer_reports() {
    let Some(_) = driver() else { return };
    in_process("child_that_breaks_a_rule", &[("TAPEFLOW_VALIDATE", "1")]);
}

#[test]
fn child_that_breaks_a_rule() {
    if !is_child() {
        return;
    }
    let driver = match Driver::open(0, &Options::default()) {
        Ok(driver) => driver,
        Err(error) if error.to_string().contains("is not installed") => {
            return println!("skipped: no validation layer");
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(validation_messages(), 0);
    // A capability whose feature was not asked for: SampleRateShading, right after the header.
    let mut lowering = kernel(Body::Affine { factor: 3 }, 1);
    let mut words = lowering.stages[0].shader.words.clone();
    words.splice(5..5, [2 << 16 | 17, 35]);
    lowering.stages[0].shader = Arc::new(Shader { words, constants: Vec::new() });
    driver.compile(lowering, 0).unwrap();
    assert!(validation_messages() > 0);
}
