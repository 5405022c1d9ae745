//! Half precision in use: training with f32 parameters, memory, the same bits always, scaled losses, whole models in
//! half precision, and what is refused.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tapeflow::prelude::*;
use tapeflow::{Result, bf16, f16, memory_report, reset_memory_peak, set_threads, without_fusion};

/// Memory and threads are the process's: one test at a time.
static SERIAL: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

const VOCAB: usize = 13;

fn sizes() -> GptConfig {
    GptConfig { block_size: 16, n_layer: 2, n_head: 2, n_embd: 32, ..GptConfig::preset("tiny", VOCAB).unwrap() }
}

/// Blocks of a sequence that can be learned: each token follows from the two before it.
fn batch(step: usize, blocks: usize, block: usize) -> (Tensor, Tensor) {
    let mut tokens = Vec::new();
    for b in 0..blocks {
        let (mut x, mut y) = (((step * blocks + b) * 5 % VOCAB) as i64, ((step + 3 * b) % VOCAB) as i64);
        for _ in 0..=block {
            tokens.push(x);
            (x, y) = (y, (x + 2 * y + 1) % VOCAB as i64);
        }
    }
    let all = Tensor::from_vec(tokens, [blocks, block + 1]);
    (all.slice(1, ..block), all.slice(1, 1..))
}

/// The losses of some steps, and the bits of a parameter after them.
fn trained(precision: Precision, steps: usize) -> Result<(Vec<f32>, Vec<f32>)> {
    let model = Gpt::new(&sizes(), &Generator::new(5))?;
    let adam = AdamW::new(&model).learning_rate(5e-3);
    let mut optimizer: Box<dyn Optimizer> = match precision {
        Precision::F16 => Box::new(LossScaler::new(adam)),
        _ => Box::new(adam),
    };
    let mut losses = Vec::new();
    for step in 0..steps {
        let (inputs, targets) = batch(step % 2, 8, 16);
        let loss = precision.scope(|| model.loss(&inputs, &targets));
        assert_eq!(loss.dtype(), DType::F32);
        let gradients = (&loss * optimizer.loss_scale()).backward()?;
        assert!(gradients.iter().all(|(_, g)| g.dtype() == DType::F32));
        optimizer.step(gradients)?;
        losses.push(loss.item::<f32>()?);
    }
    assert!(model.parameters().iter().all(|p| p.tensor().dtype() == DType::F32), "the master weights are f32");
    Ok((losses, model.parameters()[0].tensor().to_vec::<f32>()?))
}

/// The mean loss of the last ten steps is within 0.01 nats of that of f32, of about 2.6 at first.
#[test]
fn a_gpt_learns_in_half_precision_what_it_learns_in_f32() -> Result<()> {
    let _alone = alone();
    let last = |losses: &[f32]| losses.iter().rev().take(10).sum::<f32>() / 10.0;
    let (exact, _) = trained(Precision::F32, 160)?;
    assert!(last(&exact) < 0.1 * exact[0], "f32 does not learn: {exact:?}");
    for precision in [Precision::Bf16, Precision::F16] {
        let (losses, _) = trained(precision, 160)?;
        assert_ne!(losses, exact, "{precision} is no other precision");
        let (found, wanted) = (last(&losses), last(&exact));
        println!("{precision}: {found} nats, in f32 {wanted}");
        assert!((found - wanted).abs() <= 0.01, "{precision}: {found}, in f32 {wanted}");
    }
    Ok(())
}

#[test]
fn the_bits_are_the_same_for_any_number_of_threads_and_without_fusion() -> Result<()> {
    let _alone = alone();
    for precision in [Precision::Bf16, Precision::F16] {
        set_threads(1)?;
        let once = trained(precision, 5)?;
        set_threads(2)?;
        assert_eq!(trained(precision, 5)?, once, "{precision} with 2 threads");
        assert_eq!(without_fusion(|| trained(precision, 5))?, once, "{precision} without fusion");
    }
    Ok(())
}

