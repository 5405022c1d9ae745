//! One open device: its queues, heaps and caches, and the memory of its failure. Owns the order in which all that ends;
//! knows neither kernels nor programs.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tapeflow_core::driver::DriverError;
use vulkano::command_buffer::pool::CommandPool;
use vulkano::device::physical::{PhysicalDevice, PhysicalDeviceType, SubgroupFeatures};
use vulkano::device::{Device, DeviceCreateInfo, DeviceExtensions, DeviceFeatures, Queue, QueueCreateInfo, QueueFlags};
use vulkano::shader::ShaderStages;
use vulkano::{Version, VulkanError};

use crate::fault::{self, Fault};
use crate::instance::{self, unavailable};
use crate::listing;
use crate::memory::heap::{BLOCK, accepted_types};
use crate::memory::{Heap, Kinds};
use crate::pipeline::{Pipeline, Pipelines};
use crate::program::Submissions;
use crate::stage::{FloatControls, Target};
use crate::timeline::Timeline;
use crate::transfer::Transfers;

/// What tests may ask for.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Behave as if device memory were not visible to the host.
    pub staging: bool,
    /// Bytes that this context may hold, in place of the limit of the process.
    pub memory_limit: Option<u64>,
    /// How long a run may take.
    pub timeout: Option<Duration>,
}

/// 0: as the environment says. `u64::MAX`: none.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Limits the bytes that each Vulkan device holds, in place of `TAPEFLOW_VULKAN_MEMORY`; `None` takes any limit away.
/// Memory that is out already stays.
pub fn set_memory_limit(bytes: Option<u64>) {
    LIMIT.store(bytes.unwrap_or(u64::MAX).max(1), Ordering::Relaxed); // a number by itself
}

