//! What lies between the emitter and the device: a kernel as a list of dispatches, and how a shader finds its operands.
//! Knows neither SPIR-V nor vulkano.

use std::sync::Arc;

/// A compute shader: entry point `main`, push constants [`Push`], no descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shader {
    /// The SPIR-V module.
    pub words: Vec<u32>,
    /// Values of specialization constants, by their ids.
    pub constants: Vec<(u32, u32)>,
}

/// One dispatch of a kernel.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What runs.
    pub shader: Arc<Shader>,
    /// How many workgroups. The device may arrange them in two dimensions: a workgroup's number is
    /// `WorkgroupId.x + WorkgroupId.y · NumWorkgroups.x`, and numbers from `groups` on must do nothing.
    pub groups: u64,
    /// The first of the kernel's operands that is operand 0 of this stage.
    pub operands: u32,
    /// Whether this stage reads what an earlier stage of the kernel wrote.
    pub after_barrier: bool,
}

/// A translated kernel.
#[derive(Clone, Debug, Default)]
pub struct Lowering {
    /// In order.
    pub stages: Vec<Stage>,
    /// Bytes shared by the stages (partial sums).
    pub partial_bytes: usize,
    /// How many words of the status block it writes: 2 if it checks indices, else 0.
    pub status_words: u32,
}

/// The push constants of every shader, baked into the command buffer. All the rest changes from run to run and stands
/// in the parameter block, an array of u64 at `table`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Push {
    /// Device address of the parameter block.
    pub table: u64,
    /// The parameter block's entry that holds the device address of operand 0; the others follow.
    pub operands: u32,
    /// The entry that holds `scalars[0]`; the others follow.
    pub scalars: u32,
    /// The entry that holds the device address of the partial results.
    pub partial: u32,
    /// The entry that holds the device address of the status block, u32 words. Word 0 counts bad indices of the whole
    /// program (0: none); words `status` and `status + 1` are this step's: the smallest bad index found (initially
    /// `i32::MAX`, by signed atomic minimum, clamped to i32) and the largest (initially `i32::MIN`).
    pub status_block: u32,
    /// See `status_block`.
    pub status: u32,
    /// Not 0: do nothing if word 0 of the status block is not 0.
    pub guarded: u32,
}

/// What the emitter must know of a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Invocations that run in step.
    pub subgroup: u32,
    /// Whether it is a processor (lavapipe): workgroups of one subgroup, no shared memory, big register blocks.
    pub is_cpu: bool,
    /// Bytes of shared memory per workgroup.
    pub shared_bytes: u32,
    /// Invocations per workgroup, at most.
    pub workgroup: u32,
    /// f64 arithmetic.
    pub has_f64: bool,
    /// Loads and stores of single bytes (bool, u8).
    pub has_bytes: bool,
    /// Loads and stores of 16 bits (f16, bf16).
    pub has_halves: bool,
    /// Whether invocations of a subgroup can read each other's registers (`SUBGROUP_FEATURE_SHUFFLE_BIT`).
    pub has_shuffle: bool,
    /// What can be asked of f32 arithmetic.
    pub f32: FloatControls,
    /// What can be asked of f64 arithmetic.
    pub f64: FloatControls,
}

/// What can be asked of the arithmetic of one float type (`VkPhysicalDeviceFloatControlsProperties`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FloatControls {
    /// `shaderSignedZeroInfNanPreserve`.
    pub signed_zero_inf_nan: bool,
    /// `shaderDenormPreserve`.
    pub denorms: bool,
    /// `shaderRoundingModeRTE`.
    pub rounding: bool,
}
