//! What captured steps keep of their slots from run to run, and that nobody can tell: others read, replace and update
//! the slots at any time. The tests share one tape, and run one at a time.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tapeflow::prelude::*;
use tapeflow::{CapturedStep, Result, Slot, capture, commit};

fn vector(values: &[f32]) -> Tensor {
    Tensor::from_vec(values.to_vec(), [values.len()])
}

/// A capture computes first what waits on the tape, that of other threads too: an update that another test has just
/// recorded would then be a value of its own, and not be made in place.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs that follow each other keep what they have of the slots; whoever looks in between finds the present versions.
#[test]
fn between_runs_the_slots_are_everybodys() -> Result<()> {
    let _alone = alone();
    let (w, last) = (Parameter::new(vector(&[0.0, 0.0]))?, Slot::new(vector(&[0.0, 0.0]))?);
    let (scale, x) = (Slot::new(vector(&[1.0, 1.0]))?, vector(&[1.0, 2.0]));
    // One new version goes where the old one was, one apart from it, and one slot is only read.
    let mut step = capture(&[&x], |given| {
        let moved = &given[0] * scale.tensor();
        commit(&[(w.slot(), w.tensor() + &moved), (&last, w.tensor() * 1.0)])?;
        Ok::<_, tapeflow::Error>(vec![])
    })?;
    let mut expected = 1.0;
    let mut runs = |step: &mut CapturedStep, by: f32| -> Result<f32> {
        for _ in 0..3 {
            step.run(&[&x])?;
            expected += by;
        }
        Ok(expected)
    };
    let are = |w_is: f32, last_is: f32| -> Result<()> {
        assert_eq!(w.tensor().to_vec::<f32>()?, [w_is, 2.0 * w_is]);
        assert_eq!(last.tensor().to_vec::<f32>()?, [last_is, 2.0 * last_is]);
        Ok(())
    };
    // They are read, once and in turn with runs.
    let now = runs(&mut step, 1.0)?;
    are(now, now - 1.0)?;
    let now = runs(&mut step, 1.0)?;
    are(now, now - 1.0)?;
    // What was recorded before a run is of the version before it.
    let before = w.tensor().sum();
    let now = runs(&mut step, 1.0)?;
    assert_eq!(before.item::<f32>()?, 3.0 * (now - 3.0));
    // What is only read is replaced, updated by a plain step and, with another type, refused.
    scale.set(&vector(&[2.0, 2.0]))?;
    let now = runs(&mut step, 2.0)?;
    commit(&[(&scale, scale.tensor() * 0.5)])?;
    let now = runs(&mut step, 1.0)? - now;
    assert_eq!(now, 3.0);
    scale.replace(&vector(&[1.0]))?;
    assert!(step.run(&[&x]).unwrap_err().to_string().contains("capture it again"));
    scale.replace(&vector(&[1.0, 1.0]))?;
    // So is what is updated: by a plain step, by hand, and when it is frozen.
    let now = runs(&mut step, 1.0)?;
    commit(&[(w.slot(), w.tensor() * 2.0)])?;
    are(2.0 * now, now - 1.0)?;
    w.set(&vector(&[now, 2.0 * now]))?;
    let now = runs(&mut step, 1.0)?;
    w.freeze(true)?;
    assert!(step.run(&[&x]).unwrap_err().to_string().contains("capture it again"));
    are(now, now - 1.0)?;
    w.freeze(false)?;
    // A handle that is held is refused, whichever slot it is of; nothing has happened then.
    for slot in [w.slot(), &last] {
        let now = runs(&mut step, 1.0)?;
        let held = slot.tensor();
        assert!(step.run(&[&x]).unwrap_err().to_string().contains("held elsewhere"));
        drop(held);
        are(now, now - 1.0)?;
    }
    // A failed run in between leaves everything as it was, and the next one goes on.
    let now = runs(&mut step, 1.0)?;
    assert!(step.run(&[&x.sum()]).is_err());
    assert!(step.run(&[&(&x + vector(&[1.0, 2.0, 3.0]))]).is_err());
    are(now, now - 1.0)?;
    let now = runs(&mut step, 1.0)?;
    // The step goes, with or without anybody looking before.
    drop(step);
    are(now, now - 1.0)
}

