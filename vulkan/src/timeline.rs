//! A queue and the semaphore that counts what it has finished. Owns the call that submits; knows nothing of what is
//! submitted.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ash::vk;
use vulkano::device::{Device, DeviceOwned, Queue};
use vulkano::sync::semaphore::{Semaphore, SemaphoreCreateInfo, SemaphoreType, SemaphoreWaitInfo};
use vulkano::{Validated, VulkanError, VulkanObject};

use crate::fault::{self, Fault};

pub(crate) struct Timeline {
    queue: Arc<Queue>,
    semaphore: Semaphore,
    /// The value that the last submission signals.
    submitted: AtomicU64,
    /// A value that is known to have been reached.
    reached: AtomicU64,
}

impl Timeline {
    pub(crate) fn new(device: &Arc<Device>, queue: Arc<Queue>) -> Result<Timeline, Validated<VulkanError>> {
        let info = SemaphoreCreateInfo { semaphore_type: SemaphoreType::Timeline, ..SemaphoreCreateInfo::default() };
        let semaphore = Semaphore::new(device.clone(), info)?;
        Ok(Timeline { queue, semaphore, submitted: AtomicU64::new(0), reached: AtomicU64::new(0) })
    }

    pub(crate) fn family(&self) -> u32 {
        self.queue.queue_family_index()
    }

    /// The value of the last submission.
    pub(crate) fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Acquire) // partner: `submit`
    }

    /// Hands over a command buffer that begins when `after` has reached its value; gives the value that tells its end.
    /// The caller sees to it that nobody else submits to this timeline meanwhile.
    ///
    /// # Safety
    /// The command buffer is executable and not pending, its resources live until the value is reached, and the device
    /// is the queue's.
    pub(crate) unsafe fn submit(
        &self,
        commands: vk::CommandBuffer,
        after: Option<(&Timeline, u64)>,
    ) -> Result<u64, VulkanError> {
        if fault::strikes(Fault::Submit) {
            return Err(VulkanError::OutOfDeviceMemory);
        }
        if fault::strikes(Fault::Lost) {
            return Err(VulkanError::DeviceLost);
        }
        let value = self.submitted() + 1;
        let (commands, signals, signal_values) = ([commands], [self.semaphore.handle()], [value]);
        let (mut waits, mut wait_values, mut stages) =
            ([vk::Semaphore::null()], [0], [vk::PipelineStageFlags::empty()]);
        let mut wait_count = 0;
        if let Some((other, reached)) = after {
            (waits[0], wait_values[0]) = (other.semaphore.handle(), reached);
            stages[0] = vk::PipelineStageFlags::ALL_COMMANDS;
            wait_count = 1;
        }
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values[..wait_count])
            .signal_semaphore_values(&signal_values);
        let info = vk::SubmitInfo::default()
            .wait_semaphores(&waits[..wait_count])
            .wait_dst_stage_mask(&stages[..wait_count])
            .command_buffers(&commands)
            .signal_semaphores(&signals)
            .push_next(&mut values);
        let submit = self.queue.device().fns().v1_0.queue_submit;
        let result = self.queue.with(|_guard| {
            // SAFETY: the structures live until the call returns; `with` holds the queue's lock; the rest is the
            // caller's.
            unsafe { submit(self.queue.handle(), 1, ptr::from_ref(&info), vk::Fence::null()) }
        });
        result.result().map_err(VulkanError::from)?;
        self.submitted.store(value, Ordering::Release); // partner: `submitted`
        Ok(value)
    }

    /// Whether the value was reached when somebody last looked.
    pub(crate) fn is_known(&self, value: u64) -> bool {
        value <= self.reached.load(Ordering::Acquire) // partner: `wait`, `has_reached`
    }

    /// Whether the value has been reached.
    pub(crate) fn has_reached(&self, value: u64) -> Result<bool, VulkanError> {
        if !self.is_known(value) {
            let now = self.semaphore.counter_value().map_err(flat)?;
            self.reached.fetch_max(now, Ordering::Release); // partner: `is_known`
        }
        Ok(self.is_known(value))
    }

    /// Blocks until the value has been reached.
    pub(crate) fn wait(&self, value: u64, timeout: Duration) -> Result<(), VulkanError> {
        if self.is_known(value) {
            return Ok(());
        }
        let info = SemaphoreWaitInfo { value, ..SemaphoreWaitInfo::default() };
        self.semaphore.wait(info, Some(timeout)).map_err(flat)?;
        self.reached.fetch_max(value, Ordering::Release); // partner: `is_known`
        Ok(())
    }
}

/// A broken rule of the interface would be a bug of ours; it is reported like a failure of the driver.
pub(crate) fn flat(error: Validated<VulkanError>) -> VulkanError {
    match error {
        Validated::Error(error) => error,
        Validated::ValidationError(error) => {
            tracing::error!(target: "tapeflow::vulkan", "{error}");
            VulkanError::ValidationFailed
        }
    }
}
