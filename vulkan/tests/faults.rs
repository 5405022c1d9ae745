//! Every point where a device can fail, made to fail: always an error, never a panic or a hang, and a device opened
//! afterwards works.

#[path = "support/scene.rs"]
#[allow(dead_code)]
mod scene;
#[path = "support/shaders.rs"]
#[allow(dead_code)]
mod shaders;
mod support;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scene::Scene;
use support::driver;
use tapeflow_core::driver::{Driver as _, DriverError};
use tapeflow_vulkan::{Driver, Fault, Options, clear, counts, inject, validation_messages};

/// What is injected is the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(staging: bool) -> Result<Arc<Driver>, DriverError> {
    Driver::open(0, &Options { staging, ..Options::default() }).map(Arc::new)
}

/// All that a training step does with a device.
fn work(driver: &Arc<Driver>) -> Result<(), DriverError> {
    let scene = Scene::new(driver, 5)?;
    let other = driver.allocate(20 << 20, "a test")?;
    other.write(&vec![9; 17 << 20])?;
    let runs = [scene.submit(1, &scene.output)?, scene.submit(2, &scene.output)?, scene.submit(3, &scene.output)?];
    for run in runs {
        run.wait().map_err(|fault| fault.error)?;
    }
    assert!(scene.is_right(3, &scene.output)?);
    let mut read = vec![0; 17 << 20];
    other.read(&mut read)?;
    assert!(read.iter().all(|&byte| byte == 9));
    Ok(())
}

#[test]
fn every_failure_is_an_error_and_the_next_device_works() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let before = counts();
    for staging in [false, true] {
        for fault in [Fault::Allocate, Fault::Block, Fault::Submit, Fault::Wait, Fault::Pipeline, Fault::Lost] {
            let mut failures = 0;
            for after in 0.. {
                let driver = open(staging).unwrap();
                inject(fault, after);
                let result = work(&driver);
                clear();
                let Err(error) = result else { break };
                failures += 1;
                let is_expected = match fault {
                    // A smaller block may do where a big one was refused, so `Block` fails only now and then.
                    Fault::Allocate | Fault::Block | Fault::Submit => matches!(error, DriverError::Memory { .. }),
                    Fault::Pipeline => matches!(error, DriverError::Compile(_)),
                    Fault::Wait | Fault::Lost => matches!(error, DriverError::Lost(_)),
                };
                assert!(is_expected, "{fault:?} {after} {staging}: {error:?}");
                match driver.lost() {
                    // The same device goes on.
                    None => assert_eq!(work(&driver), Ok(()), "{fault:?} {after} {staging}"),
                    Some(lost) => {
                        assert_eq!(lost, error);
                        assert_eq!(work(&driver), Err(error), "{fault:?} {after} {staging}");
                    }
                }
                drop(driver);
                assert_eq!(work(&open(staging).unwrap()), Ok(()), "{fault:?} {after} {staging}");
                assert!(after < 100, "{fault:?} happens each time");
            }
            let is_certain = !matches!(fault, Fault::Block);
            assert!(failures > 0 || !is_certain, "{fault:?} never happened");
        }
    }
    let after = counts();
    assert_eq!((after.ranges, after.bytes), (before.ranges, before.bytes));
    assert_eq!(validation_messages(), 0);
}

#[test]
fn a_driver_that_refuses_every_block_is_out_of_memory() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let driver = open(false).unwrap();
    // The big block, and then the one that is only as big as needed.
    inject(Fault::Block, 0);
    inject(Fault::Block, 1);
    let error = driver.allocate(1000, "a test").unwrap_err();
    clear();
    assert!(matches!(&error, DriverError::Memory { needed: 1000, reason, .. } if reason.contains("refused a block")));
    assert_eq!(work(&driver), Ok(()));
    inject(Fault::Block, 0);
    assert_eq!(work(&driver), Ok(()), "a smaller block will do");
    clear();
}

#[test]
fn what_was_made_by_a_lost_device_can_be_dropped_in_any_order() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let before = counts();
    for fault in [Fault::Wait, Fault::Lost] {
        for order in 0..4 {
            let driver = open(false).unwrap();
            let scene = Scene::new(&driver, 50).unwrap();
            let first = scene.submit(1, &scene.output).unwrap();
            inject(fault, 0);
            let second = scene.submit(2, &scene.output);
            match order {
                0 => drop((driver, scene, first, second)),
                1 => drop((second, first, scene, driver)),
                2 => drop((scene, driver, second, first)),
                _ => {
                    let ends = [Some(first), second.ok()].into_iter().flatten();
                    assert!(ends.map(|run| run.wait()).any(|end| end.is_err()));
                    drop((scene, driver));
                }
            }
            clear();
            assert_eq!(work(&open(false).unwrap()), Ok(()));
        }
    }
    let after = counts();
    assert_eq!((after.ranges, after.bytes), (before.ranges, before.bytes));
}

#[test]
fn the_validation_layer_has_nothing_to_say() {
    support::rerun_validated(&[]);
}
