//! A steady loop adds nothing to any cache, asks the system for no memory and leaves nothing behind.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tapeflow::models::{GenerateOptions, KvCache};
use tapeflow::prelude::*;
use tapeflow::{
    CacheCounts, MemoryReport, Problem, Result, Slot, cache_counts, commit, memory_report, reset_memory_peak,
    set_memory_limit, tape_nodes,
};

/// Caches and memory are the process's: one test at a time.
static SERIAL: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gpt(dropout: f64) -> (Gpt, Generator) {
    let config = GptConfig { block_size: 16, vocab_size: 19, n_layer: 2, n_head: 2, n_embd: 16, dropout, bias: true };
    let generator = Generator::new(1);
    (Gpt::new(&config, &generator).unwrap(), generator)
}

fn tokens(step: u64) -> Tensor {
    Tensor::from_vec((0..68).map(|i| (i * i + step as i64) % 19).collect(), [4, 17])
}

/// What a process keeps.
#[derive(Debug, PartialEq)]
struct Kept {
    caches: CacheCounts,
    live: usize,
    system_allocations: u64,
    nodes: usize,
}

fn kept() -> Kept {
    let MemoryReport { live, system_allocations, .. } = memory_report();
    Kept { caches: cache_counts(), live, system_allocations, nodes: tape_nodes() }
}

#[test]
fn fifty_steady_steps_add_nothing_to_any_cache() -> Result<()> {
    let _alone = alone();
    for dropout in [0.0, 0.1] {
        let (model, _) = gpt(dropout);
        // Groups whose numbers coincide at a learning rate of 0 and differ after it.
        let mut optimizer = AdamW::new(&model)
            .group_where(|_, shape| shape.len() < 2, |g| g.weight_decay(0.0))
            .group("wpe.*", |g| g.learning_rate_scale(0.5));
        let mut step = |step: u64, clip: f64| -> Result<f32> {
            optimizer.set_learning_rate(1e-3 * step as f64 / 50.0);
            let tokens = tokens(step);
            let loss = model.loss(&tokens.slice(1, ..16), &tokens.slice(1, 1..));
            let (gradients, norm) = loss.backward()?.clip_norm(clip);
            optimizer.step(gradients)?;
            assert!(norm.item::<f32>()? > 0.0);
            Ok((loss * (step as f64 * 0.013)).item::<f32>()?)
        };
        // The first step has what all others have, but for the memory that is kept from then on.
        step(1, 1.0)?;
        let after_one = cache_counts();
        step(2, 1.0)?;
        assert_eq!(cache_counts(), after_one, "the second step is not the first one's program");
        step(3, 1.0)?;
        let before = kept();
        for i in 0..50 {
            step(i, 0.5 + i as f64)?;
            assert_eq!(kept(), before, "after step {i} with dropout {dropout}");
        }
    }
    Ok(())
}

#[test]
fn numbers_of_the_host_are_in_no_key() -> Result<()> {
    let _alone = alone();
    let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [3]);
    let compute = |k: f64| (((&x * k + 1.0 / (k + 1.0)).powf(k) - k).clamp(-k, k + 100.0) / (k + 2.0)).to_vec::<f32>();
    compute(1.5)?;
    let before = cache_counts();
    for k in [0.0, -0.0, 0.25, 7.0, f64::MAX, f64::NAN, f64::INFINITY] {
        compute(k)?;
    }
    assert_eq!(cache_counts(), before);
    Ok(())
}

#[test]
fn where_a_slice_starts_is_in_no_key() -> Result<()> {
    let _alone = alone();
    let data: Vec<f32> = (0..60).map(|i| (i as f32 * 0.7).sin()).collect();
    let compute = |row: usize, col: usize| -> Result<Vec<Vec<f32>>> {
        let x = Tensor::from_vec(data.clone(), [10, 6]).with_grad()?;
        let part = x.slice(0, row..row + 4).slice(1, col..col + 3);
        let again = x.slice_step(0, row..row + 4, 2).slice(1, col..col + 3);
        let product = part.matmul(&again.t());
        let drawn = Generator::new(3).rand([10, 6]).slice(0, row..row + 4);
        let loss = product.square().sum() + part.softmax(-1).slice(1, col % 3..col % 3 + 1).sum();
        let gradient = grad(&loss, &[&x])?.remove(0);
        let second = grad(&gradient.square().sum(), &[&x])?.remove(0);
        let results = [part.t(), product, drawn, loss, gradient, second];
        results.iter().map(|t| Ok(t.to_vec::<f32>()?)).collect()
    };
    // What each result is, from the device that shares no code with the loops.
    let expected = |row, col| Device::reference().scope(|| compute(row, col));
    compute(1, 2)?;
    expected(1, 2)?;
    let before = cache_counts();
    for (row, col) in [(0, 0), (6, 3), (3, 1), (5, 0), (1, 2)] {
        for (found, expected) in compute(row, col)?.iter().zip(expected(row, col)?) {
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() <= 1e-4 * (1.0 + e.abs()), "{f} is not {e} for the slice at {row}, {col}");
            }
        }
    }
    assert_eq!(cache_counts(), before);
    Ok(())
}

