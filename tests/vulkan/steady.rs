//! What a steady loop on Vulkan adds: one submission a step, and nothing to any cache.

use tapeflow::prelude::*;
use tapeflow::vulkan::{Counts, counts};
use tapeflow::{CacheCounts, Result, cache_counts, tape_nodes};

use super::Vulkan;
use super::training::{gpt, gpt_step};

/// All but what counts events.
fn kept() -> (CacheCounts, usize, Counts) {
    (cache_counts(), tape_nodes(), Counts { submits: 0, transfers: 0, ..counts() })
}

#[test]
fn a_step_is_one_submission_and_keeps_nothing() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    vulkan.device.scope(|| {
        let model = gpt(5, 0.1)?;
        let mut optimizer = AdamW::new(&model);
        for step in 0..3 {
            optimizer.set_learning_rate(1e-3 * step as f64);
            gpt_step(&model, &mut optimizer, step)?.item::<f32>()?;
        }
        let before = kept();
        for step in 3..13 {
            let submits = counts().submits;
            optimizer.set_learning_rate(1e-3 * step as f64);
            gpt_step(&model, &mut optimizer, step)?.item::<f32>()?;
            assert_eq!(counts().submits - submits, 1, "submissions of step {step}");
            assert_eq!(kept(), before, "after step {step}");
        }
        Ok(())
    })
}

#[test]
fn ten_thousand_small_steps_leak_nothing() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    let steps = |count: u64| -> Result<()> {
        let weight = Parameter::new(Tensor::from_vec(vec![1.0f32, -2.0, 3.0], [3]))?;
        let step = |i: u64| -> Result<()> {
            let x = Tensor::from_vec(vec![i as f32, 1.0, 0.5], [3]);
            weight.set(&(weight.tensor() * 0.999 + x * 1e-3).detach())?;
            Ok(weight.tensor().realize()?)
        };
        (0..10).try_for_each(step)?;
        let before = kept();
        (10..count).try_for_each(step)?;
        assert_eq!(kept(), before);
        Ok(())
    };
    vulkan.device.scope(|| {
        // The first time leaves programs, which have parameter blocks.
        steps(20)?;
        let outside = kept();
        steps(10_000)?;
        assert_eq!(kept(), outside, "when all is dropped");
        Ok(())
    })
}
