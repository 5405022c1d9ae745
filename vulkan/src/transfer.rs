//! Tensors' memory and how the host reaches it: through a pointer if there is one, else by copies through staging
//! memory. Owns the copies' command buffers and their staging memory; knows no programs.

use std::collections::VecDeque;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;
use tapeflow_core::driver::{DriverError, Memory};
use vulkano::command_buffer::pool::{
    CommandBufferAllocateInfo, CommandPool, CommandPoolAlloc, CommandPoolCreateFlags, CommandPoolCreateInfo,
};
use vulkano::device::Device;
use vulkano::{Validated, VulkanError, VulkanObject};

use crate::context::Context;
use crate::counts;
use crate::memory::Range;

/// Bytes of one copy through staging memory.
const CHUNK: usize = 16 << 20;
/// Bytes that the host reads through a pointer although that is slow.
const FEW: usize = 256;
/// Bytes of uploads that may be under way.
const PENDING: u64 = 64 << 20;

/// Memory of one tensor or arena.
pub(crate) struct DeviceMemory {
    pub context: Arc<Context>,
    pub range: Arc<Range>,
    /// As was asked for.
    pub bytes: usize,
    /// The last program that was given it.
    pub last_use: AtomicU64,
    /// Held while the host reads or writes.
    access: Mutex<()>,
}

impl DeviceMemory {
    pub(crate) fn new(
        context: &Arc<Context>,
        bytes: usize,
        purpose: &'static str,
    ) -> Result<DeviceMemory, DriverError> {
        context.check()?;
        let range = Arc::new(context.memory.allocate(bytes, purpose)?);
        Ok(DeviceMemory { context: context.clone(), range, bytes, last_use: AtomicU64::new(0), access: Mutex::new(()) })
    }

    fn begin(&self, bytes: usize) -> Result<(), DriverError> {
        self.context.check()?;
        if bytes > self.bytes {
            let has = self.bytes;
            return Err(DriverError::Unsupported(format!("{bytes} bytes do not lie in memory of {has}")));
        }
        // Partner: the submission that gave a program this memory.
        self.context.wait(&self.context.compute, self.last_use.load(Ordering::Acquire))
    }
}

impl Memory for DeviceMemory {
    fn write(&self, bytes: &[u8]) -> Result<(), DriverError> {
        let _access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        self.begin(bytes.len())?;
        if let Some(pointer) = self.range.pointer {
            // SAFETY: `begin` has compared the lengths and waited for the programs that use this range, which belongs
            // to this memory alone; the lock keeps other threads of the host away.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer.as_ptr(), bytes.len()) };
            return Ok(());
        }
        for (i, chunk) in bytes.chunks(CHUNK).enumerate() {
            let staging = self.context.host.allocate(chunk.len(), "staging")?;
            let Some(pointer) = staging.pointer else { unreachable!("invariant: staging memory is mapped") };
            // SAFETY: the range is new, mapped and at least as long as the chunk.
            unsafe { ptr::copy_nonoverlapping(chunk.as_ptr(), pointer.as_ptr(), chunk.len()) };
            let copy = Copy { at: (i * CHUNK) as u64, bytes: chunk.len() as u64, is_upload: true, after: 0 };
            self.context.transfers.start(&self.context, Arc::new(staging), &self.range, copy)?;
        }
        Ok(())
    }

    fn read(&self, into: &mut [u8]) -> Result<(), DriverError> {
        let _access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        self.begin(into.len())?;
        // A few words are read sooner than a copy of them is submitted, even where each is a trip over the bus.
        if let Some(pointer) = self.range.pointer
            && (self.range.is_cached() || into.len() <= FEW)
        {
            // SAFETY: as in `write`.
            unsafe { ptr::copy_nonoverlapping(pointer.as_ptr(), into.as_mut_ptr(), into.len()) };
            return Ok(());
        }
        // While one chunk is taken out of its staging memory, the next is being copied.
        let mut started = VecDeque::new();
        let (total, mut at) = (into.len(), 0);
        let mut chunks = into.chunks_mut(CHUNK);
        loop {
            while at < total && started.len() < 2 {
                let bytes = CHUNK.min(total - at);
                let staging = Arc::new(self.context.host.allocate(bytes, "staging")?);
                let after = self.last_use.load(Ordering::Acquire); // partner: as in `begin`
                let copy = Copy { at: at as u64, bytes: bytes as u64, is_upload: false, after };
                let end = self.context.transfers.start(&self.context, staging.clone(), &self.range, copy)?;
                started.push_back((staging, end));
                at += bytes;
            }
            let (Some((staging, end)), Some(chunk)) = (started.pop_front(), chunks.next()) else { return Ok(()) };
            self.context.wait(&self.context.transfer, end)?;
            let Some(pointer) = staging.pointer else { unreachable!("invariant: staging memory is mapped") };
            // SAFETY: the copy of this chunk has ended, and nothing else uses the range.
            unsafe { ptr::copy_nonoverlapping(pointer.as_ptr(), chunk.as_mut_ptr(), chunk.len()) };
        }
    }
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceMemory({:?})", self.range)
    }
}

