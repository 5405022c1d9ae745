//! The device without the emitter: programs of shaders written by hand.

#[path = "support/scene.rs"]
mod scene;
#[path = "support/shaders.rs"]
mod shaders;
mod support;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scene::{ELEMENTS, Scene, chain};
use shaders::{Body, kernel};
use support::{bytes, driver, run_lowered, validate, values};
use tapeflow_core::driver::{Bindings, Driver as _, DriverError, Fault, Lowered, Place, Plan, PlannedStep, RunError};
use tapeflow_vulkan::{Driver, Options, counts, validation_messages};

/// The counters are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device of its own, with its memory visible to the host or not.
fn open(staging: bool) -> Arc<Driver> {
    Arc::new(Driver::open(0, &Options { staging, ..Options::default() }).unwrap())
}

#[test]
fn a_shader_computes() {
    let _alone = alone();
    let Some(driver) = driver() else { return };
    // More than fit into one dimension of a grid, too.
    for elements in [1, 7, 70_000] {
        let lowering = kernel(Body::Affine { factor: 3 }, elements);
        validate(&lowering);
        let a: Vec<u32> = (0..elements).collect();
        let mut operands = [bytes(&a, u32::to_le_bytes), vec![0; a.len() * 4]];
        let kernel = driver.compile(lowering, 0).unwrap();
        run_lowered(driver, kernel, &mut operands, &[5]).unwrap();
        let b = values(&operands[1], u32::from_le_bytes);
        assert!(b.iter().zip(&a).all(|(&b, &a)| b == a * 3 + 5), "{elements}");
    }
    assert_eq!(validation_messages(), 0);
}

#[test]
fn steps_see_what_they_wait_for() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    for staging in [false, true] {
        let scene = Scene::new(&open(staging), 101).unwrap();
        for scalar in 0..20 {
            scene.run(scalar).unwrap();
            assert!(scene.is_right(scalar, &scene.output).unwrap(), "{staging} {scalar}");
        }
    }
    assert_eq!(validation_messages(), 0);
}

#[test]
fn ten_thousand_runs_leave_nothing_behind() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let scene = Scene::new(&open(false), 3).unwrap();
    (0..100).for_each(|i| scene.run(i).unwrap());
    let (before, memory) = (counts(), resident());
    for i in 0..10_000 {
        scene.run(i).unwrap();
    }
    assert!(scene.is_right(9_999, &scene.output).unwrap());
    let mut after = counts();
    assert_eq!(after.submits, before.submits + 10_000);
    after.submits = before.submits;
    assert_eq!(after, before);
    assert_eq!(after.recorded - before.recorded, 0);
    let grown = resident().saturating_sub(memory);
    assert!(grown < 2 << 20, "{grown} bytes");
    assert_eq!(validation_messages(), 0);
}

/// Bytes of this process in memory, where the system tells.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    pages.and_then(|p| p.split(' ').nth(1)?.parse::<usize>().ok()).map_or(0, |pages| pages * 4096)
}

#[test]
fn two_runs_are_in_flight_and_a_third_waits() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    for staging in [false, true] {
        let driver = open(staging);
        let scene = Scene::new(&driver, 40).unwrap();
        let recorded = counts().recorded;
        let size = ELEMENTS as usize * 4;
        let outputs: Vec<_> = (0..9).map(|_| driver.allocate(size, "an output").unwrap()).collect();
        let runs: Vec<_> = outputs.iter().zip(0..).map(|(output, i)| scene.submit(i, output).unwrap()).collect();
        assert_eq!(counts().recorded, recorded + 1, "the second slot, once");
        // Waited for in another order; one is dropped instead, one read before it is waited for.
        for (i, run) in runs.into_iter().enumerate().rev() {
            match i {
                4 => drop(run),
                2 => assert!(scene.is_right(2, &outputs[2]).unwrap()),
                _ => run.wait().unwrap(),
            }
        }
        for (output, i) in outputs.iter().zip(0..) {
            assert!(scene.is_right(i, output).unwrap(), "{staging} {i}");
        }
    }
    assert_eq!(validation_messages(), 0);
}

