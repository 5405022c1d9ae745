//! Programs recorded into command buffers, each with a parameter block of its own. Owns the two slots that let a second
//! run start while the first is in flight; knows nothing of queues.

use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ash::vk;
use tapeflow_core::driver::{DriverError, Fault, Place, Plan, RunError, StepTime};
use vulkano::command_buffer::pool::{CommandPool, CommandPoolAlloc};
use vulkano::{VulkanError, VulkanObject};

use super::layout::{Command, Layout};
use super::timer::Timer;
use crate::context::Context;
use crate::counts;
use crate::memory::Range;
use crate::pipeline::Pipeline;
use crate::stage::Push;
use crate::timeline::flat;
use crate::transfer;

/// Runs of one program that may be in flight.
pub(crate) const SLOTS: usize = 2;

/// A recorded program.
pub(crate) struct Program {
    pub context: Arc<Context>,
    pub layout: Layout,
    slots: Mutex<Slots>,
}

struct Slots {
    /// Taken when the program ends.
    pool: Option<CommandPool>,
    slots: Vec<Slot>,
}

/// What one run needs for itself.
pub(crate) struct Slot {
    commands: CommandPoolAlloc,
    /// The parameter block and the status block where the host reaches them.
    host: Range,
    /// The same where the device does, if that is another place.
    device: Option<Range>,
    /// Notes when steps run. Such slots are recorded when a timed run asks for them.
    timer: Option<Timer>,
    is_timed: bool,
    /// Of a run that has not been waited for.
    is_busy: bool,
    /// The addresses in the block: arena, inputs, outputs.
    bound: Vec<u64>,
}

