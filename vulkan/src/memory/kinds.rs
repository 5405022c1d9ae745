//! Which of a device's memory types serves what. Knows no allocation.

use vulkano::device::physical::{PhysicalDevice, PhysicalDeviceType};
use vulkano::memory::{MemoryHeapFlags, MemoryPropertyFlags};

/// A memory type, and what the host can do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub index: u32,
    /// The host may write it through a pointer.
    pub is_mapped: bool,
    /// The host may read it through a pointer at the speed of its own memory.
    pub is_cached: bool,
    /// Bytes of the heap that it is taken from.
    pub heap_bytes: u64,
}

/// The two that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds {
    /// Tensors.
    pub device: Kind,
    /// Staging.
    pub host: Kind,
}

impl Kinds {
    /// Of the types in `accepted`, one bit each: those that hold our buffers. `None` if the device breaks the rule that
    /// some memory is visible to the host.
    pub(crate) fn of(physical: &PhysicalDevice, accepted: u32, force_staging: bool) -> Option<Kinds> {
        let properties = physical.memory_properties();
        let kinds = || {
            properties.memory_types.iter().enumerate().map(|(index, ty)| {
                let flags = ty.property_flags;
                // Memory that is not coherent would need a flush for each write: it is never mapped.
                let is_mapped = flags.contains(MemoryPropertyFlags::HOST_VISIBLE | MemoryPropertyFlags::HOST_COHERENT);
                let heap_bytes = properties.memory_heaps[ty.heap_index as usize].size;
                let is_cached = is_mapped && flags.intersects(MemoryPropertyFlags::HOST_CACHED);
                (flags, Kind { index: index as u32, is_mapped, is_cached, heap_bytes })
            })
        };
        // Of equals the first: the driver lists the faster ones first. (Memory that the host caches, too, comes later:
        // the device must then ask the host's caches.)
        let special = MemoryPropertyFlags::PROTECTED
            | MemoryPropertyFlags::LAZILY_ALLOCATED
            | MemoryPropertyFlags::DEVICE_COHERENT
            | MemoryPropertyFlags::DEVICE_UNCACHED;
        let usable = || kinds().filter(|(flags, kind)| !flags.intersects(special) && accepted & (1 << kind.index) != 0);
        // Where all memory is the processor's, the part that the device calls its own may be a small one.
        let is_integrated = physical.properties().device_type == PhysicalDeviceType::IntegratedGpu;
        let rank = |flags: &MemoryPropertyFlags, kind: &Kind| {
            let is_local = is_integrated || flags.intersects(MemoryPropertyFlags::DEVICE_LOCAL);
            (is_local, kind.heap_bytes, kind.is_mapped, std::cmp::Reverse(kind.index))
        };
        let (_, mut device) = usable().max_by_key(|(flags, kind)| rank(flags, kind))?;
        let (_, host) = usable().filter(|(_, kind)| kind.is_mapped).max_by_key(|(flags, kind)| {
            let is_local = flags.intersects(MemoryPropertyFlags::DEVICE_LOCAL);
            (kind.is_cached, !is_local, kind.heap_bytes, std::cmp::Reverse(kind.index))
        })?;
        if force_staging {
            device = Kind { is_mapped: false, is_cached: false, ..device };
        }
        Some(Kinds { device, host })
    }
}

/// Bytes of the biggest heap that a device calls its own.
pub(crate) fn own_bytes(physical: &PhysicalDevice) -> u64 {
    let heaps = &physical.memory_properties().memory_heaps;
    let own = heaps.iter().filter(|h| h.flags.intersects(MemoryHeapFlags::DEVICE_LOCAL));
    own.map(|h| h.size).max().unwrap_or(0)
}
