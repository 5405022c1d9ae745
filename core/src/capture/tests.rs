//! A steady run while somebody else holds the tape, and one that somebody waits for.

use std::sync::mpsc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::slot::{Slot, commit};
use crate::tape;
use crate::tensor::Tensor;
use crate::{CapturedStep, capture};

const LONG: Duration = Duration::from_secs(60);

fn count(slot: &Slot, by: &Tensor) -> Result<CapturedStep> {
    let mut step = capture(&[by], |given| {
        commit(&[(slot, slot.tensor() + &given[0])])?;
        Ok::<_, Error>(vec![])
    })?;
    step.run(&[by])?;
    Ok(step)
}

#[test]
fn a_steady_run_needs_no_tape() -> Result<()> {
    let slot = Slot::new(Tensor::from_vec(vec![0.0f32; 100], [100]))?;
    let inputs = [1.0f32, 2.0, 3.0].map(|by| Tensor::from_vec(vec![by; 100], [100]));
    let mut step = count(&slot, &inputs[0])?;
    let (done, is_done) = mpsc::channel();
    std::thread::scope(|scope| {
        let held = tape::lock();
        scope.spawn(|| {
            let ran = (0..9).try_for_each(|k| step.run(&[&inputs[k % 3]]));
            done.send(ran)
        });
        let ran = is_done.recv_timeout(LONG);
        // Whatever came out: the thread must be able to end.
        drop(held);
        ran.expect("the run waits for nobody")
    })?;
    assert_eq!(slot.tensor().to_vec::<f32>()?, [20.0; 100]);
    Ok(())
}

#[test]
fn whoever_asks_during_a_run_gets_what_it_made() -> Result<()> {
    let slot = Slot::new(Tensor::from_vec(vec![0.0f32], [1]))?;
    let by = Tensor::from_vec(vec![1.0f32], [1]);
    let mut step = count(&slot, &by)?;
    // Between the beginning and the end of a run, as another thread sees it.
    assert!(step.lease.resume());
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| slot.tensor().to_vec::<f32>());
        while !step.lease.is_wanted() {
            std::thread::yield_now();
        }
        assert!(!step.lease.rest(), "somebody waits");
        step.lease.end();
        assert_eq!(reader.join().expect("it reads")?, [2.0]);
        Ok(())
    })?;
    step.run(&[&by])?;
    assert_eq!(slot.tensor().to_vec::<f32>()?, [3.0]);
    Ok(())
}
