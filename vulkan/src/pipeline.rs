//! Shaders as pipelines, made once for equal shaders. Owns the layout that all share and the cache; knows no kernels.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fmt;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ash::vk;
use tapeflow_core::driver::DriverError;
use vulkano::device::Device;
use vulkano::pipeline::cache::{PipelineCache, PipelineCacheCreateInfo};
use vulkano::pipeline::layout::{PipelineLayout, PipelineLayoutCreateInfo, PushConstantRange};
use vulkano::shader::ShaderStages;
use vulkano::{Validated, VulkanError, VulkanObject};

use crate::context::Context;
use crate::counts;
use crate::fault::{self, Fault};
use crate::stage::{Lowering, Push, Shader, Stage};

const ENTRY: &CStr = c"main";

/// A compiled compute shader.
pub(crate) struct Pipeline {
    pub handle: vk::Pipeline,
    device: Arc<Device>,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // SAFETY: whoever recorded it keeps it until its programs have run.
        unsafe { (self.device.fns().v1_0.destroy_pipeline)(self.device.handle(), self.handle, ptr::null()) };
    }
}

/// The pipelines of a device.
pub(crate) struct Pipelines {
    device: Arc<Device>,
    /// No descriptors: everything is found from the push constants.
    pub layout: Arc<PipelineLayout>,
    /// The size of subgroups, where a pipeline has to ask for it.
    subgroup: Option<u32>,
    /// The driver's own.
    cache: Arc<PipelineCache>,
    made: Mutex<HashMap<Arc<Shader>, Weak<Pipeline>>>,
}

impl Pipelines {
    pub(crate) fn new(device: &Arc<Device>, subgroup: Option<u32>) -> Result<Pipelines, Validated<VulkanError>> {
        let push = PushConstantRange { stages: ShaderStages::COMPUTE, offset: 0, size: size_of::<Push>() as u32 };
        let info = PipelineLayoutCreateInfo { push_constant_ranges: vec![push], ..PipelineLayoutCreateInfo::default() };
        let layout = PipelineLayout::new(device.clone(), info)?;
        // SAFETY: there are no initial contents that would have to be valid.
        let cache = unsafe { PipelineCache::new(device.clone(), PipelineCacheCreateInfo::default()) }?;
        Ok(Pipelines { device: device.clone(), layout, subgroup, cache, made: Mutex::default() })
    }

    fn pipeline(&self, context: &Context, shader: &Arc<Shader>) -> Result<Arc<Pipeline>, DriverError> {
        let known = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(shader).and_then(Weak::upgrade);
        if let Some(pipeline) = known {
            return Ok(pipeline);
        }
        // Without the lock: the same shader may be compiled twice at once, which only costs time.
        let injected = fault::strikes(Fault::Pipeline);
        let handle = if injected { Err(VulkanError::Unknown) } else { self.create(shader) };
        let handle = handle.map_err(|error| match error {
            VulkanError::DeviceLost => context.lose(format!("a shader could not be compiled: {error}")),
            VulkanError::OutOfDeviceMemory | VulkanError::OutOfHostMemory => {
                DriverError::Memory { needed: shader.words.len() * 4, purpose: "a shader", reason: error.to_string() }
            }
            error => {
                let words = shader.words.len();
                DriverError::Compile(format!("the driver does not compile a shader of {words} words: {error}"))
            }
        })?;
        counts::PIPELINES.add(1);
        let pipeline = Arc::new(Pipeline { handle, device: self.device.clone() });
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() == made.capacity() {
            made.retain(|_, pipeline| pipeline.strong_count() > 0);
        }
        made.insert(shader.clone(), Arc::downgrade(&pipeline));
        Ok(pipeline)
    }

    fn create(&self, shader: &Shader) -> Result<vk::Pipeline, VulkanError> {
        let fns = &self.device.fns().v1_0;
        let device = self.device.handle();
        let info = vk::ShaderModuleCreateInfo::default().code(&shader.words);
        let mut module = vk::ShaderModule::null();
        // SAFETY: the structures live until the call returns; that the words are a valid module is the emitter's duty,
        // and its tests'.
        unsafe { (fns.create_shader_module)(device, &info, ptr::null(), &mut module) }.result()?;
        let values: Vec<u8> = shader.constants.iter().flat_map(|(_, value)| value.to_ne_bytes()).collect();
        let entries: Vec<vk::SpecializationMapEntry> = shader
            .constants
            .iter()
            .enumerate()
            .map(|(i, &(constant_id, _))| vk::SpecializationMapEntry { constant_id, offset: i as u32 * 4, size: 4 })
            .collect();
        let constants = vk::SpecializationInfo::default().map_entries(&entries).data(&values);
        let mut subgroup = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default()
            .required_subgroup_size(self.subgroup.unwrap_or(0));
        let mut stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(ENTRY)
            .specialization_info(&constants);
        if self.subgroup.is_some() {
            stage = stage.push_next(&mut subgroup);
        }
        let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(self.layout.handle());
        let mut pipeline = vk::Pipeline::null();
        // SAFETY: as above; the layout has the push constants that every shader declares.
        let result = unsafe {
            (fns.create_compute_pipelines)(device, self.cache.handle(), 1, &info, ptr::null(), &mut pipeline)
        };
        // SAFETY: a pipeline does not need its module once it is made.
        unsafe { (fns.destroy_shader_module)(device, module, ptr::null()) };
        result.result()?;
        Ok(pipeline)
    }
}

/// A kernel ready to be recorded.
#[doc(hidden)]
pub struct Compiled {
    /// Whose pipelines they are.
    pub(crate) context: Arc<Context>,
    pub(crate) stages: Vec<(Stage, Arc<Pipeline>)>,
    pub(crate) partial_bytes: usize,
    pub(crate) status_words: u32,
    /// The axis that indices are checked against, if they are.
    pub(crate) extent: usize,
}

impl Compiled {
    pub(crate) fn new(context: &Arc<Context>, lowering: Lowering, extent: usize) -> Result<Compiled, DriverError> {
        context.check()?;
        let Lowering { stages, partial_bytes, status_words } = lowering;
        let [x, y] = context.max_groups.map(u64::from);
        let stages = stages.into_iter().map(|stage| {
            if stage.groups > x * y {
                let groups = stage.groups;
                return Err(DriverError::Unsupported(format!(
                    "a kernel of {groups} workgroups: the device runs {}",
                    x * y
                )));
            }
            let pipeline = context.pipelines.pipeline(context, &stage.shader)?;
            Ok((stage, pipeline))
        });
        let stages = stages.collect::<Result<_, _>>()?;
        Ok(Compiled { context: context.clone(), stages, partial_bytes, status_words, extent })
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<u64> = self.stages.iter().map(|(stage, _)| stage.groups).collect();
        f.debug_struct("Compiled").field("groups", &groups).field("partial_bytes", &self.partial_bytes).finish()
    }
}

impl tapeflow_core::driver::Lowered for Compiled {
    fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }
}
