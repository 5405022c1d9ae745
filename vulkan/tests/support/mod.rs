//! What the tests of this crate share: one open device, kernels run on it and on the processor, and `spirv-val`.

#![allow(dead_code)] // each test binary uses its part

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tapeflow_core::__test::{Isa, compile_for_cpu};
use tapeflow_core::driver::{
    Args, Bindings, Driver as _, DriverError, Fault, Kernel, Lowered, Memory, Place, Plan, PlannedStep, RunError,
};
use tapeflow_vulkan::stage::{Lowering, Shader};
use tapeflow_vulkan::{Driver, Options, spirv};

/// The device that tests share; `None`, and a line that says so, where there is none.
pub fn driver() -> Option<&'static Arc<Driver>> {
    static DRIVER: OnceLock<Result<Arc<Driver>, DriverError>> = OnceLock::new();
    match DRIVER.get_or_init(|| Driver::open(0, &Options::default()).map(Arc::new)) {
        Ok(driver) => Some(driver),
        Err(error) => {
            // Once a test, which has a thread of its own, and past the test harness, so that it is counted.
            thread_local!(static SAID: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
            if !SAID.replace(true) {
                let _ = writeln!(std::io::stdout().lock(), "skipped: no Vulkan device ({error})");
            }
            None
        }
    }
}

/// One step that reads and writes inputs 0, 1, … in the kernel's order.
pub fn step(kernel: Arc<dyn Lowered>, operands: usize) -> PlannedStep {
    PlannedStep {
        kernel,
        operands: (0..operands as u32).map(Place::Input).collect(),
        partial: 0,
        waits: Vec::new(),
        guarded: false,
        name: "test".into(),
    }
}

/// Runs a kernel that was made ready on operands with these contents; their contents afterwards take their place.
pub fn run_lowered(
    driver: &Driver,
    kernel: Arc<dyn Lowered>,
    operands: &mut [Vec<u8>],
    scalars: &[u64],
) -> Result<(), Fault> {
    let arena_bytes = kernel.partial_bytes();
    let steps = [step(kernel, operands.len())];
    let plan = Plan { steps: &steps, arena_bytes, inputs: operands.len(), outputs: 0, scalars: scalars.len() };
    let program = driver.record(&plan)?;
    let arena = driver.allocate(arena_bytes, "an arena")?;
    let mut memories: Vec<Arc<dyn Memory>> = Vec::new();
    for operand in operands.iter() {
        let memory = driver.allocate(operand.len(), "an operand")?;
        memory.write(operand)?;
        memories.push(memory);
    }
    let inputs: Vec<&Arc<dyn Memory>> = memories.iter().collect();
    program.submit(&Bindings { arena: &arena, inputs: &inputs, outputs: &[], scalars })?.wait()?;
    for (memory, operand) in memories.iter().zip(operands) {
        memory.read(operand)?;
    }
    Ok(())
}

/// Emits, validates and runs a kernel on the device.
pub fn run(driver: &Driver, kernel: &Kernel, operands: &mut [Vec<u8>], scalars: &[u64]) -> Result<(), Fault> {
    let lowering =
        spirv::lower(kernel, driver.target()).map_err(|error| DriverError::Unsupported(error.to_string()))?;
    validate(&lowering);
    run_lowered(driver, driver.lower(kernel)?, operands, scalars)
}

/// 64-byte aligned memory for the processor.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

fn lines(bytes: &[u8]) -> Vec<Line> {
    let mut lines = vec![Line([0; 64]); bytes.len().div_ceil(64).max(1)];
    for (line, chunk) in lines.iter_mut().zip(bytes.chunks(64)) {
        line.0[..chunk.len()].copy_from_slice(chunk);
    }
    lines
}