/// What a step keeps for backward is half as large: at a GPT whose activations outweigh its parameters, the peak is at
/// most three quarters of that in f32 (the rest are parameters, gradients, f32 between blocks and losses).
#[test]
fn a_step_takes_less_memory() -> Result<()> {
    let _alone = alone();
    let peak = |precision: Precision| -> Result<usize> {
        let sizes = GptConfig { block_size: 64, n_layer: 3, n_head: 4, n_embd: 64, ..sizes() };
        let model = Gpt::new(&sizes, &Generator::new(5))?;
        let mut optimizer = AdamW::new(&model);
        let (inputs, targets) = batch(0, 16, 64);
        Tensor::realize_all(&[&inputs, &targets])?;
        let mut step = || -> Result<()> {
            let gradients = precision.scope(|| model.loss(&inputs, &targets)).backward()?;
            optimizer.step(gradients)
        };
        step()?;
        let before = memory_report().live;
        reset_memory_peak();
        step()?;
        Ok(memory_report().peak - before)
    };
    let (wide, narrow) = (peak(Precision::F32)?, peak(Precision::Bf16)?);
    println!("a step's arena: {wide} bytes in f32, {narrow} in bf16");
    assert!(4 * narrow <= 3 * wide, "{narrow} bytes in bf16, {wide} in f32");
    Ok(())
}

#[test]
fn operations_take_and_give_what_autocast_does() {
    let x = Tensor::ones([2, 3], DType::F32);
    Precision::Bf16.scope(|| {
        let y = x.matmul(&x.t());
        assert_eq!(y.dtype(), DType::BF16);
        for (name, given) in [("softmax", y.softmax(-1)), ("exp", y.exp()), ("sum", y.sum()), ("mse", y.mse_loss(&y))] {
            assert_eq!(given.dtype(), DType::F32, "{name}");
        }
        for (name, given) in [("gelu", y.gelu()), ("relu", y.relu()), ("times 2", &y * 2.0), ("max", y.max())] {
            assert_eq!(given.dtype(), DType::BF16, "{name}");
        }
        let wide = Tensor::ones([2, 2], DType::F32);
        assert_eq!((&y + &wide).dtype(), DType::F32);
        assert_eq!(Tensor::cat(&[&wide, &y], 0).dtype(), DType::F32);
        assert_eq!(Tensor::ones([2, 2], DType::F64).matmul(&Tensor::ones([2, 2], DType::F64)).dtype(), DType::F64);
        assert_eq!(Precision::F32.scope(|| x.matmul(&x.t()).dtype()), DType::F32);
    });
    assert_eq!(Precision::current(), Precision::F32);
}

#[test]
fn two_dtypes_are_a_mistake_outside_of_a_precision() {
    let (x, y) = (Tensor::ones([2], DType::F32), Tensor::ones([2], DType::BF16));
    let said = (&x + &y).to_vec::<f32>().unwrap_err().to_string();
    assert!(said.contains("f32") && said.contains("bf16"), "{said}");
}

/// A number of the host is not rounded before it is computed with.
#[test]
fn host_numbers_are_not_rounded() -> Result<()> {
    let x = Tensor::from_vec(vec![f16::from_f32(3.0), f16::from_f32(0.0)], [2]);
    let tiny = 1e-9f64;
    assert_eq!((&x / &(&x + 1.0)).to_vec::<f16>()?, [f16::from_f32(0.75), f16::ZERO]);
    assert_eq!((&x * tiny * 1e9).to_vec::<f16>()?[0], f16::ZERO, "a result is rounded");
    let y = Tensor::from_vec(vec![bf16::from_f32(5.0)], [1]);
    assert_eq!((&y * 1.01).to_vec::<bf16>()?, [bf16::from_f32(5.0 * 1.01)]);
    assert_ne!(bf16::from_f32(5.0 * bf16::from_f32(1.01).to_f32()), bf16::from_f32(5.0 * 1.01));
    Ok(())
}

