//! What is said of a device before it is opened: its type, memory and properties, and what it lacks. Opens none.

use tapeflow_core::driver::{DeviceInfo, DeviceType, DriverError};
use vulkano::Version;
use vulkano::device::DeviceFeatures;
use vulkano::device::physical::{PhysicalDevice, PhysicalDeviceType};

use crate::instance;
use crate::memory::kinds;

/// The devices there are.
pub(crate) fn list() -> Result<Vec<DeviceInfo>, DriverError> {
    let devices = instance::physical_devices()?;
    Ok(devices.iter().enumerate().map(|(index, physical)| describe(index, physical)).collect())
}

/// What every device must offer, by the names of the specification.
pub(crate) fn missing(physical: &PhysicalDevice) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if physical.api_version() < Version::V1_2 {
        missing.push("Vulkan 1.2");
    }
    let DeviceFeatures { buffer_device_address, timeline_semaphore, shader_int64, .. } = *physical.supported_features();
    let needed = [
        ("bufferDeviceAddress", buffer_device_address),
        ("timelineSemaphore", timeline_semaphore),
        ("shaderInt64", shader_int64),
    ];
    missing.extend(needed.iter().filter(|(_, has)| !has).map(|(name, _)| *name));
    missing
}

/// Whether there is an extension of this name, known to vulkano or not.
fn has_extension(physical: &PhysicalDevice, name: &str) -> bool {
    physical.extension_properties().iter().any(|e| e.extension_name == name)
}

fn describe(index: usize, physical: &PhysicalDevice) -> DeviceInfo {
    let (properties, features) = (physical.properties(), physical.supported_features());
    let yes = |has: bool| if has { "yes" } else { "no" }.to_string();
    let driver = [&properties.driver_name, &properties.driver_info].map(|part| part.as_deref().unwrap_or(""));
    let subgroup = properties.subgroup_size.map_or("unknown".into(), |s| s.to_string());
    let has_bytes = features.storage_buffer8_bit_access && features.shader_int8;
    let mut list = vec![
        ("driver", driver.join(" ").trim().to_string()),
        ("Vulkan", physical.api_version().to_string()),
        ("subgroup size", subgroup),
        ("shared memory", properties.max_compute_shared_memory_size.to_string()),
        ("f16 and bf16 storage", yes(features.storage_buffer16_bit_access)),
        ("f16 arithmetic", yes(features.shader_float16)),
        ("bf16 arithmetic", yes(has_extension(physical, "VK_KHR_shader_bfloat16"))),
        ("f64", yes(features.shader_float64)),
        ("8-bit storage", yes(has_bytes)),
        ("cooperative matrix", yes(has_extension(physical, "VK_KHR_cooperative_matrix"))),
    ];
    let missing = missing(physical);
    if !missing.is_empty() {
        list.push(("cannot be used, lacks", missing.join(", ")));
    }
    DeviceInfo {
        index,
        name: properties.device_name.clone(),
        device_type: match properties.device_type {
            PhysicalDeviceType::DiscreteGpu => DeviceType::Discrete,
            PhysicalDeviceType::IntegratedGpu => DeviceType::Integrated,
            PhysicalDeviceType::VirtualGpu => DeviceType::Virtual,
            PhysicalDeviceType::Cpu => DeviceType::Cpu,
            _ => DeviceType::Other,
        },
        memory: kinds::own_bytes(physical),
        properties: list,
    }
}