#[test]
fn an_update_reports_what_it_had_to_compute_first() -> Result<()> {
    let _alone = alone();
    let slot = Slot::new(Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [3]))?;
    let update = || commit(&[(&slot, slot.tensor() * 0.5)]);
    update()?;
    assert_eq!(memory_report().kept, []);
    let doubled = slot.tensor() * 2.0;
    let _unrelated = Tensor::from_vec(vec![1.0f32], [1]) + 1.0;
    let norm = doubled.square().sum();
    update()?;
    let report = memory_report();
    let kept: Vec<_> = report.kept.iter().map(|k| (k.operation.as_str(), k.shape.to_string(), k.bytes)).collect();
    assert_eq!(kept, [("mul", "(3,)".to_owned(), 12), ("sum [0]", "()".to_owned(), 4)]);
    assert!(report.kept.iter().all(|k| k.site.contains("tests/caches.rs:")), "{report}");
    assert!(report.to_string().contains("the last update kept 12 bytes: mul f32(3,) at"), "{report}");
    assert_eq!((norm.item::<f32>()?, doubled.to_vec::<f32>()?), (14.0, vec![1.0, 2.0, 3.0]));
    // Handles that are gone cost nothing.
    drop((norm, doubled));
    update()?;
    assert_eq!(memory_report().kept, []);
    Ok(())
}

#[test]
fn the_same_graph_recorded_elsewhere_is_the_same_program() -> Result<()> {
    let _alone = alone();
    let graph = |seed: u64| {
        let x = Generator::new(seed).rand([4, 5]);
        let y = Tensor::from_vec(vec![seed as f32; 20], [4, 5]);
        (x.matmul(&y.t()) + 1.0).tanh().sum().item::<f32>()
    };
    graph(1)?;
    let before = cache_counts();
    for seed in 2..6 {
        graph(seed)?;
        std::thread::spawn(move || graph(seed).unwrap()).join().unwrap();
    }
    assert_eq!(cache_counts(), before);
    Ok(())
}

#[test]
fn two_thousand_small_steps_leak_nothing() -> Result<()> {
    let _alone = alone();
    let outside = (memory_report().live, tape_nodes());
    {
        let model = Mlp::new(&[2, 4, 1], Tensor::tanh, &Generator::new(2))?;
        let mut optimizer = Adam::new(&model);
        let mut step = |step: u64| -> Result<()> {
            // New data each time, as a loader gives it; some of it never used, some steps given up.
            let x = Generator::new(step).rand([4, 2]);
            let y = Tensor::from_vec(vec![0f32, 1., 1., 0.], [4, 1]);
            let _unused = (&x + 1.0).exp();
            let loss = model.forward(&x).mse_loss(&y);
            let gradients = loss.backward()?;
            if step.is_multiple_of(7) {
                let wrong = model.forward(&x).index_select(0, &Tensor::from_vec(vec![9i64], [1]));
                assert!(optimizer.step(wrong.sum().backward()?).is_err());
                let mistaken = x.matmul(&x);
                assert!(mistaken.item::<f32>().is_err());
            }
            optimizer.step(gradients)?;
            let _second_order = grad(&model.forward(&x).square().sum(), &[&model.layers[0].weight.tensor()]);
            Ok(())
        };
        for i in 0..28 {
            step(i)?;
        }
        let before = kept();
        for i in 0..2000 {
            step(i)?;
        }
        assert_eq!(kept(), before);
    }
    assert_eq!((memory_report().live, tape_nodes()), outside, "live bytes and nodes when all is dropped");
    Ok(())
}

