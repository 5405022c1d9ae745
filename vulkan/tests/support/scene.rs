//! A small program of hand-written shaders: `x ← a·3 + s` into the arena, then `out ← x·3 + s` again and again.

use std::sync::Arc;

use tapeflow_core::driver::{
    Bindings, Driver as _, DriverError, Fault, Lowered, Memory, Place, Plan, PlannedStep, Recorded, Running,
};
use tapeflow_vulkan::Driver;

use crate::shaders::{Body, kernel};
use crate::support::{bytes, values};

/// Elements of each operand.
pub const ELEMENTS: u32 = 24;

/// A program and what it runs on.
pub struct Scene {
    pub program: Arc<dyn Recorded>,
    pub arena: Arc<dyn Memory>,
    pub input: Arc<dyn Memory>,
    pub output: Arc<dyn Memory>,
    pub steps: u32,
}

/// The steps of a chain of `x·3 + s`; each reads what the one before it wrote. The first reads the input, the last
/// writes the output, those between take turns in the arena.
pub fn chain(kernel: &Arc<dyn Lowered>, steps: u32) -> Vec<PlannedStep> {
    let place = |i: u32| match i {
        0 => Place::Input(0),
        i if i == steps => Place::Output(0),
        i => Place::Arena(256 * (i as usize % 2)),
    };
    (0..steps)
        .map(|i| PlannedStep {
            kernel: kernel.clone(),
            operands: vec![place(i), place(i + 1)],
            partial: 0,
            waits: i.checked_sub(1).into_iter().collect(),
            guarded: false,
            name: format!("step {i}"),
        })
        .collect()
}

impl Scene {
    /// With input 0, 1, 2, …
    pub fn new(driver: &Arc<Driver>, steps: u32) -> Result<Scene, DriverError> {
        let kernel: Arc<dyn Lowered> = driver.compile(kernel(Body::Affine { factor: 3 }, ELEMENTS), 0)?;
        let plan = Plan { steps: &chain(&kernel, steps), arena_bytes: 512, inputs: 1, outputs: 1, scalars: 1 };
        let program = driver.record(&plan)?;
        let size = ELEMENTS as usize * 4;
        let arena = driver.allocate(512, "an arena")?;
        let input = driver.allocate(size, "an input")?;
        let output = driver.allocate(size, "an output")?;
        input.write(&bytes(&(0..ELEMENTS).collect::<Vec<u32>>(), u32::to_le_bytes))?;
        Ok(Scene { program, arena, input, output, steps })
    }

    pub fn submit(&self, scalar: u32, output: &Arc<dyn Memory>) -> Result<Box<dyn Running>, DriverError> {
        self.program.submit(&Bindings {
            arena: &self.arena,
            inputs: &[&self.input],
            outputs: &[output],
            scalars: &[u64::from(scalar)],
        })
    }

    pub fn run(&self, scalar: u32) -> Result<(), Fault> {
        self.submit(scalar, &self.output)?.wait()
    }

    /// Whether the output holds what a run with this scalar gives.
    pub fn is_right(&self, scalar: u32, output: &Arc<dyn Memory>) -> Result<bool, DriverError> {
        let mut found = vec![0; ELEMENTS as usize * 4];
        output.read(&mut found)?;
        let expected = (0..ELEMENTS).map(|i| (0..self.steps).fold(i, |x, _| x.wrapping_mul(3).wrapping_add(scalar)));
        Ok(values(&found, u32::from_le_bytes).into_iter().eq(expected))
    }
}