/// One copy between staging memory and a tensor's.
struct Copy {
    /// First byte in the tensor's memory.
    at: u64,
    bytes: u64,
    is_upload: bool,
    /// The program whose results are read.
    after: u64,
}

struct Pending {
    end: u64,
    commands: CommandPoolAlloc,
    bytes: u64,
    /// Neither may be used for anything else until the end.
    _ranges: [Arc<Range>; 2],
}

struct State {
    pool: CommandPool,
    idle: Vec<CommandPoolAlloc>,
    pending: VecDeque<Pending>,
    pending_bytes: u64,
}

/// The copies under way.
pub(crate) struct Transfers(Mutex<State>);

impl Transfers {
    pub(crate) fn new(device: &Arc<Device>, family: u32) -> Result<Transfers, Validated<VulkanError>> {
        let pool = pool(device, family)?;
        Ok(Transfers(Mutex::new(State { pool, idle: Vec::new(), pending: VecDeque::new(), pending_bytes: 0 })))
    }

    /// Submits a copy; gives the value of the transfer timeline at its end.
    fn start(
        &self,
        context: &Context,
        staging: Arc<Range>,
        tensor: &Arc<Range>,
        copy: Copy,
    ) -> Result<u64, DriverError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.collect(context, copy.bytes)?;
        let commands = match state.idle.pop() {
            Some(commands) => commands,
            None => allocate(&state.pool).map_err(|error| context.refused("a copy", error))?,
        };
        let result = record(context, &commands, &staging, tensor, &copy).and_then(|()| {
            let after = Some((&context.compute, copy.after)).filter(|(_, value)| *value > 0);
            // SAFETY: just recorded, idle before; what it uses is kept in `pending`; the lock is held.
            unsafe { context.transfer.submit(commands.handle(), after) }
        });
        match result {
            Ok(end) => {
                counts::TRANSFERS.add(1);
                state.pending_bytes += copy.bytes;
                let ranges = [staging, tensor.clone()];
                state.pending.push_back(Pending { end, commands, bytes: copy.bytes, _ranges: ranges });
                Ok(end)
            }
            Err(error) => {
                state.idle.push(commands);
                Err(context.refused("a copy", error))
            }
        }
    }
}

impl State {
    /// Forgets the copies that have ended, and waits for some if `more` bytes would be too many.
    fn collect(&mut self, context: &Context, more: u64) -> Result<(), DriverError> {
        while let Some(oldest) = self.pending.front() {
            if self.pending_bytes + more > PENDING {
                context.wait(&context.transfer, oldest.end)?;
            } else if !context.transfer.has_reached(oldest.end).map_err(|error| context.refused("a copy", error))? {
                break;
            }
            if let Some(done) = self.pending.pop_front() {
                self.pending_bytes -= done.bytes;
                self.idle.push(done.commands);
            }
        }
        Ok(())
    }
}

/// A pool whose command buffers are recorded again and again.
pub(crate) fn pool(device: &Arc<Device>, family: u32) -> Result<CommandPool, Validated<VulkanError>> {
    let info = CommandPoolCreateInfo {
        flags: CommandPoolCreateFlags::RESET_COMMAND_BUFFER,
        queue_family_index: family,
        ..CommandPoolCreateInfo::default()
    };
    CommandPool::new(device.clone(), info)
}

pub(crate) fn allocate(pool: &CommandPool) -> Result<CommandPoolAlloc, VulkanError> {
    pool.allocate_command_buffers(CommandBufferAllocateInfo::default())?.next().ok_or(VulkanError::OutOfHostMemory)
}

fn record(
    context: &Context,
    commands: &CommandPoolAlloc,
    staging: &Range,
    tensor: &Range,
    copy: &Copy,
) -> Result<(), VulkanError> {
    let fns = &context.device.fns().v1_0;
    let commands = commands.handle();
    let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
    let there = tensor.offset + copy.at;
    let (from, to, src_offset, dst_offset) = match copy.is_upload {
        true => (staging.buffer, tensor.buffer, staging.offset, there),
        false => (tensor.buffer, staging.buffer, there, staging.offset),
    };
    let region = vk::BufferCopy { src_offset, dst_offset, size: copy.bytes };
    let writes = vk::AccessFlags::TRANSFER_WRITE;
    let copies = vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE;
    // An earlier copy may have written what this one reads.
    let before = vk::MemoryBarrier::default().src_access_mask(writes).dst_access_mask(copies);
    let after = vk::MemoryBarrier::default().src_access_mask(writes).dst_access_mask(vk::AccessFlags::HOST_READ);
    let (transfer, host) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
    let none = vk::DependencyFlags::empty();
    // SAFETY: the command buffer is not pending, its pool is under the caller's lock, and the region lies within both
    // ranges.
    unsafe {
        (fns.begin_command_buffer)(commands, &begin).result()?;
        (fns.cmd_pipeline_barrier)(commands, transfer, transfer, none, 1, &before, 0, ptr::null(), 0, ptr::null());
        (fns.cmd_copy_buffer)(commands, from, to, 1, &region);
        if !copy.is_upload {
            (fns.cmd_pipeline_barrier)(commands, transfer, host, none, 1, &after, 0, ptr::null(), 0, ptr::null());
        }
        (fns.end_command_buffer)(commands).result()?;
    }
    Ok(())
}
