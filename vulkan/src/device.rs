//! `Device::vulkan`: the family's devices by number. Core names no device, so this is a trait of ours.

use tapeflow_core::{Device, Result};

use crate::driver::VULKAN;

/// Opening Vulkan devices.
pub trait VulkanDevice: Sized {
    /// Vulkan device number `index`, in the loader's order, as `tapeflow devices` lists them.
    ///
    /// # Errors
    /// There is no Vulkan loader, no driver, no such device, or it lacks what is needed; the message says what.
    ///
    /// # Example
    /// ```
    /// use tapeflow_core::{Device, Tensor};
    /// use tapeflow_vulkan::VulkanDevice;
    ///
    /// let device = Device::vulkan(0).unwrap_or(Device::cpu());
    /// let x = device.scope(|| Tensor::from_vec(vec![1.0f32, 2.0], [2]));
    /// assert_eq!((x * 2.0).to_vec::<f32>()?, [2.0, 4.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    fn vulkan(index: usize) -> Result<Self>;
}

impl VulkanDevice for Device {
    #[track_caller]
    fn vulkan(index: usize) -> Result<Device> {
        Device::open(VULKAN.name, index)
    }
}
