//! Profiles: a recorded step has the bits of one that is not, what is counted is what shapes say, and the trace nests.

mod environment;
mod trace;

use std::sync::{Mutex, MutexGuard, PoisonError};

use tapeflow::models::{Gpt, GptConfig};
use tapeflow::prelude::*;
use tapeflow::{KernelProfile, ModuleExt, Result, profile, set_threads};

/// A recording is of the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gpt() -> Result<Gpt> {
    let config =
        GptConfig { block_size: 32, vocab_size: 29, n_layer: 2, n_head: 2, n_embd: 64, dropout: 0.1, bias: true };
    Gpt::new(&config, &Generator::new(5))
}

/// x · s + x, rounded once.
#[kernel]
fn scaled(x: f32, s: f32) -> f32 {
    x.mul_add(s, x)
}

/// Some steps of training; the losses and all weights, as bits.
fn train() -> Result<(Vec<u32>, Vec<u32>)> {
    let model = gpt()?;
    let mut optimizer = AdamW::new(&model).learning_rate(1e-3);
    let generator = Generator::new(6);
    let mut losses = Vec::new();
    for _ in 0..3 {
        let (x, y) = (generator.randint(0, 29, [8, 32]), generator.randint(0, 29, [8, 32]));
        let loss = model.loss(&x, &y);
        optimizer.step(loss.backward()?)?;
        losses.push(loss.item::<f32>()?.to_bits());
    }
    let mut weights = Vec::new();
    for parameter in model.parameters() {
        weights.extend(parameter.tensor().to_vec::<f32>()?.into_iter().map(f32::to_bits));
    }
    Ok((losses, weights))
}

fn only<'k>(kernels: &'k [KernelProfile], name: &str) -> &'k KernelProfile {
    let found: Vec<_> = kernels.iter().filter(|k| k.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {kernels:?}");
    found[0]
}

#[test]
fn a_recorded_step_has_the_bits_of_one_that_is_not() -> Result<()> {
    let _alone = alone();
    for threads in [1, 3] {
        set_threads(threads)?;
        let plain = train()?;
        let (recorded, profile) = profile(train);
        assert_eq!(plain, recorded?);
        assert_eq!(profile.dropped_events(), 0);
        // The products of a layer's derivative are recorded under its module; its own goes on with the activation, and
        // is recorded under that one's too.
        let kernels = profile.kernels();
        let of = |name: &str, module: &str| -> Vec<_> {
            kernels.iter().filter(|k| k.name == name && k.module == module).collect()
        };
        let product = 2 * (8 * 32) * 64 * (4 * 64);
        let [derivative, own] = [of("matmul", "h.0.mlp.c_fc"), of("gelu∘add∘matmul", "h.0.mlp.c_fc, h.0.mlp")];
        assert!(derivative.iter().map(|k| k.calls).sum::<u64>() == 6, "{derivative:?} of {kernels:?}");
        assert!(derivative.iter().all(|k| k.flops == product), "{derivative:?}");
        assert!(own.iter().map(|k| k.calls).sum::<u64>() == 3, "{own:?} of {kernels:?}");
        assert!(own.iter().all(|k| k.flops > product), "{own:?}");
        assert!(kernels.iter().all(|k| k.busy.as_nanos() > 0 || k.bytes_written == 0), "{kernels:?}");
    }
    set_threads(0)?;
    Ok(())
}

#[test]
fn what_a_fused_chain_moves_and_computes_follows_from_its_shapes() -> Result<()> {
    let _alone = alone();
    let x = Tensor::from_vec(vec![0.5f32; 64 * 32], [64, 32]);
    let scale = Tensor::from_vec(vec![2f32; 32], [32]);
    let (out, profile) = profile(|| {
        let y = (scaled::map(&x, &scale) + 1.0).exp();
        y.to_vec::<f32>()
    });
    out?;
    let kernels = profile.kernels();
    let chain = only(&kernels, "exp∘add∘scaled");
    // A broadcast operand is read once, and so is one that is used twice.
    assert_eq!(chain.bytes_read, (64 * 32 + 32) * 4);
    assert_eq!(chain.bytes_written, 64 * 32 * 4);
    // Two for the product and its sum, one for the sum, one for the exponential.
    assert_eq!(chain.flops, 64 * 32 * 4);
    assert_eq!((chain.calls, chain.dtype, chain.device), (1, DType::F32, Device::cpu()));
    assert!(chain.site.contains("tests/profile/main.rs:"), "{}", chain.site);
    Ok(())
}