/// Runs the same kernel with the processor's compiler, one chunk after the other.
pub fn run_on_cpu(kernel: &Kernel, operands: &mut [Vec<u8>], scalars: &[u64]) -> Result<(), RunError> {
    let isa = Isa::detect().unwrap_or_else(|error| panic!("{error}"));
    let executable = compile_for_cpu(kernel, isa).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
    let mut copies: Vec<Vec<Line>> = operands.iter().map(|bytes| lines(bytes)).collect();
    let mut partial = vec![Line([0; 64]); executable.partial_bytes().div_ceil(64)];
    let mut scratch = vec![Line([0; 64]); executable.scratch_bytes().div_ceil(64)];
    let length = scratch.len() * 64;
    // SAFETY: the slice covers the vector of plain bytes, which nothing else uses while the slice lives.
    let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast::<u8>(), length) };
    let addresses: Vec<*mut u8> = copies.iter_mut().map(|lines| lines.as_mut_ptr().cast()).collect();
    let args = Args { operands: &addresses, scalars, partial: partial.as_mut_ptr().cast() };
    for chunk in 0..executable.chunks() {
        // SAFETY: the test gives operands as the kernel describes them; nothing else touches them.
        unsafe { executable.run_chunk(chunk, &args, scratch) }?;
    }
    if executable.has_finish() {
        // SAFETY: as above.
        unsafe { executable.finish(&args, scratch) }?;
    }
    for (bytes, lines) in operands.iter_mut().zip(&copies) {
        for (chunk, line) in bytes.chunks_mut(64).zip(lines) {
            chunk.copy_from_slice(&line.0[..chunk.len()]);
        }
    }
    Ok(())
}

/// Runs `spirv-val`, where it is installed, on each module that was not seen before.
///
/// # Panics
/// If a module is not valid.
pub fn validate(lowering: &Lowering) {
    for stage in &lowering.stages {
        validate_shader(&stage.shader);
    }
}

fn validate_shader(shader: &Shader) {
    static SEEN: Mutex<Option<HashSet<u64>>> = Mutex::new(None);
    let mut hasher = DefaultHasher::new();
    shader.words.hash(&mut hasher);
    let hash = hasher.finish();
    if !SEEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(hash) {
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("{hash:016x}.{}.spv", std::process::id()));
    let bytes: Vec<u8> = shader.words.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let Ok(output) = Command::new("spirv-val").args(["--target-env", "vulkan1.3"]).arg(&path).output() else {
        let _ = std::fs::remove_file(&path);
        static TOLD: OnceLock<()> = OnceLock::new();
        TOLD.get_or_init(|| println!("skipped: spirv-val is not installed"));
        return;
    };
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{} is not valid: {complaint}", path.display());
    let _ = std::fs::remove_file(&path);
}

/// The bytes of values.
pub fn bytes<T: Copy, const N: usize>(values: &[T], to_bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| to_bytes(value)).collect()
}

/// The values that bytes are.
pub fn values<T, const N: usize>(bytes: &[u8], from_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
    let chunks = bytes.chunks_exact(N);
    chunks.map(|chunk| from_bytes(std::array::from_fn(|i| chunk[i]))).collect()
}

/// Runs the other tests of this binary again, in a process that has the validation layer; they see to it that it has
/// nothing to say. `skip`: those that need not.
///
/// # Panics
/// If one fails.
pub fn rerun_validated(skip: &[&str]) {
    if std::env::var_os("TAPEFLOW_VALIDATE").is_some() || driver().is_none() {
        return;
    }
    let skip = skip.iter().map(|name| format!("--skip={name}"));
    let (is_right, said) = rerun(skip, &[("TAPEFLOW_VALIDATE", "1")]);
    assert!(is_right, "{said}");
    if said.contains("is not installed") {
        println!("skipped: no validation layer");
    }
}

/// Set in the processes that `rerun` starts.
pub const CHILD: &str = "TAPEFLOW_TEST_CHILD";

/// Runs tests of this binary in a process of its own; gives whether they passed and what they printed.
pub fn rerun(arguments: impl IntoIterator<Item = String>, environment: &[(&str, &str)]) -> (bool, String) {
    let this = std::env::current_exe().unwrap_or_else(|error| panic!("{error}"));
    let mut command = Command::new(this);
    command.args(["--test-threads=1", "--nocapture"]).args(arguments).env(CHILD, "1").envs(environment.iter().copied());
    let output = command.output().unwrap_or_else(|error| panic!("{error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}