#[test]
fn an_infinite_gradient_skips_the_step_and_lowers_the_scale() -> Result<()> {
    let model = Linear::from_tensors(Tensor::from_vec(vec![1.0f32, 2.0], [1, 2]), None)?;
    let mut optimizer = LossScaler::new(AdamW::new(&model)).growth_interval(2).initial_scale(1024.0);
    let mut step = |x: f32| -> Result<(f64, u64, u64, Vec<f32>)> {
        let x = Tensor::from_vec(vec![x, 1.0], [1, 2]);
        let loss = Precision::F16.scope(|| model.forward(&x)).cast(DType::F32).square().mean();
        optimizer.step(optimizer.scale(&loss).backward()?)?;
        let state = (optimizer.loss_scale(), optimizer.steps(), optimizer.skipped());
        Ok((state.0, state.1, state.2, model.weight.tensor().to_vec::<f32>()?))
    };
    let begun = step(0.5)?;
    assert_eq!((begun.0, begun.1, begun.2), (1024.0, 1, 0));
    // 1024 · 2 · (30000 + …) · 30000 is beyond f16.
    let skipped = step(30000.0)?;
    assert_eq!((skipped.0, skipped.1, skipped.2), (512.0, 1, 1));
    assert_eq!(skipped.3, begun.3, "a skipped step changes nothing");
    step(0.5)?;
    let grown = step(0.5)?;
    assert_eq!((grown.0, grown.1), (1024.0, 3), "two good steps in a row");

    let state = optimizer.state_dict();
    let other = Linear::from_tensors(model.weight.tensor(), None)?;
    let mut other = LossScaler::new(AdamW::new(&other));
    other.load_state_dict(state, "the state")?;
    assert_eq!((other.loss_scale(), other.steps()), (1024.0, 3));
    let error = other.load_state_dict(Vec::new(), "the state").unwrap_err().to_string();
    assert!(error.contains("loss_scale"), "{error}");
    Ok(())
}

/// A whole model in bf16, tied weights and all, generates; its logits are near those of f32. Its cache follows.
#[test]
fn a_model_in_half_precision_generates() -> Result<()> {
    let _alone = alone();
    for dtype in [DType::BF16, DType::F16] {
        let model = Gpt::new(&sizes(), &Generator::new(5))?;
        let (inputs, _) = batch(1, 2, 16);
        let exact = model.eval(|| model.forward(&inputs)).to_vec::<f32>()?;
        let paths = |model: &Gpt| model.named_parameters().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        let before = paths(&model);
        model.to(dtype)?;
        assert_eq!(paths(&model), before);
        assert!(model.parameters().iter().all(|p| p.tensor().dtype() == dtype && p.is_trainable()));
        let found = model.eval(|| model.forward(&inputs));
        assert_eq!(found.dtype(), dtype);
        let found = found.cast(DType::F32).to_vec::<f32>()?;
        let largest = exact.iter().fold(0f32, |m, x| m.max(x.abs()));
        let unit = if dtype == DType::F16 { f16::EPSILON.to_f32() } else { bf16::EPSILON.to_f32() };
        for (a, b) in found.iter().zip(&exact) {
            assert!((a - b).abs() <= 8.0 * unit * largest, "{dtype}: {a} for {b}");
        }
        let how = GenerateOptions { temperature: 0.0, ..GenerateOptions::new(12) };
        let tokens = model.generate(&[1, 2], &how)?.collect::<Result<Vec<u32>>>()?;
        assert_eq!(tokens.len(), 12);
        let mut optimizer = AdamW::new(&model);
        let error = optimizer.step(found_loss(&model, &inputs).backward()?).unwrap_err().to_string();
        assert!(error.contains("Precision") && error.contains(dtype.name()), "{error}");
    }
    // Under a precision the model stays f32 and its cache is of half precision.
    let model = Gpt::new(&sizes(), &Generator::new(5))?;
    let how = GenerateOptions { temperature: 0.0, ..GenerateOptions::new(12) };
    let tokens = Precision::Bf16.scope(|| model.generate(&[1, 2], &how)?.collect::<Result<Vec<u32>>>())?;
    assert_eq!(tokens.len(), 12);
    Ok(())
}

fn found_loss(model: &Gpt, inputs: &Tensor) -> Tensor {
    model.forward(inputs).cast(DType::F32).square().mean()
}

#[test]
fn a_network_for_images_learns_in_half_precision() -> Result<()> {
    let _alone = alone();
    for precision in [Precision::Bf16, Precision::F16] {
        let generator = Generator::new(3);
        let model = LeNet::new(10, &generator)?;
        let mut optimizer = LossScaler::new(Adam::new(&model).learning_rate(3e-3));
        let images = generator.randn([8, 1, 28, 28]);
        let targets = Tensor::from_vec((0..8).collect::<Vec<i64>>(), [8]);
        let mut losses = Vec::new();
        for _ in 0..60 {
            let loss = precision.scope(|| model.forward(&images).cross_entropy(&targets));
            optimizer.step(optimizer.scale(&loss).backward()?)?;
            losses.push(loss.item::<f32>()?);
        }
        assert!(losses[59] < 0.2 * losses[0], "{precision}: {losses:?}");
    }
    Ok(())
}
