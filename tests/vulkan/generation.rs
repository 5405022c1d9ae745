//! Generation on Vulkan: the same greedy tokens with a cache and without, alone and together, and as on the CPU.

use tapeflow::prelude::*;
use tapeflow::{Result, cache_counts};

use super::Vulkan;
use super::training::gpt;

/// What a model of 16 places of context continues prompts with, on a device.
fn continued(on: Device, prompts: &[&[u32]], options: &GenerateOptions) -> Result<Vec<Vec<u32>>> {
    on.scope(|| {
        let model = gpt(11, 0.1)?;
        let mut rows = vec![Vec::new(); prompts.len()];
        for round in model.generate_batch(prompts, options)? {
            rows.iter_mut().zip(round?).for_each(|(row, token)| row.extend(token));
        }
        Ok(rows)
    })
}

#[test]
fn greedy_tokens_need_no_cache_no_company_and_no_cpu() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    let on = vulkan.device;
    // Beyond the context.
    let cached = GenerateOptions::greedy(24);
    let prompts: [&[u32]; 3] = [&[3, 1, 4, 1, 5], &[9], &[2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6]];
    let together = continued(on, &prompts, &cached)?;
    assert!(together.iter().all(|row| row.len() == 24));
    assert_eq!(together, continued(on, &prompts, &GenerateOptions { cache: false, ..cached.clone() })?);
    for (prompt, row) in prompts.iter().zip(&together).skip(1) {
        assert_eq!(&continued(on, &[prompt], &cached)?[0], row, "{prompt:?}");
    }
    assert_eq!(together, continued(Device::cpu(), &prompts, &cached)?, "on the CPU");
    // Drawn tokens are the same each time.
    let drawn = GenerateOptions { temperature: 0.9, top_k: Some(5), seed: 3, ..GenerateOptions::new(12) };
    assert_eq!(continued(on, &prompts, &drawn)?, continued(on, &prompts, &drawn)?);
    Ok(())
}

#[test]
fn nothing_is_compiled_after_the_first_token() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    vulkan.device.scope(|| {
        let model = gpt(11, 0.0)?;
        let mut tokens = model.generate(&[1, 2, 3], &GenerateOptions::greedy(20))?;
        tokens.next().transpose()?;
        let before = cache_counts();
        assert_eq!(tokens.collect::<Result<Vec<u32>>>()?.len(), 19);
        assert_eq!(cache_counts(), before);
        Ok(())
    })
}