#[test]
fn a_program_keeps_its_memory_until_it_has_run() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let driver = open(false);
    let Scene { program, arena, input, output, .. } = Scene::new(&driver, 200).unwrap();
    let ranges = counts().ranges;
    let run =
        program.submit(&Bindings { arena: &arena, inputs: &[&input], outputs: &[&output], scalars: &[1] }).unwrap();
    drop((program, arena, input, output));
    assert_eq!(counts().ranges, ranges);
    run.wait().unwrap();
    drop(driver);
    assert_eq!(counts().ranges, ranges - 4, "three buffers and a parameter block");
}

#[test]
fn a_bad_index_is_the_fault_of_the_first_step_that_found_it() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    for staging in [false, true] {
        let driver = open(staging);
        let check = |extent| -> Arc<dyn Lowered> {
            let lowering = kernel(Body::Check { extent }, ELEMENTS);
            validate(&lowering);
            driver.compile(lowering, extent as usize).unwrap()
        };
        let copy: Arc<dyn Lowered> = driver.compile(kernel(Body::Affine { factor: 1 }, ELEMENTS), 0).unwrap();
        let step = |kernel: &Arc<dyn Lowered>, operands: &[Place], waits: &[u32], guarded| PlannedStep {
            kernel: kernel.clone(),
            operands: operands.to_vec(),
            partial: 0,
            waits: waits.to_vec(),
            guarded,
            name: String::new(),
        };
        let (a, b) = (Place::Input(0), Place::Input(1));
        let steps = [
            step(&check(1000), &[a], &[], false),
            step(&check(10), &[a], &[], false),
            step(&check(5), &[a], &[], false),
            step(&copy, &[a, Place::Output(0)], &[0, 1, 2], false),
            step(&copy, &[a, b], &[0, 1, 2], true),
        ];
        let plan = Plan { steps: &steps, arena_bytes: 0, inputs: 2, outputs: 1, scalars: 1 };
        let program = driver.record(&plan).unwrap();
        let size = ELEMENTS as usize * 4;
        let [arena, a, b, c] = [0, size, size, size].map(|size| driver.allocate(size, "a test").unwrap());
        let run = |values: &[u32]| {
            a.write(&bytes(values, u32::to_le_bytes)).unwrap();
            b.write(&vec![7; size]).unwrap();
            let bindings = Bindings { arena: &arena, inputs: &[&a, &b], outputs: &[&c], scalars: &[0] };
            let result = program.submit(&bindings).unwrap().wait();
            let mut written = [vec![0; size], vec![0; size]];
            b.read(&mut written[0]).unwrap();
            c.read(&mut written[1]).unwrap();
            (result, written[0] != vec![7; size], values_of(&written[1]) == values)
        };
        let mut indices = vec![3; ELEMENTS as usize];
        for _ in 0..3 {
            assert_eq!(run(&indices), (Ok(()), true, true));
            indices[5] = 17;
            let error = DriverError::Run(RunError::Index { index: 17, extent: 10 });
            assert_eq!(run(&indices), (Err(Fault { step: Some(1), error }), false, true));
            indices[5] = 6;
            let error = DriverError::Run(RunError::Index { index: 6, extent: 5 });
            assert_eq!(run(&indices), (Err(Fault { step: Some(2), error }), false, true));
            indices[5] = 2;
        }
    }
    assert_eq!(validation_messages(), 0);
}

fn values_of(bytes: &[u8]) -> Vec<u32> {
    values(bytes, u32::from_le_bytes)
}

