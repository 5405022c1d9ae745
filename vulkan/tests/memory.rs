//! Device memory: what is written is read, nothing overlaps, nothing leaks, and running out says why.

#[path = "support/scene.rs"]
#[allow(dead_code)]
mod scene;
#[path = "support/shaders.rs"]
#[allow(dead_code)]
mod shaders;
mod support;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use scene::Scene;
use support::driver;
use tapeflow_core::driver::{Driver as _, DriverError, Memory};
use tapeflow_vulkan::{Driver, Fault, Options, Ranges, clear, counts, inject, set_memory_limit, validation_messages};

/// The counters are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(staging: bool) -> Arc<Driver> {
    Arc::new(Driver::open(0, &Options { staging, ..Options::default() }).unwrap())
}

/// Bytes that are another sequence for each seed.
fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8 ^ (seed * 37) as u8).collect()
}

proptest! {
    /// Ranges that are out never overlap; when all are back, there is one free range again.
    #[test]
    fn ranges_never_overlap(actions in proptest::collection::vec((any::<bool>(), 1_u64..40, any::<usize>()), 1..200)) {
        const GRAIN: u64 = 256;
        let size = 256 * GRAIN;
        let mut ranges = Ranges::new(size);
        let mut out: Vec<(u64, u64)> = Vec::new();
        for (take, grains, pick) in actions {
            if take {
                let length = grains * GRAIN;
                let fit = ranges.fit(length);
                let free: u64 = size - out.iter().map(|(_, length)| length).sum::<u64>();
                match ranges.take(length) {
                    Some(offset) => {
                        prop_assert!(fit.is_some_and(|fit| fit >= length));
                        prop_assert!(offset % GRAIN == 0 && offset + length <= size);
                        prop_assert!(out.iter().all(|&(o, l)| offset + length <= o || o + l <= offset));
                        out.push((offset, length));
                    }
                    None => prop_assert!(fit.is_none() && ranges.largest() < length && free >= ranges.largest()),
                }
            } else if !out.is_empty() {
                let (offset, length) = out.swap_remove(pick % out.len());
                ranges.give(offset, length);
            }
        }
        for (offset, length) in out {
            ranges.give(offset, length);
        }
        prop_assert!(ranges.is_unused());
        prop_assert_eq!(ranges.take(size), Some(0));
    }
}

#[test]
fn what_is_written_is_read() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    for staging in [false, true] {
        let driver = open(staging);
        for length in [0, 1, 3, 255, 256, 257, 4_095, 65_536, (1 << 20) + 7, (16 << 20) + 5, 100 << 20] {
            let memory = driver.allocate(length, "a test").unwrap();
            let written = pattern(length, length);
            memory.write(&written).unwrap();
            let mut read = vec![0; length];
            memory.read(&mut read).unwrap();
            assert!(read == written, "{staging} {length}");
            // The first bytes again, and only those.
            let first = length / 3;
            memory.write(&vec![1; first]).unwrap();
            memory.read(&mut read).unwrap();
            assert!(read[..first].iter().all(|&b| b == 1) && read[first..] == written[first..], "{staging} {length}");
        }
    }
    assert_eq!(validation_messages(), 0);
}

#[test]
fn memory_that_comes_and_goes_keeps_apart() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    for staging in [false, true] {
        let driver = open(staging);
        let before = counts();
        let mut out: Vec<(usize, usize, Arc<dyn Memory>)> = Vec::new();
        let mut state = 7_usize;
        for i in 0..400 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = state >> 33;
            if out.len() > 30 || (!out.is_empty() && random.is_multiple_of(3)) {
                let (seed, length, memory) = out.swap_remove(random % out.len());
                let mut read = vec![0; length];
                memory.read(&mut read).unwrap();
                assert!(read == pattern(seed, length), "{staging} {i}");
            } else {
                let length = if random.is_multiple_of(10) { random % (3 << 20) } else { random % 5_000 };
                let memory = driver.allocate(length, "a test").unwrap();
                memory.write(&pattern(i, length)).unwrap();
                out.push((i, length, memory));
            }
        }
        for (seed, length, memory) in out {
            let mut read = vec![0; length];
            memory.read(&mut read).unwrap();
            assert!(read == pattern(seed, length), "{staging}");
        }
        drop(driver);
        let after = counts();
        assert_eq!((after.ranges, after.bytes), (before.ranges, before.bytes));
    }
    assert_eq!(validation_messages(), 0);
}

#[test]
fn freed_memory_is_used_again() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let driver = open(false);
    let _kept = driver.allocate(1, "a test").unwrap();
    let blocks = counts().blocks;
    for _ in 0..1_000 {
        drop(driver.allocate(40 << 20, "a test").unwrap());
    }
    assert_eq!(counts().blocks, blocks);
}

