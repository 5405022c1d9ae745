//! Blocks of one memory type and the ranges that lie in them. Owns the blocks, the limit and the message that says what
//! there was when memory ran out; knows nothing of what is stored.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ash::vk;
use tapeflow_core::driver::DriverError;
use vulkano::buffer::sys::{BufferCreateInfo, RawBuffer};
use vulkano::buffer::{Buffer, BufferUsage};
use vulkano::device::Device;
use vulkano::memory::{DeviceMemory, MemoryAllocateFlags, MemoryAllocateInfo, MemoryMapInfo, ResourceMemory};
use vulkano::sync::Sharing;
use vulkano::{VulkanError, VulkanObject};

use super::kinds::Kind;
use super::ranges::{GRAIN, Ranges};
use crate::counts;
use crate::fault::{self, Fault};

/// Blocks double from the first size to the last as more memory is used.
pub(crate) const BLOCK: [u64; 2] = [64 << 20, 256 << 20];

/// What every buffer is used for.
fn usage() -> BufferUsage {
    BufferUsage::STORAGE_BUFFER
        | BufferUsage::TRANSFER_SRC
        | BufferUsage::TRANSFER_DST
        | BufferUsage::SHADER_DEVICE_ADDRESS
}

/// The memory types that can hold blocks, one bit each. They are the same for all buffers of one usage.
pub(crate) fn accepted_types(device: &Arc<Device>) -> Result<u32, String> {
    let info = BufferCreateInfo { size: GRAIN, usage: usage(), ..BufferCreateInfo::default() };
    let buffer = RawBuffer::new(device.clone(), info).map_err(|error| error.to_string())?;
    Ok(buffer.memory_requirements().memory_type_bits)
}

struct Block {
    /// Holds the memory too.
    buffer: Buffer,
    address: u64,
    /// Of the first byte, if mapped.
    pointer: Option<NonNull<u8>>,
    ranges: Ranges,
    /// Made for one request that is bigger than a block.
    is_dedicated: bool,
    size: u64,
}

// SAFETY: the pointer is to memory that the driver mapped until the block is dropped, which no thread owns.
unsafe impl Send for Block {}

#[derive(Default)]
struct State {
    blocks: Vec<Option<Block>>,
    /// Bytes of the ranges that are out.
    in_use: u64,
    /// The most they ever were.
    peak: u64,
    /// Bytes of the blocks.
    held: u64,
}

/// All memory of one type.
pub(crate) struct Heap {
    device: Arc<Device>,
    kind: Kind,
    /// The families of the queues that use it.
    sharing: Sharing<smallvec::SmallVec<[u32; 4]>>,
    /// Bytes that blocks may hold, asked anew each time.
    limit: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    block: [u64; 2],
    state: Mutex<State>,
    /// Something that cannot be waited for may still use the blocks: they are never given back.
    is_abandoned: AtomicBool,
}

