//! The Vulkan loader and instance of this process: opened at the first use, with the validation layer if
//! `TAPEFLOW_VALIDATE=1` asks for it. Knows no open device.

use std::sync::{Arc, Mutex, PoisonError};

use tapeflow_core::driver::DriverError;
use vulkano::device::physical::PhysicalDevice;
use vulkano::instance::debug::{
    DebugUtilsMessageSeverity, DebugUtilsMessageType, DebugUtilsMessenger, DebugUtilsMessengerCallback,
    DebugUtilsMessengerCreateInfo, ValidationFeatureEnable,
};
use vulkano::instance::{Instance, InstanceCreateFlags, InstanceCreateInfo, InstanceExtensions};
use vulkano::library::{LoadingError, VulkanLibrary};
use vulkano::{Validated, VulkanError};

use crate::counts;

const LAYER: &str = "VK_LAYER_KHRONOS_validation";

struct Loaded {
    instance: Arc<Instance>,
    /// Its callback is called while it lives.
    _messenger: Option<DebugUtilsMessenger>,
}

/// Never dropped: a driver that is unloaded while the process ends has been known to crash.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Warnings and errors of the validation layer so far.
pub fn validation_messages() -> u64 {
    counts::MESSAGES.get()
}

/// The devices in the loader's order, the same each time.
pub(crate) fn physical_devices() -> Result<Vec<Arc<PhysicalDevice>>, DriverError> {
    let instance = instance()?;
    let devices = instance.enumerate_physical_devices().map_err(|error| no_driver(&error))?;
    Ok(devices.collect())
}

fn instance() -> Result<Arc<Instance>, DriverError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = &*loaded {
        return Ok(loaded.instance.clone());
    }
    let library = VulkanLibrary::new().map_err(|error| match error {
        LoadingError::LibraryLoadFailure(_) => unavailable(
            "there is no Vulkan loader on this machine: install it (libvulkan1 on Debian and Ubuntu, vulkan-loader on \
             Fedora, vulkan-icd-loader on Arch) together with a driver",
        ),
        LoadingError::VulkanError(error) => unavailable(&format!("the Vulkan loader does not work: {error}")),
    })?;
    let is_validated = std::env::var_os("TAPEFLOW_VALIDATE").is_some_and(|v| !v.is_empty() && v != "0");
    let made = create(library, is_validated)?;
    Ok(loaded.insert(made).instance.clone())
}

fn create(library: Arc<VulkanLibrary>, is_validated: bool) -> Result<Loaded, DriverError> {
    let offered = *library.supported_extensions();
    let mut info = InstanceCreateInfo {
        flags: InstanceCreateFlags::ENUMERATE_PORTABILITY,
        application_name: Some("tapeflow".into()),
        enabled_extensions: InstanceExtensions {
            khr_portability_enumeration: offered.khr_portability_enumeration,
            ..InstanceExtensions::empty()
        },
        ..InstanceCreateInfo::default()
    };
    if is_validated {
        // An unknown layer is a panic in `Instance::new`.
        let has_layer = library.layer_properties().is_ok_and(|mut layers| layers.any(|layer| layer.name() == LAYER));
        if !has_layer {
            return Err(unavailable(&format!(
                "TAPEFLOW_VALIDATE is set, but the layer {LAYER} is not installed (vulkan-validationlayers on Debian, \
                 Ubuntu and Fedora: vulkan-validation-layers)"
            )));
        }
        info.enabled_layers.push(LAYER.into());
        info.enabled_extensions.ext_debug_utils = true;
        info.enabled_extensions.ext_validation_features = true;
        info.enabled_validation_features.push(ValidationFeatureEnable::SynchronizationValidation);
    }
    let instance = Instance::new(library, info).map_err(|error| match error {
        Validated::Error(error) => no_driver(&error),
        Validated::ValidationError(error) => unavailable(&format!("Vulkan cannot be used: {error}")),
    })?;
    let messenger = if is_validated { Some(messenger(&instance)?) } else { None };
    Ok(Loaded { instance, _messenger: messenger })
}

fn messenger(instance: &Arc<Instance>) -> Result<DebugUtilsMessenger, DriverError> {
    // SAFETY: the function calls nothing of Vulkan.
    let callback = unsafe {
        DebugUtilsMessengerCallback::new(|severity, _, data| {
            counts::MESSAGES.add(1);
            if severity.intersects(DebugUtilsMessageSeverity::ERROR) {
                tracing::error!(target: "tapeflow::vulkan", "{}", data.message);
            } else {
                tracing::warn!(target: "tapeflow::vulkan", "{}", data.message);
            }
        })
    };
    let info = DebugUtilsMessengerCreateInfo {
        message_severity: DebugUtilsMessageSeverity::ERROR | DebugUtilsMessageSeverity::WARNING,
        message_type: DebugUtilsMessageType::VALIDATION,
        ..DebugUtilsMessengerCreateInfo::user_callback(callback)
    };
    DebugUtilsMessenger::new(instance.clone(), info)
        .map_err(|error| unavailable(&format!("the validation layer cannot report: {error}")))
}

pub(crate) fn unavailable(what: &str) -> DriverError {
    DriverError::Unavailable(what.into())
}

fn no_driver(error: &VulkanError) -> DriverError {
    unavailable(&match error {
        VulkanError::IncompatibleDriver | VulkanError::InitializationFailed => {
            "there is a Vulkan loader, but no driver: install the one for this machine's GPU, or lavapipe, which runs \
             on the processor (mesa-vulkan-drivers on Debian, Ubuntu and Fedora, vulkan-swrast on Arch)"
                .into()
        }
        other => format!("Vulkan cannot be used: {other}"),
    })
}