/// A slot's handle stays the same from run to run, while its memory may be another after each: who found the memory of
/// one version must not take it for the next.
#[test]
fn versions_that_change_places_are_found_as_inputs() -> Result<()> {
    let _alone = alone();
    let last = Slot::new(vector(&[0.0]))?;
    let mut turn = capture(&[&vector(&[1.0])], |given| {
        commit(&[(&last, &given[0] * 1.0)])?;
        Ok::<_, tapeflow::Error>(vec![])
    })?;
    let total = Slot::new(vector(&[0.0]))?;
    let mut add = capture(&[&vector(&[0.0])], |given| {
        commit(&[(&total, total.tensor() + &given[0])])?;
        Ok::<_, tapeflow::Error>(vec![])
    })?;
    let mut expected = 0.0;
    for k in 0..12 {
        for i in 0..=k % 3 {
            turn.run(&[&vector(&[(10 * k + i) as f32])])?;
        }
        expected += (10 * k + k % 3) as f32;
        add.run(&[&last.tensor()])?;
        add.run(&[&vector(&[0.0])])?;
        assert_eq!(total.tensor().to_vec::<f32>()?, [expected]);
    }
    Ok(())
}

/// What a step has of its slots between runs goes with it, or with whoever asks: nothing is kept, and plain updates of
/// a slot that a step reads are made in place.
#[test]
fn a_step_at_rest_keeps_no_memory_from_others() -> Result<()> {
    let _alone = alone();
    const LENGTH: usize = 1 << 20;
    let big = |value: f32| Tensor::from_vec(vec![value; LENGTH], [LENGTH]);
    let (w, scale) = (Slot::new(big(0.0))?, Slot::new(big(1.0))?);
    let mut step = capture(&[], |_| {
        commit(&[(&w, w.tensor() + scale.tensor())])?;
        Ok::<_, tapeflow::Error>(vec![])
    })?;
    for k in 0..4 {
        step.run(&[])?;
        step.run(&[])?;
        commit(&[(&scale, scale.tensor() + 1.0)])?;
        assert!(planned_in_place(&scale)?, "round {k}");
    }
    step.run(&[])?;
    drop(step);
    assert_eq!(w.tensor().to_vec::<f32>()?[LENGTH - 1], 26.0);
    assert!(planned_in_place(&w)?);
    Ok(())
}

/// Whether a plain update of the slot is made in the memory of the old version: the address that a view of the bytes
/// shows stays the same.
fn planned_in_place(slot: &Slot) -> Result<bool> {
    let place = || slot.tensor().with_bytes(|bytes| bytes.as_ptr().addr());
    let before = place()?;
    commit(&[(slot, slot.tensor() * 1.0)])?;
    Ok(before == place()?)
}

/// One step, and readers on other threads who look whenever they like: each sees a whole version, none before one it
/// saw earlier, and a run is made whole or refused.
#[test]
fn readers_see_whole_versions_in_order() -> Result<()> {
    let _alone = alone();
    const LENGTH: usize = 5000;
    let count = Slot::new(vector(&[0.0; LENGTH]))?;
    let one = vector(&[1.0; LENGTH]);
    let mut step = capture(&[&one], |given| {
        commit(&[(&count, count.tensor() + &given[0])])?;
        Ok::<_, tapeflow::Error>(vec![])
    })?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| -> Result<()> {
                let mut last = 0.0;
                while !over.load(Relaxed) {
                    let seen = count.tensor().to_vec::<f32>()?;
                    assert!(seen.iter().all(|v| *v == seen[0]) && seen[0] >= last, "{} after {last}", seen[0]);
                    last = seen[0];
                    std::thread::sleep(Duration::from_micros(50));
                }
                Ok(())
            })
        });
        let mut done = 1.0;
        let outcome = (0..3000).try_for_each(|_| match step.run(&[&one]) {
            Ok(()) => {
                done += 1.0;
                Ok(())
            }
            Err(e) if e.to_string().contains("held elsewhere") => Ok(()),
            Err(e) => Err(e),
        });
        over.store(true, Relaxed);
        for reader in readers {
            reader.join().expect("no reader panics")?;
        }
        outcome?;
        assert_eq!(count.tensor().to_vec::<f32>()?[0], done);
        Ok(())
    })
}