impl Heap {
    pub(crate) fn new(
        device: &Arc<Device>,
        kind: Kind,
        families: &[u32],
        block: [u64; 2],
        limit: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> Arc<Heap> {
        let sharing = match families {
            [_] | [] => Sharing::Exclusive,
            many => Sharing::Concurrent(many.iter().copied().collect()),
        };
        Arc::new(Heap {
            device: device.clone(),
            kind,
            sharing,
            limit: Box::new(limit),
            block,
            state: Mutex::default(),
            is_abandoned: AtomicBool::new(false),
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// From now on, blocks are kept for good.
    pub(crate) fn abandon(&self) {
        // Read under the lock of `state`, by `release`, which comes after the loss only if its caller does.
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    /// A range of at least `bytes` bytes.
    pub(crate) fn allocate(self: &Arc<Heap>, bytes: usize, purpose: &'static str) -> Result<Range, DriverError> {
        let mut state = self.state();
        let refuse = |state: &State, why: &str| DriverError::Memory {
            needed: bytes,
            purpose,
            reason: self.describe(state, why),
        };
        if fault::strikes(Fault::Allocate) {
            return Err(refuse(&state, "a fault was injected"));
        }
        let length = u64::try_from(bytes.max(1)).ok().and_then(|b| b.checked_next_multiple_of(GRAIN));
        let limit = (self.limit)().unwrap_or(u64::MAX);
        let Some(length) = length.filter(|&l| l <= self.kind.heap_bytes.max(GRAIN)) else {
            return Err(refuse(&state, "the device has not that much"));
        };
        if state.in_use.saturating_add(length) > limit {
            return Err(refuse(&state, "the limit does not allow it"));
        }
        if state.fit(length).is_none() {
            self.grow(&mut state, length, limit).map_err(|why| refuse(&state, &why))?;
        }
        let Some((index, block, offset)) = state.take(length) else {
            return Err(refuse(&state, "no block has room for it"));
        };
        // SAFETY: the offset lies within the block's mapping.
        let pointer = block.pointer.map(|p| unsafe { p.add(offset as usize) });
        let (address, buffer) = (block.address + offset, block.buffer.handle());
        counts::RANGES.add(1);
        counts::BYTES.add(length);
        Ok(Range { heap: self.clone(), block: index, offset, length, address, pointer, buffer })
    }

    /// Adds a block with room for `length` bytes.
    fn grow(&self, state: &mut State, length: u64, limit: u64) -> Result<(), String> {
        let [first, last] = self.block;
        let wanted = state.held.clamp(first, last);
        if state.held.saturating_add(wanted.max(length)) > limit {
            state.release_unused();
        }
        let room = limit.saturating_sub(state.held) / GRAIN * GRAIN;
        if length > room {
            return Err("the limit does not allow another block".into());
        }
        let (is_dedicated, size) = if length > last { (true, length) } else { (false, wanted.max(length).min(room)) };
        let block = self.create(size, is_dedicated).or_else(|error| {
            // Less may be had than a whole block, or something may be given back.
            state.release_unused();
            self.create(length, is_dedicated).map_err(|_| error)
        });
        let block = block.map_err(|error| format!("the driver refused a block of {size} bytes ({error})"))?;
        state.held += block.size;
        match state.blocks.iter().position(Option::is_none) {
            Some(hole) => state.blocks[hole] = Some(block),
            None => state.blocks.push(Some(block)),
        }
        counts::BLOCKS.add(1);
        Ok(())
    }

    fn create(&self, size: u64, is_dedicated: bool) -> Result<Block, String> {
        if fault::strikes(Fault::Block) {
            return Err(VulkanError::OutOfDeviceMemory.to_string());
        }
        // `maxMemoryAllocationSize` is not asked: beyond it a driver may refuse, but many do not.
        let info =
            BufferCreateInfo { sharing: self.sharing.clone(), size, usage: usage(), ..BufferCreateInfo::default() };
        let raw = RawBuffer::new(self.device.clone(), info).map_err(|e| e.to_string())?;
        let requirements = *raw.memory_requirements();
        if requirements.memory_type_bits & (1 << self.kind.index) == 0 {
            return Err("its memory cannot hold buffers".into());
        }
        let info = MemoryAllocateInfo {
            allocation_size: requirements.layout.size(),
            memory_type_index: self.kind.index,
            flags: MemoryAllocateFlags::DEVICE_ADDRESS,
            ..MemoryAllocateInfo::default()
        };
        let mut memory = DeviceMemory::allocate(self.device.clone(), info).map_err(|e| e.to_string())?;
        let mut pointer = None;
        if self.kind.is_mapped {
            let whole = MemoryMapInfo { offset: 0, size: memory.allocation_size(), ..MemoryMapInfo::default() };
            memory.map(whole).map_err(|e| e.to_string())?;
            pointer = memory.mapping_state().map(|m| m.ptr().cast());
        }
        let bound = raw.bind_memory(ResourceMemory::new_dedicated(memory));
        let buffer = bound.map_err(|(error, ..)| error.to_string())?;
        let address = buffer.device_address().map_err(|e| e.to_string())?.get();
        Ok(Block { buffer, address, pointer, ranges: Ranges::new(size / GRAIN * GRAIN), is_dedicated, size })
    }

    fn release(&self, range: &Range) {
        let mut state = self.state();
        state.in_use -= range.length;
        counts::RANGES.subtract(1);
        counts::BYTES.subtract(range.length);
        let Some(block) = state.blocks[range.block].as_mut() else { return };
        block.ranges.give(range.offset, range.length);
        if self.is_abandoned.load(Ordering::Relaxed) || !block.ranges.is_unused() {
            return;
        }
        state.trim();
    }

    fn describe(&self, state: &State, why: &str) -> String {
        let limit = match (self.limit)() {
            Some(limit) => format!("the limit is {limit}"),
            None => "there is no limit".into(),
        };
        format!(
            "{why}; {} bytes are in use, {} are held in blocks, {limit}, the largest free range is {}, and the device's \
             heap has {}",
            state.in_use,
            state.held,
            state.largest(),
            self.kind.heap_bytes
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(f, "Heap({:?}, {} of {} bytes in use)", self.kind, state.in_use, state.held)
    }
}

impl State {
    /// The block whose free range fits best.
    fn fit(&self, length: u64) -> Option<usize> {
        let blocks = self.blocks.iter().enumerate();
        // A block made for one request is left to requests of its kind: they come back at every step.
        let suits = |block: &Block| !block.is_dedicated || length > block.size / 2;
        let fits = blocks.filter_map(|(i, b)| Some((b.as_ref().filter(|b| suits(b))?.ranges.fit(length)?, i)));
        fits.min().map(|(_, i)| i)
    }

    fn take(&mut self, length: u64) -> Option<(usize, &Block, u64)> {
        let index = self.fit(length)?;
        let block = self.blocks[index].as_mut()?;
        let offset = block.ranges.take(length)?;
        self.in_use += length;
        self.peak = self.peak.max(self.in_use);
        Some((index, block, offset))
    }

    fn largest(&self) -> u64 {
        self.blocks.iter().flatten().map(|b| b.ranges.largest()).max().unwrap_or(0)
    }

    /// Gives unused blocks back, the smallest first, while more is held than was ever in use at once. So a program that
    /// comes and goes does not go to the driver each time, whatever the size of its arena; one block stays in any case.
    fn trim(&mut self) {
        while self.held > self.peak {
            let blocks = self.blocks.iter().enumerate();
            let unused = blocks.filter_map(|(i, b)| b.as_ref().filter(|b| b.ranges.is_unused()).map(|b| (b.size, i)));
            let mut unused: Vec<(u64, usize)> = unused.collect();
            if unused.len() < 2 {
                return;
            }
            unused.sort_unstable();
            self.drop_block(unused[0].1);
        }
    }

    fn release_unused(&mut self) {
        for index in 0..self.blocks.len() {
            if self.blocks[index].as_ref().is_some_and(|b| b.ranges.is_unused()) {
                self.drop_block(index);
            }
        }
    }

    fn drop_block(&mut self, index: usize) {
        if let Some(block) = self.blocks[index].take() {
            self.held -= block.size;
        }
    }
}

/// Bytes of a block, given back when dropped.
pub(crate) struct Range {
    heap: Arc<Heap>,
    block: usize,
    /// In `buffer`.
    pub offset: u64,
    /// At least what was asked for.
    pub length: u64,
    /// On the device.
    pub address: u64,
    /// On the host, if the memory is mapped.
    pub pointer: Option<NonNull<u8>>,
    /// The block.
    pub buffer: vk::Buffer,
}

// SAFETY: the pointer is to memory that stays mapped until the range is dropped; those who write through it say why
// nobody else does.
unsafe impl Send for Range {}
// SAFETY: as above; the range itself is never changed.
unsafe impl Sync for Range {}

impl Range {
    /// Whether the host should read it through its pointer.
    pub(crate) fn is_cached(&self) -> bool {
        self.heap.kind.is_cached
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        self.heap.release(self);
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x}", self.length, self.address)
    }
}