#[test]
fn a_chain_of_pending_nodes_is_freed_with_its_handle() {
    let _alone = alone();
    let outside = tape_nodes();
    let mut x = Tensor::scalar(1.0f32);
    for _ in 0..200_000 {
        x = &x + 1.0;
    }
    assert!(tape_nodes() >= outside + 200_000);
    drop(x);
    assert_eq!(tape_nodes(), outside);
}

#[test]
fn generation_compiles_nothing_after_the_first_token() -> Result<()> {
    let _alone = alone();
    let (model, _) = gpt(0.0);
    // A context of 16 tokens, three times over and within.
    for (length, count) in [(1, 48), (2, 10), (5, 48), (16, 48), (40, 48)] {
        let prompt: Vec<u32> = (0..length).map(|i| (i * 5 + 1) % 19).collect();
        let options = GenerateOptions { temperature: 0.9, ..GenerateOptions::new(count) };
        let mut tokens = model.generate(&prompt, &options)?;
        tokens.next().transpose()?;
        let before = kept();
        for token in tokens.by_ref() {
            token?;
            assert_eq!(kept(), before, "a prompt of {length} tokens");
        }
        drop(tokens);
        // Nor for another prompt of that bucket.
        let before = cache_counts();
        let other = vec![3; prompt.len()];
        assert_eq!(model.generate(&other, &options)?.count(), count);
        assert_eq!(cache_counts(), before);
    }
    let all = |count| model.generate(&[1, 2], &GenerateOptions { cache: false, ..GenerateOptions::new(count) });
    all(40)?.for_each(drop);
    let before = kept();
    all(60)?.for_each(drop);
    assert_eq!(kept(), before, "without a cache");
    Ok(())
}

#[test]
fn a_token_needs_no_memory_of_the_size_of_the_cache() -> Result<()> {
    let _alone = alone();
    let config = GptConfig { block_size: 2048, n_head: 2, n_embd: 64, ..GptConfig::preset("tiny", 19).unwrap() };
    let model = Gpt::new(&config, &Generator::new(1))?;
    let mut cache = KvCache::new(&model, 4)?;
    let cell = 4 * 2048 * 64 * 4;
    model.prefill(&[1, 2, 3], 4, 2, &mut cache)?;
    model.advance(&[Some(1); 4], &mut cache)?;
    let live = memory_report().live;
    reset_memory_peak();
    model.prefill(&[1, 2, 3], 4, 1, &mut cache)?;
    model.advance(&[Some(1); 4], &mut cache)?;
    let used = memory_report().peak - live;
    assert!(used < cell / 4, "{used} bytes beside cells of {cell}");
    Ok(())
}

#[test]
fn a_step_that_is_refused_memory_leaves_everything_as_it_was() -> Result<()> {
    let _alone = alone();
    let (model, _) = gpt(0.0);
    let mut optimizer = AdamW::new(&model);
    let bits = |state: Vec<(String, Tensor)>| -> Vec<Vec<u8>> {
        state.into_iter().map(|(_, t)| t.with_bytes(<[u8]>::to_vec).unwrap()).collect()
    };
    let tokens = tokens(0);
    let mut step = |limited: bool| -> Result<()> {
        let gradients = model.loss(&tokens.slice(1, ..16), &tokens.slice(1, 1..)).backward()?;
        let limit = limited.then(|| memory_report().live + 1024);
        set_memory_limit(limit);
        let done = optimizer.step(gradients);
        set_memory_limit(None);
        done
    };
    step(false)?;
    let before = bits(model.state());
    let error = step(true).unwrap_err();
    let tapeflow::Error::Tensor(error) = error else { panic!("{error}") };
    assert!(matches!(error.problem(), Problem::Memory { .. }), "{error}");
    assert_eq!(bits(model.state()), before);
    step(false)?;
    assert_ne!(bits(model.state()), before);
    Ok(())
}