#[test]
fn running_out_says_what_there_was() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let options = Options { memory_limit: Some(10 << 20), ..Options::default() };
    let driver = Arc::new(Driver::open(0, &options).unwrap());
    let refused = |bytes: usize, parts: &[&str]| {
        let error = driver.allocate(bytes, "a test").unwrap_err();
        let DriverError::Memory { needed, purpose, .. } = &error else { panic!("{error}") };
        assert_eq!((*needed, *purpose), (bytes, "a test"));
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)) && !text.contains('\n'), "{text}");
    };
    let first = driver.allocate(6 << 20, "a test").unwrap();
    refused(5 << 20, &["5242880 bytes for a test", "6291456 bytes are in use", "the limit is 10485760", "heap has"]);
    let second = driver.allocate(4 << 20, "a test").unwrap();
    refused(1, &["10485760 bytes are in use", "the largest free range is 0"]);
    drop(first);
    drop(driver.allocate(5 << 20, "a test").unwrap());
    drop(second);
    drop(driver.allocate(10 << 20, "a test").unwrap());
    refused(usize::MAX, &["the device has not that much"]);
    refused(1 << 50, &["the device has not that much"]);
    refused((10 << 20) + 1, &["the limit does not allow it", "0 bytes are in use"]);
    // The device goes on.
    let scene = Scene::new(&driver, 3).unwrap();
    scene.run(1).unwrap();
    assert!(scene.is_right(1, &scene.output).unwrap());
    assert_eq!(driver.lost(), None);
}

#[test]
fn a_request_larger_than_a_block_gets_its_own() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let driver = open(false);
    let before = counts();
    let small = driver.allocate(1, "a test").unwrap();
    let big = driver.allocate(300 << 20, "a test").unwrap();
    assert_eq!(counts().blocks, before.blocks + 2);
    big.write(&[1, 2, 3]).unwrap();
    drop((small, big));
    assert_eq!(counts().bytes, before.bytes);
}

/// As for every step's arena: neither it nor small memory between two steps makes the driver give a block again.
#[test]
fn large_memory_that_comes_back_is_not_asked_for_again() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let driver = open(false);
    let _kept = driver.allocate(1, "a test").unwrap();
    drop(driver.allocate(300 << 20, "a test").unwrap());
    let blocks = counts().blocks;
    for _ in 0..100 {
        let small = driver.allocate(60 << 20, "a test").unwrap();
        drop(driver.allocate(300 << 20, "a test").unwrap());
        drop(driver.allocate(290 << 20, "a test").unwrap());
        drop(small);
    }
    assert_eq!(counts().blocks, blocks);
}

#[test]
fn transfers_go_on_beside_a_run() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let driver = open(false);
    let scene = Scene::new(&driver, 300).unwrap();
    let run = scene.submit(3, &scene.output).unwrap();
    // Any wait for the device would now fail: memory that the run does not use is written and read without one.
    inject(Fault::Wait, 0);
    let other = driver.allocate(1000, "a test").unwrap();
    let mut read = vec![0; 1000];
    let done = other.write(&[5; 1000]).and_then(|()| other.read(&mut read));
    clear();
    done.unwrap();
    assert_eq!(read, [5; 1000]);
    run.wait().unwrap();
    assert!(scene.is_right(3, &scene.output).unwrap());
    assert_eq!(validation_messages(), 0);
}

#[test]
fn memory_in_use_by_a_run_is_written_after_it() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    for staging in [false, true] {
        let driver = open(staging);
        let scene = Scene::new(&driver, 300).unwrap();
        for scalar in 0..10 {
            let run = scene.submit(scalar, &scene.output).unwrap();
            // New memory need not wait; the input must.
            let other = driver.allocate(1000, "a test").unwrap();
            other.write(&[5; 1000]).unwrap();
            let mut input = vec![0; scene::ELEMENTS as usize * 4];
            scene.input.read(&mut input).unwrap();
            scene.input.write(&vec![0xff; input.len()]).unwrap();
            scene.input.write(&input).unwrap();
            run.wait().unwrap();
            assert!(scene.is_right(scalar, &scene.output).unwrap(), "{staging} {scalar}");
        }
    }
    assert_eq!(validation_messages(), 0);
}

#[test]
fn threads_allocate_at_once() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    for staging in [false, true] {
        let driver = open(staging);
        let before = counts();
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let driver = &driver;
                threads.spawn(move || {
                    for i in 0..100 {
                        let written = pattern(thread * 1000 + i, (i * 977) % 50_000);
                        let memory = driver.allocate(written.len(), "a test").unwrap();
                        memory.write(&written).unwrap();
                        let mut read = vec![0; written.len()];
                        memory.read(&mut read).unwrap();
                        assert!(read == written);
                    }
                });
            }
        });
        drop(driver);
        assert_eq!(counts().bytes, before.bytes);
    }
    assert_eq!(validation_messages(), 0);
}

#[test]
fn the_limit_of_the_process_holds_for_every_device() {
    let _alone = alone();
    let Some(_) = driver() else { return };
    let (one, other) = (open(false), open(false));
    set_memory_limit(Some(1 << 20));
    for driver in [&one, &other] {
        assert!(matches!(driver.allocate(2 << 20, "a test"), Err(DriverError::Memory { .. })));
        driver.allocate(1 << 20, "a test").unwrap();
    }
    set_memory_limit(None);
    one.allocate(2 << 20, "a test").unwrap();
}

#[test]
fn the_validation_layer_has_nothing_to_say() {
    support::rerun_validated(&["ranges_never_overlap"]);
}