#[test]
fn what_does_not_fit_the_plan_is_refused() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let (driver, other) = (open(false), open(false));
    let scene = Scene::new(&driver, 2).unwrap();
    let refuses = |bindings: Bindings<'_>, why: &str| {
        let Err(error) = scene.program.submit(&bindings) else { panic!("{why}") };
        assert!(matches!(&error, DriverError::Unsupported(text) if text.contains(why)), "{error}");
    };
    let (arena, inputs, outputs) = (&scene.arena, &[&scene.input][..], &[&scene.output][..]);
    let right = Bindings { arena, inputs, outputs, scalars: &[1] };
    refuses(Bindings { scalars: &[], ..right }, "0 scalars are given, 1 are needed");
    refuses(Bindings { inputs: &[], ..right }, "0 inputs are given, 1 are needed");
    refuses(Bindings { arena: &scene.output, ..right }, "the arena has 96 bytes, 512 are needed");
    let foreign = other.allocate(512, "an arena").unwrap();
    refuses(Bindings { arena: &foreign, ..right }, "memory of another device");
    assert!(matches!(scene.input.write(&[0; 97]), Err(DriverError::Unsupported(_))));

    let kernel: Arc<dyn Lowered> = other.compile(kernel(Body::Affine { factor: 3 }, 1), 0).unwrap();
    let plan = Plan { steps: &chain(&kernel, 1), arena_bytes: 0, inputs: 1, outputs: 1, scalars: 1 };
    assert!(matches!(driver.record(&plan), Err(DriverError::Unsupported(_))));
    assert!(matches!(other.record(&Plan { inputs: 0, ..plan }), Err(DriverError::Unsupported(_))));
    scene.run(1).unwrap();
    assert!(scene.is_right(1, &scene.output).unwrap());
}

#[test]
fn equal_shaders_share_a_pipeline() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let driver = open(false);
    let before = counts().pipelines;
    let kernels = [2, 3, 2, 3].map(|factor| driver.compile(kernel(Body::Affine { factor }, 1), 0).unwrap());
    assert_eq!(counts().pipelines, before + 2);
    drop(kernels);
    driver.compile(kernel(Body::Affine { factor: 2 }, 1), 0).unwrap();
    assert_eq!(counts().pipelines, before + 3, "nobody kept it");
}

#[test]
fn threads_share_a_device() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    for staging in [false, true] {
        let driver = open(staging);
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let driver = &driver;
                threads.spawn(move || {
                    let scene = Scene::new(driver, 5).unwrap();
                    for i in 0..50 {
                        scene.run(thread * 100 + i).unwrap();
                        assert!(scene.is_right(thread * 100 + i, &scene.output).unwrap());
                    }
                });
            }
        });
    }
    assert_eq!(validation_messages(), 0);
}

#[test]
fn a_run_that_takes_too_long_is_a_lost_device() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let options = Options { timeout: Some(Duration::from_millis(1)), ..Options::default() };
    let driver = Driver::open(0, &options).unwrap();
    let elements = 1 << 20;
    let kernel: Arc<dyn Lowered> = driver.compile(kernel(Body::Affine { factor: 3 }, elements), 0).unwrap();
    let steps = vec![chain(&kernel, 1).remove(0); if driver.target().is_cpu { 1 } else { 200 }];
    let plan = Plan { steps: &steps, arena_bytes: 0, inputs: 1, outputs: 1, scalars: 1 };
    let program = driver.record(&plan).unwrap();
    let [arena, a, b] = [0, 4 << 20, 4 << 20].map(|size| driver.allocate(size, "a test").unwrap());
    let bindings = Bindings { arena: &arena, inputs: &[&a], outputs: &[&b], scalars: &[0] };
    let error = program.submit(&bindings).unwrap().wait().unwrap_err().error;
    assert!(matches!(&error, DriverError::Lost(why) if why.contains("TAPEFLOW_VULKAN_TIMEOUT")), "{error}");
    assert_eq!(driver.lost(), Some(error.clone()));
    assert_eq!(a.read(&mut [0]), Err(error.clone()));
    assert_eq!(driver.allocate(1, "a test").err(), Some(error.clone()));
    assert_eq!(program.submit(&bindings).err(), Some(error));
    // What the device may still be writing to is not given back.
    drop((program, kernel, arena, a, b, driver));
    let scene = Scene::new(&open(false), 2).unwrap();
    scene.run(1).unwrap();
    assert!(scene.is_right(1, &scene.output).unwrap());
}

#[test]
fn the_validation_layer_has_nothing_to_say() {
    support::rerun_validated(&["a_run_that_takes_too_long", "ten_thousand"]);
}