#[test]
fn updates_take_over_the_memory_of_what_they_replace() -> Result<()> {
    let _alone = alone();
    const BYTES: usize = 4 << 20;
    let slot = Slot::new(Tensor::from_vec(vec![1f32; BYTES / 4], [BYTES / 4]))?;
    let update = || commit(&[(&slot, slot.tensor() * 0.5 + 1.0)]);
    update()?;
    reset_memory_peak();
    let live = memory_report().live;
    update()?;
    assert!(memory_report().peak < live + BYTES / 2, "an update in place needed new memory");
    // With a live handle of the old version it must not.
    let old = slot.tensor();
    let first = old.slice(0, ..1).to_vec::<f32>()?;
    update()?;
    assert!(memory_report().live >= live + BYTES);
    assert_eq!(old.slice(0, ..1).to_vec::<f32>()?, first);
    Ok(())
}

/// A cache of `rows` places, each row written with its number by a step of its own.
fn filled(slot: &Slot, rows: impl IntoIterator<Item = usize>) -> Result<()> {
    let wide = slot.tensor().shape()[1];
    for row in rows {
        let value = Tensor::from_vec(vec![row as f32; wide], [1, wide]) * 2.0;
        // The version's handle goes with this line: while it is there, the old version stays too.
        let new = slot.tensor().slice_assign(0, row, &value);
        commit(&[(slot, new)])?;
    }
    Ok(())
}

#[test]
fn a_cache_is_filled_in_place_by_one_program() -> Result<()> {
    let _alone = alone();
    const ROWS: usize = 256;
    const WIDE: usize = 4096;
    let slot = Slot::new(Tensor::zeros([ROWS, WIDE], DType::F32))?;
    filled(&slot, [7, 3])?;
    let before = kept();
    reset_memory_peak();
    filled(&slot, (0..ROWS).rev())?;
    assert_eq!(kept(), before);
    let used = memory_report().peak - before.live;
    assert!(used < 4 * WIDE * 4, "{used} bytes were needed to write rows of {} bytes", WIDE * 4);
    let column = slot.tensor().slice(1, ..1).to_vec::<f32>()?;
    assert_eq!(column, (0..ROWS).map(|row| 2.0 * row as f32).collect::<Vec<_>>());
    // What is read of the old version, before or in the same step, is the old version.
    let old = slot.tensor();
    filled(&slot, [0])?;
    let first = |t: &Tensor| t.slice(0, ..1).slice(1, ..1).item::<f32>();
    assert_eq!((first(&old)?, first(&slot.tensor())?), (0.0, 0.0));
    drop(old);
    let sum = slot.tensor().sum();
    let new = slot.tensor().slice_assign(0, 1, &(slot.tensor().slice(0, 2..3) + 1.0));
    commit(&[(&slot, new)])?;
    let expected: f32 = (0..ROWS).map(|row| 2.0 * row as f32 * WIDE as f32).sum();
    assert_eq!(sum.item::<f32>()?, expected);
    assert_eq!(slot.tensor().slice(0, 1..2).slice(1, ..1).item::<f32>()?, 5.0);
    Ok(())
}

#[test]
fn rows_of_a_cache_are_filled_at_places_of_their_own() -> Result<()> {
    let _alone = alone();
    let slot = Slot::new(Tensor::zeros([3, 5], DType::F32))?;
    let mut expected = vec![0.0f32; 15];
    let mut write = |starts: [usize; 3], value: f32| -> Result<()> {
        let new = Tensor::from_vec(vec![value, value + 0.25, value + 0.5], [3, 1]);
        let new = slot.tensor().slice_assign_rows(1, &starts, &new);
        commit(&[(&slot, new)])?;
        for (row, start) in starts.into_iter().enumerate() {
            expected[row * 5 + start] = value + 0.25 * row as f32;
        }
        assert_eq!(slot.tensor().to_vec::<f32>()?, expected);
        Ok(())
    };
    write([0, 2, 4], 1.0)?;
    let before = cache_counts();
    write([4, 3, 0], 2.0)?;
    write([4, 4, 4], 3.0)?;
    assert_eq!(cache_counts(), before);
    Ok(())
}

#[test]
fn marks_bound_what_waits_to_be_computed() -> Result<()> {
    let _alone = alone();
    let before = tape_nodes();
    let mut total = Tensor::from_vec(vec![0.0f32], [1]);
    for _ in 0..30_000 {
        total = total + 1.0;
        tapeflow::mark()?;
    }
    let waiting = tape_nodes() - before;
    assert!(waiting < 50_000, "{waiting} nodes wait: without marks there would be 60,000");
    assert_eq!(total.item::<f32>()?, 30_000.0);
    Ok(())
}