impl Program {
    pub(crate) fn new(context: &Arc<Context>, plan: &Plan<'_>) -> Result<Arc<Program>, DriverError> {
        context.check()?;
        let layout = Layout::new(context, plan)?;
        let pool = transfer::pool(&context.device, context.compute.family());
        let pool = pool.map_err(|error| context.refused("a command pool", flat(error)))?;
        let slots = Mutex::new(Slots { pool: Some(pool), slots: Vec::with_capacity(SLOTS) });
        let program = Program { context: context.clone(), layout, slots };
        program.record(&mut program.slots(), false)?;
        Ok(Arc::new(program))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a run's parameters into a slot that is free, recording one if there is none; gives its number and its
    /// command buffer. `bases` are the addresses of the arena, the inputs and the outputs, in this order.
    pub(crate) fn prepare(
        &self,
        bases: &[u64],
        scalars: &[u64],
        is_timed: bool,
    ) -> Result<(usize, vk::CommandBuffer), DriverError> {
        let mut slots = self.slots();
        let free = slots.slots.iter().position(|slot| !slot.is_busy && slot.is_timed == is_timed);
        let index = match free {
            Some(index) => index,
            None => self.record(&mut slots, is_timed)?,
        };
        let slot = &mut slots.slots[index];
        let Some(block) = slot.host.pointer else { unreachable!("invariant: the host's part of a slot is mapped") };
        slot.write(&self.layout, block, bases, scalars);
        slot.is_busy = true;
        Ok((index, slot.commands.handle()))
    }

    /// Makes a slot free for another run.
    pub(crate) fn release(&self, slot: usize) {
        self.slots().slots[slot].is_busy = false;
    }

    /// When the steps of a finished run ran, if it was timed and the queue can tell.
    pub(crate) fn times(&self, slot: usize) -> Result<Vec<StepTime>, Fault> {
        let slots = self.slots();
        let Some(timer) = &slots.slots[slot].timer else { return Ok(Vec::new()) };
        timer.read().map_err(|error| self.context.refused("timestamps", error).into())
    }

    /// What the checks of a finished run found: the first of the plan's steps that failed.
    pub(crate) fn status(&self, slot: usize) -> Result<(), Fault> {
        let slots = self.slots();
        let Some(block) = slots.slots[slot].host.pointer else { return Ok(()) };
        // SAFETY: the block is that long (`Layout::bytes`), aligned, mapped, and no longer written by the device.
        let word = |i: usize| unsafe { block.add(self.layout.status_offset()).cast::<i32>().add(i).read_volatile() };
        if word(0) == 0 {
            return Ok(());
        }
        let found = self.layout.checks.iter().find_map(|check| {
            let (least, most) = (word(check.status), word(check.status + 1));
            let is_below = i64::from(least) < -(check.extent as i64);
            let index = i64::from(if is_below { least } else { most });
            let error = DriverError::Run(RunError::Index { index, extent: check.extent });
            ((least, most) != (i32::MAX, i32::MIN)).then_some(Fault { step: Some(check.step), error })
        });
        Err(found.unwrap_or_else(|| {
            let unknown = "a check failed, but no step says that it was its".to_string();
            DriverError::Run(RunError::Panic(unknown)).into()
        }))
    }

    /// Adds a slot.
    fn record(&self, slots: &mut Slots, is_timed: bool) -> Result<usize, DriverError> {
        let context = &self.context;
        let bytes = self.layout.bytes();
        let is_mapped = context.memory.kind().is_mapped;
        let host = if is_mapped { &context.memory } else { &context.host };
        let host = host.allocate(bytes, "a program's parameters")?;
        let device = match is_mapped {
            true => None,
            false => Some(context.memory.allocate(bytes, "a program's parameters")?),
        };
        let Some(pool) = &slots.pool else { unreachable!("invariant: the pool is taken when the program ends") };
        let refused = |error| context.refused("a command buffer", error);
        let commands = transfer::allocate(pool).map_err(refused)?;
        let timer = match is_timed {
            true => Timer::new(context, self.layout.busy_steps()).map_err(refused)?,
            false => None,
        };
        let slot = Slot { commands, host, device, timer, is_timed, is_busy: false, bound: Vec::new() };
        self.commands(&slot).map_err(refused)?;
        counts::RECORDED.add(1);
        slots.slots.push(slot);
        Ok(slots.slots.len() - 1)
    }

    fn commands(&self, slot: &Slot) -> Result<(), VulkanError> {
        let fns = &self.context.device.fns().v1_0;
        let commands = slot.commands.handle();
        let layout = self.context.pipelines.layout.handle();
        let (compute, copy) = (vk::PipelineStageFlags::COMPUTE_SHADER, vk::PipelineStageFlags::TRANSFER);
        let (host, shader) =
            (vk::PipelineStageFlags::HOST, vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE);
        let barrier = |from, to, made: vk::AccessFlags, seen: vk::AccessFlags| {
            let barrier = vk::MemoryBarrier::default().src_access_mask(made).dst_access_mask(seen);
            let none = vk::DependencyFlags::empty();
            // SAFETY: the command buffer is being recorded; the structure lives until the call returns.
            unsafe {
                (fns.cmd_pipeline_barrier)(commands, from, to, none, 1, &barrier, 0, ptr::null(), 0, ptr::null())
            };
        };
        let begin = vk::CommandBufferBeginInfo::default();
        // SAFETY: the command buffer is new, and its pool is under the caller's lock.
        unsafe { (fns.begin_command_buffer)(commands, &begin) }.result()?;
        if let Some(device) = &slot.device {
            let region = vk::BufferCopy {
                src_offset: slot.host.offset,
                dst_offset: device.offset,
                size: self.layout.bytes() as u64,
            };
            // SAFETY: both ranges are that long and live as long as the slot.
            unsafe { (fns.cmd_copy_buffer)(commands, slot.host.buffer, device.buffer, 1, &region) };
            barrier(copy, compute, vk::AccessFlags::TRANSFER_WRITE, shader);
        }
        if let Some(timer) = &slot.timer {
            // SAFETY: recording has begun; a slot is used for one run at a time.
            unsafe { timer.begin(&self.context, commands) };
        }
        let table = slot.device.as_ref().unwrap_or(&slot.host).address;
        let mut bound = vk::Pipeline::null();
        for command in &self.layout.commands {
            match command {
                Command::Barrier => barrier(compute, compute, vk::AccessFlags::SHADER_WRITE, shader),
                Command::End(step) => {
                    if let Some(timer) = &slot.timer {
                        // SAFETY: as for its beginning.
                        unsafe { timer.end(&self.context, commands, *step) };
                    }
                }
                Command::Dispatch { pipeline, groups: [x, y], push } => {
                    let push = Push { table, ..*push };
                    let values = ptr::from_ref(&push).cast();
                    let stage = vk::ShaderStageFlags::COMPUTE;
                    if bound != pipeline.handle {
                        bound = pipeline.handle;
                        // SAFETY: the pipeline is one for computing, and the layout of the program keeps it.
                        unsafe { (fns.cmd_bind_pipeline)(commands, vk::PipelineBindPoint::COMPUTE, bound) };
                    }
                    // SAFETY: the layout has a range of this size; the grid is within the device's limits.
                    unsafe {
                        (fns.cmd_push_constants)(commands, layout, stage, 0, size_of::<Push>() as u32, values);
                        (fns.cmd_dispatch)(commands, *x, *y, 1);
                    }
                }
            }
        }
        let (mut ends, mut writes) = (compute, vk::AccessFlags::SHADER_WRITE);
        if let Some(device) = slot.device.as_ref().filter(|_| !self.layout.checks.is_empty()) {
            let at = self.layout.status_offset() as u64;
            let region = vk::BufferCopy {
                src_offset: device.offset + at,
                dst_offset: slot.host.offset + at,
                size: self.layout.status_words() as u64 * 4,
            };
            barrier(compute, copy, vk::AccessFlags::SHADER_WRITE, vk::AccessFlags::TRANSFER_READ);
            // SAFETY: as above.
            unsafe { (fns.cmd_copy_buffer)(commands, device.buffer, slot.host.buffer, 1, &region) };
            (ends, writes) = (ends | copy, writes | vk::AccessFlags::TRANSFER_WRITE);
        }
        // For the host, for the next program and for copies.
        let seen =
            shader | vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE | vk::AccessFlags::HOST_READ;
        barrier(ends, compute | copy | host, writes, seen);
        // SAFETY: as for the beginning.
        unsafe { (fns.end_command_buffer)(commands) }.result()?;
        Ok(())
    }
}

impl Slot {
    fn write(&mut self, layout: &Layout, block: NonNull<u8>, bases: &[u64], scalars: &[u64]) {
        let entries: NonNull<u64> = block.cast();
        // SAFETY: the block has `entries()` of them and is aligned to 256 bytes; the slot is free, so the device does
        // not read it now.
        let put = |i: usize, value: u64| unsafe { entries.add(i).write(value) };
        let places = layout.places.len();
        if self.bound != bases {
            self.bound.clear();
            self.bound.extend_from_slice(bases);
            for (i, place) in layout.places.iter().enumerate() {
                put(
                    i,
                    match *place {
                        Place::Arena(offset) => bases[0] + offset as u64,
                        Place::Input(input) => bases[1 + input as usize],
                        Place::Output(output) => bases[1 + layout.inputs + output as usize],
                    },
                );
            }
        }
        for (i, &scalar) in scalars.iter().enumerate() {
            put(places + i, scalar);
        }
        let offset = layout.status_offset();
        let table = self.device.as_ref().unwrap_or(&self.host).address;
        put(places + layout.scalars, table + offset as u64);
        for (i, word) in layout.status().enumerate() {
            // SAFETY: as above; the block is `Layout::bytes` long.
            unsafe { block.add(offset).cast::<i32>().add(i).write(word) };
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A run keeps its program until it was waited for; where waiting failed, the device may be at it still.
        if self.context.is_lost() {
            let pipelines = self.layout.commands.iter().filter_map(|command| match command {
                Command::Dispatch { pipeline, .. } => Some(pipeline.clone()),
                Command::Barrier | Command::End(_) => None,
            });
            let pipelines: Vec<Arc<Pipeline>> = pipelines.collect();
            for slot in &mut self.slots().slots {
                // The device may yet write its timestamps.
                std::mem::forget(slot.timer.take());
            }
            if let Some(pool) = self.slots().pool.take() {
                self.context.adopt(pool, pipelines);
            }
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("commands", &self.layout.commands.len()).finish_non_exhaustive()
    }
}
