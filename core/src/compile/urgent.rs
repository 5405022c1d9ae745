//! Of two neighbouring kernels that do not depend on each other, the one whose result is read first comes first: its
//! result then takes no memory that the other reads, so that nobody waits for the other, and who has nothing else to do
//! can go on with it. Owns that order (a convolution's gradients: the image's goes on, the kernel's waits for the end).

use std::collections::HashMap;

use super::fuse::{Draft, Step};
use super::world::Id;

pub(super) fn urgent_first(steps: &mut [Step]) {
    let mut readers: HashMap<Id, usize> = HashMap::new();
    for (at, step) in steps.iter().enumerate() {
        step.reads().into_iter().for_each(|id| {
            readers.entry(id).or_insert(at);
        });
    }
    let reader = |step: &Step| match &step.draft {
        Draft::Kernel { write: Some(_), .. } => {
            let readers = step.writes().into_iter().filter_map(|id| readers.get(&id).copied());
            Some(readers.min().unwrap_or(usize::MAX))
        }
        _ => None,
    };
    for at in 1..steps.len() {
        let Some((before, after)) = reader(&steps[at - 1]).zip(reader(&steps[at])) else { continue };
        if after < before && before > at {
            steps.swap(at - 1, at);
        }
    }
}