#[test]
fn products_reductions_and_picks_count_what_they_do() -> Result<()> {
    let _alone = alone();
    let (a, b) = (Tensor::ones([3, 8, 16], DType::F32), Tensor::ones([16, 4], DType::F32));
    let index = Tensor::from_vec(vec![1i64, 1, 0], [3]);
    let table = Tensor::ones([5, 7], DType::F64);
    Tensor::realize_all(&[&a, &b, &index, &table])?;
    let (made, profile) = profile(|| {
        let total = a.sum_dim([0, 2], false);
        Tensor::realize_all(&[&a.matmul(&b), &total, &table.embedding(&index)])
    });
    made?;
    let kernels = profile.kernels();
    let product = only(&kernels, "matmul");
    assert_eq!(product.flops, 2 * 3 * 8 * 4 * 16);
    assert_eq!((product.bytes_read, product.bytes_written), ((3 * 8 * 16 + 16 * 4) * 4, 3 * 8 * 4 * 4));
    let sum: Vec<_> = kernels.iter().filter(|k| k.name.contains("sum")).collect();
    assert_eq!(sum.iter().map(|k| k.flops).max(), Some(3 * 8 * 16), "{sum:?}");
    // Three rows of seven f64, and the indices that pick them.
    let picked = kernels.iter().find(|k| k.dtype == DType::F64).unwrap();
    assert_eq!((picked.flops, picked.bytes_read, picked.bytes_written), (0, 3 * 7 * 8 + 3 * 8, 3 * 7 * 8));
    Ok(())
}

#[test]
fn a_profile_holds_what_was_done_while_it_was_taken() -> Result<()> {
    let _alone = alone();
    let x = Tensor::from_vec(vec![1f32, 2.0], [2]);
    let sine = || x.sin().to_vec::<f32>();
    let outer = tapeflow::Profiler::start();
    sine()?;
    let (inner_ran, inner) = profile(sine);
    inner_ran?;
    sine()?;
    let outer = outer.stop();
    sine()?;
    assert_eq!(only(&inner.kernels(), "sin").calls, 1);
    assert_eq!(only(&outer.kernels(), "sin").calls, 3);
    assert!(inner.events() < outer.events());
    Ok(())
}

#[test]
fn the_table_names_kernels_and_the_floor() -> Result<()> {
    let _alone = alone();
    let model = gpt()?;
    let x = Generator::new(6).randint(0, 29, [8, 32]);
    let (out, profile) = profile(|| model.forward(&x).to_vec::<f32>());
    out?;
    let table = profile.table()?;
    let row = table.lines().find(|line| line.contains("h.1.attn.c_attn")).unwrap_or_else(|| panic!("{table}"));
    assert!(row.starts_with("matmul"), "{table}");
    let numbers: Vec<f64> = row.split_whitespace().filter_map(|word| word.trim_end_matches('%').parse().ok()).collect();
    assert_eq!((numbers.len(), numbers[0]), (7, 1.0), "{row}");
    assert!(numbers.iter().all(|n| *n > 0.0), "{row}");
    assert!(table.contains("floor of cpu: "), "{table}");
    Ok(())
}

#[test]
fn kernels_of_a_scan_are_recorded_where_its_body_is() -> Result<()> {
    let _alone = alone();
    let net = Lstm::drawn(3, 4, 1, false, &Generator::new(1))?;
    net.stamp_paths();
    let x = Generator::new(2).randn([2, 6, 3]);
    let once = || -> Result<Vec<f32>> { Ok(no_grad(|| net.forward(&x).to_vec::<f32>())?) };
    once()?;
    let (again, profile) = profile(|| (0..4).map(|_| once()).collect::<Result<Vec<_>>>());
    assert_eq!(again?.len(), 4);
    assert_eq!(profile.dropped_events(), 0);
    let kernels = profile.kernels();
    assert!(kernels.iter().any(|k| k.name == "matmul"), "{kernels:?}");
    // The program is the same each time, and so is each of its kernels.
    assert!(kernels.iter().all(|k| k.calls.is_multiple_of(4) && !k.site.is_empty()), "{kernels:?}");
    Ok(())
}
