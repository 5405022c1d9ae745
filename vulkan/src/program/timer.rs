//! When the steps of a program ran: a timestamp at its beginning and one behind each step. Owns the queries and what
//! their ticks mean; knows nothing of what a step computes.

use std::sync::Arc;

use ash::vk;
use tapeflow_core::driver::StepTime;
use vulkano::query::{QueryPool, QueryPoolCreateInfo, QueryResultFlags, QueryType};
use vulkano::{VulkanError, VulkanObject};

use crate::context::Context;
use crate::timeline::flat;

/// The timestamps of one command buffer.
pub(crate) struct Timer {
    pool: Arc<QueryPool>,
    /// The steps behind which there is one.
    steps: Vec<u32>,
    /// Bits of a timestamp that count.
    mask: u64,
    /// Nanoseconds of a tick.
    period: f64,
}

impl Timer {
    /// Queries for the ends of these steps; `None` if the queue has no timestamps.
    pub(crate) fn new(context: &Context, steps: Vec<u32>) -> Result<Option<Timer>, VulkanError> {
        let physical = context.device.physical_device();
        let family = &physical.queue_family_properties()[context.compute.family() as usize];
        let Some(bits) = family.timestamp_valid_bits.filter(|_| !steps.is_empty()) else { return Ok(None) };
        let info = QueryPoolCreateInfo {
            query_count: steps.len() as u32 + 1,
            ..QueryPoolCreateInfo::query_type(QueryType::Timestamp)
        };
        let pool = QueryPool::new(context.device.clone(), info).map_err(flat)?;
        let mask = u64::MAX >> (64 - bits.clamp(1, 64));
        Ok(Some(Timer { pool, steps, mask, period: f64::from(physical.properties().timestamp_period) }))
    }

    /// Records the first timestamp.
    ///
    /// # Safety
    /// The command buffer is being recorded, and is not run before an earlier run of it has ended.
    pub(crate) unsafe fn begin(&self, context: &Context, commands: vk::CommandBuffer) {
        let fns = &context.device.fns().v1_0;
        // SAFETY: the pool has that many queries, and none of them is in use: the caller's promise.
        unsafe { (fns.cmd_reset_query_pool)(commands, self.pool.handle(), 0, self.steps.len() as u32 + 1) };
        // SAFETY: as above.
        unsafe { self.write(context, commands, vk::PipelineStageFlags::TOP_OF_PIPE, 0) };
    }

    /// Records the timestamp of a step's end: when all that was recorded before has ended.
    ///
    /// # Safety
    /// As for `begin`.
    pub(crate) unsafe fn end(&self, context: &Context, commands: vk::CommandBuffer, step: u32) {
        if let Ok(at) = self.steps.binary_search(&step) {
            // SAFETY: the caller's promise.
            unsafe { self.write(context, commands, vk::PipelineStageFlags::BOTTOM_OF_PIPE, at as u32 + 1) };
        }
    }

    /// # Safety
    /// As for `begin`; there is such a query.
    unsafe fn write(&self, context: &Context, commands: vk::CommandBuffer, stage: vk::PipelineStageFlags, query: u32) {
        let fns = &context.device.fns().v1_0;
        // SAFETY: the caller's promise; the queue has timestamps.
        unsafe { (fns.cmd_write_timestamp)(commands, stage, self.pool.handle(), query) };
    }

    /// When the steps of the last run, which has ended, ran: one after the other, as far as timestamps tell. Steps that
    /// ran at once share their time in the order of the program.
    pub(crate) fn read(&self) -> Result<Vec<StepTime>, VulkanError> {
        let mut ticks = vec![0u64; self.steps.len() + 1];
        self.pool.get_results(0..ticks.len() as u32, &mut ticks, QueryResultFlags::WAIT).map_err(flat)?;
        let since = |tick: u64| tick.wrapping_sub(ticks[0]) & self.mask;
        let mut begin = 0;
        let times = self.steps.iter().zip(&ticks[1..]).map(|(&step, &tick)| {
            // A clock that went back, as one that is shared by processors may, says that no time passed.
            let ticks = Some(since(tick)).filter(|&t| t <= self.mask >> 1).unwrap_or(0);
            let end = ((ticks as f64 * self.period) as u64).max(begin);
            let time = StepTime { step, begin, end };
            begin = end;
            time
        });
        Ok(times.collect())
    }
}