fn memory_limit() -> Option<u64> {
    static FROM_ENVIRONMENT: OnceLock<Option<u64>> = OnceLock::new();
    match LIMIT.load(Ordering::Relaxed) {
        0 => *FROM_ENVIRONMENT.get_or_init(|| number("TAPEFLOW_VULKAN_MEMORY")),
        u64::MAX => None,
        bytes => Some(bytes),
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = text.trim().parse().ok();
    if parsed.is_none() {
        tracing::warn!(target: "tapeflow::vulkan", "{variable} is not a whole number: {text:?} is ignored");
    }
    parsed
}

/// An open device. Everything made from it keeps it alive.
pub(crate) struct Context {
    pub target: Target,
    /// Workgroups per dimension, at most.
    pub max_groups: [u32; 2],
    pub timeout: Duration,
    lost: OnceLock<DriverError>,
    parts: ManuallyDrop<Parts>,
}

/// What is leaked if the device may still be working when the context ends.
pub(crate) struct Parts {
    pub device: Arc<Device>,
    /// Tensors, and the parameter blocks of programs.
    pub memory: Arc<Heap>,
    /// Staging.
    pub host: Arc<Heap>,
    pub compute: Timeline,
    pub transfer: Timeline,
    pub transfers: Transfers,
    pub submissions: Submissions,
    pub pipelines: Pipelines,
    /// What programs used that were dropped after the device was lost.
    orphans: Mutex<Vec<(CommandPool, Vec<Arc<Pipeline>>)>>,
}

impl std::ops::Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Context {
    pub(crate) fn open(index: usize, options: &Options) -> Result<Arc<Context>, DriverError> {
        let devices = instance::physical_devices()?;
        let physical = devices.get(index).ok_or_else(|| {
            let names: Vec<String> = devices.iter().map(|d| d.properties().device_name.clone()).collect();
            unavailable(&match names.len() {
                0 => "there is a Vulkan loader, but no device".to_string(),
                n => format!("there is no Vulkan device {index}: there are {n}, counted from 0 ({})", names.join(", ")),
            })
        })?;
        let name = &physical.properties().device_name;
        let missing = listing::missing(physical);
        if !missing.is_empty() {
            return Err(unavailable(&format!("{name} cannot be used: it lacks {}", missing.join(", "))));
        }
        let failed =
            |what: &str, error: &dyn fmt::Display| unavailable(&format!("{name} cannot be opened: {what}: {error}"));
        let target = target(physical);
        let (device, [compute, transfer]) = create(physical).map_err(|error| failed("device", &error))?;
        let accepted = accepted_types(&device).map_err(|error| failed("memory", &error))?;
        let kinds = Kinds::of(physical, accepted, options.staging)
            .ok_or_else(|| failed("memory", &"none of it is visible to the host"))?;
        let families = match (compute.queue_family_index(), transfer.queue_family_index()) {
            (a, b) if a == b => vec![a],
            (a, b) => vec![a, b],
        };
        let limit = options.memory_limit;
        let memory = Heap::new(&device, kinds.device, &families, BLOCK, move || limit.or_else(memory_limit));
        let host = Heap::new(&device, kinds.host, &families, [4 << 20, 64 << 20], || None);
        // Only shaders for processors know the size. Elsewhere the driver chooses: the widest that it reports would
        // drive big tiles out of the registers (32 on Intel).
        let required = Some(target.subgroup).filter(|_| target.is_cpu && subgroup(physical) == Subgroup::OnDemand);
        let pipelines = Pipelines::new(&device, required).map_err(|error| failed("pipelines", &error))?;
        let compute = Timeline::new(&device, compute).map_err(|error| failed("semaphore", &error))?;
        let transfer = Timeline::new(&device, transfer).map_err(|error| failed("semaphore", &error))?;
        let transfers = Transfers::new(&device, transfer.family()).map_err(|error| failed("command pool", &error))?;
        let properties = physical.properties();
        let [x, y, _] = properties.max_compute_work_group_count;
        let seconds = || number("TAPEFLOW_VULKAN_TIMEOUT").filter(|&seconds| seconds > 0).map(Duration::from_secs);
        // A processor compiles a kernel when it first runs it, which can take a second for each.
        let patience = Duration::from_secs(if target.is_cpu { 600 } else { 60 });
        Ok(Arc::new(Context {
            target,
            max_groups: [x.clamp(1, 65_535), y.clamp(1, 65_535)],
            // A year, so that it can be counted in nanoseconds.
            timeout: options.timeout.or_else(seconds).unwrap_or(patience).min(Duration::from_secs(31_536_000)),
            lost: OnceLock::new(),
            parts: ManuallyDrop::new(Parts {
                device,
                memory,
                host,
                compute,
                transfer,
                transfers,
                submissions: Submissions::default(),
                pipelines,
                orphans: Mutex::default(),
            }),
        }))
    }

    /// Refuses if the device was lost.
    pub(crate) fn check(&self) -> Result<(), DriverError> {
        self.lost.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// Remembers that nothing more can be done; the first reason stays.
    pub(crate) fn lose(&self, why: String) -> DriverError {
        let error = self.lost.get_or_init(|| {
            tracing::error!(target: "tapeflow::vulkan", "the device is lost: {why}");
            DriverError::Lost(why)
        });
        self.memory.abandon();
        self.host.abandon();
        error.clone()
    }

    /// What a failed submission means.
    pub(crate) fn refused(&self, what: &'static str, error: VulkanError) -> DriverError {
        match error {
            // The specification promises that nothing has changed then.
            VulkanError::OutOfDeviceMemory | VulkanError::OutOfHostMemory => {
                let reason = format!("the queue refused: {error}");
                DriverError::Memory { needed: 0, purpose: what, reason }
            }
            error => self.lose(format!("{what}: {error}")),
        }
    }

    /// Blocks until a timeline has reached a value.
    pub(crate) fn wait(&self, timeline: &Timeline, value: u64) -> Result<(), DriverError> {
        self.check()?;
        if timeline.is_known(value) {
            return Ok(());
        }
        let failed = fault::strikes(Fault::Wait);
        let result = if failed { Err(VulkanError::Unknown) } else { timeline.wait(value, self.timeout) };
        result.map_err(|error| match error {
            VulkanError::Timeout => self.lose(format!(
                "it did not finish within {} s (TAPEFLOW_VULKAN_TIMEOUT sets that limit)",
                self.timeout.as_secs_f64()
            )),
            error => self.lose(format!("waiting for it failed: {error}")),
        })
    }

    /// The two-dimensional grid, of at least this many workgroups, that wastes the fewest.
    pub(crate) fn grid(&self, groups: u64) -> [u32; 2] {
        let y = groups.div_ceil(u64::from(self.max_groups[0]));
        [groups.div_ceil(y.max(1)) as u32, y as u32]
    }

    /// Takes what a program used, when it ends after the device was lost and may be in use still.
    pub(crate) fn adopt(&self, pool: CommandPool, pipelines: Vec<Arc<Pipeline>>) {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).push((pool, pipelines));
    }

    /// Whether the device has finished all that it was given, or never will touch it again.
    fn is_quiet(&self) -> bool {
        let patience = if self.is_lost() { Duration::from_secs(2).min(self.timeout) } else { self.timeout };
        [&self.compute, &self.transfer].iter().all(|timeline| {
            let end = timeline.wait(timeline.submitted(), patience);
            matches!(end, Ok(()) | Err(VulkanError::DeviceLost))
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.is_quiet() {
            // SAFETY: dropped once, here, and not used again.
            unsafe { ManuallyDrop::drop(&mut self.parts) };
        } else {
            tracing::error!(target: "tapeflow::vulkan", "a device that does not answer is given up with its memory");
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.device.physical_device().properties().device_name;
        f.debug_struct("Context").field("device", name).field("lost", &self.lost.get()).finish_non_exhaustive()
    }
}

/// The device, the queue for programs and the queue for copies, which may be the same.
fn create(physical: &Arc<PhysicalDevice>) -> Result<(Arc<Device>, [Arc<Queue>; 2]), String> {
    let families = physical.queue_family_properties();
    let position = |accepts: &dyn Fn(QueueFlags) -> bool| families.iter().position(|f| accepts(f.queue_flags));
    // Not the one that draws, if it can be helped: the screen would stand still, and a long program be taken for a hang
    // (after 10 s by amdgpu, which gives 60 s to others).
    let main = position(&|f| f.intersects(QueueFlags::COMPUTE) && !f.intersects(QueueFlags::GRAPHICS))
        .or_else(|| position(&|f| f.intersects(QueueFlags::COMPUTE)))
        .ok_or("it has no queue for computing")?;
    let others = QueueFlags::COMPUTE
        | QueueFlags::GRAPHICS
        | QueueFlags::VIDEO_DECODE
        | QueueFlags::VIDEO_ENCODE
        | QueueFlags::OPTICAL_FLOW;
    let copies = position(&|f| f.intersects(QueueFlags::TRANSFER) && !f.intersects(others));
    let info = |family: usize, count: usize| QueueCreateInfo {
        queue_family_index: family as u32,
        queues: vec![0.5; count],
        ..QueueCreateInfo::default()
    };
    let queue_create_infos = match copies {
        Some(family) => vec![info(main, 1), info(family, 1)],
        None => vec![info(main, families[main].queue_count.clamp(1, 2) as usize)],
    };
    let offered = physical.supported_features();
    let on_demand = subgroup(physical) == Subgroup::OnDemand;
    let enabled_features = DeviceFeatures {
        buffer_device_address: true,
        timeline_semaphore: true,
        shader_int64: true,
        shader_float64: offered.shader_float64,
        shader_float16: offered.shader_float16,
        shader_int8: offered.shader_int8,
        shader_int16: offered.shader_int16,
        subgroup_size_control: on_demand,
        storage_buffer8_bit_access: offered.storage_buffer8_bit_access,
        storage_buffer16_bit_access: offered.storage_buffer16_bit_access,
        ..DeviceFeatures::empty()
    };
    let info = DeviceCreateInfo {
        queue_create_infos,
        enabled_features,
        enabled_extensions: DeviceExtensions {
            ext_subgroup_size_control: on_demand && physical.api_version() < Version::V1_3,
            ..DeviceExtensions::empty()
        },
        ..DeviceCreateInfo::default()
    };
    let (device, mut queues) = Device::new(physical.clone(), info).map_err(|error| error.to_string())?;
    let compute = queues.next().ok_or("it gave no queue")?;
    let transfer = queues.next().unwrap_or_else(|| compute.clone());
    Ok((device, [compute, transfer]))
}

/// Whether a subgroup always has `Target::subgroup` invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subgroup {
    Fixed,
    /// If each pipeline asks for it.
    OnDemand,
    Varies,
}

fn subgroup(physical: &PhysicalDevice) -> Subgroup {
    let properties = physical.properties();
    if !physical.supported_features().subgroup_size_control {
        // Without the feature, the one size that is reported is the size.
        return Subgroup::Fixed;
    }
    match properties.required_subgroup_size_stages {
        _ if properties.min_subgroup_size == properties.max_subgroup_size => Subgroup::Fixed,
        Some(stages) if stages.intersects(ShaderStages::COMPUTE) => Subgroup::OnDemand,
        _ => Subgroup::Varies,
    }
}

fn target(physical: &PhysicalDevice) -> Target {
    let (properties, features) = (physical.properties(), physical.supported_features());
    let shuffles = properties.subgroup_supported_operations.filter(|_| {
        let stages = properties.subgroup_supported_stages;
        stages.is_some_and(|s| s.intersects(ShaderStages::COMPUTE)) && subgroup(physical) != Subgroup::Varies
    });
    Target {
        subgroup: properties.subgroup_size.unwrap_or(1).max(1),
        is_cpu: properties.device_type == PhysicalDeviceType::Cpu,
        shared_bytes: properties.max_compute_shared_memory_size,
        workgroup: properties.max_compute_work_group_invocations.min(properties.max_compute_work_group_size[0]),
        has_f64: features.shader_float64,
        has_bytes: features.storage_buffer8_bit_access && features.shader_int8,
        has_halves: features.storage_buffer16_bit_access,
        has_shuffle: shuffles.is_some_and(|s| s.intersects(SubgroupFeatures::SHUFFLE)),
        f32: FloatControls {
            signed_zero_inf_nan: properties.shader_signed_zero_inf_nan_preserve_float32.unwrap_or(false),
            denorms: properties.shader_denorm_preserve_float32.unwrap_or(false),
            rounding: properties.shader_rounding_mode_rte_float32.unwrap_or(false),
        },
        f64: FloatControls {
            signed_zero_inf_nan: properties.shader_signed_zero_inf_nan_preserve_float64.unwrap_or(false),
            denorms: properties.shader_denorm_preserve_float64.unwrap_or(false),
            rounding: properties.shader_rounding_mode_rte_float64.unwrap_or(false),
        },
    }
}
