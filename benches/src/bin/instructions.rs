//! Small fixed workloads whose instructions `cargo xtask instructions` counts: one by name, on one thread, in one call
//! of `tapeflow_measured`, which is what is counted. Without a name it lists them.

use std::process::ExitCode;

use tapeflow::prelude::*;
use tapeflow::{CapturedStep, Result, capture, set_threads};

/// Does one step.
type Step = Box<dyn FnMut() -> Result<()>>;

/// A workload: its name, how often it runs before, how often while it is counted, and how it begins.
struct Workload(&'static str, u32, u32, fn() -> Result<Step>);

const WORKLOADS: &[Workload] = &[
    Workload("mlp_step", 3, 5, mlp),
    Workload("gpt_step", 3, 3, gpt),
    // The first step is the one that compiles.
    Workload("gpt_first_step", 0, 1, gpt),
    Workload("xor_step", 20, 50, xor),
    Workload("xor_captured", 20, 50, xor_captured),
    Workload("fused_chain", 2, 3, chain),
];

fn mlp() -> Result<Step> {
    let generator = Generator::new(1);
    let model = Mlp::new(&[64, 96, 96, 10], Tensor::gelu, &generator)?;
    let mut optimizer = AdamW::new(&model);
    let x = generator.randn([32, 64]);
    let y = Tensor::from_vec((0..32).map(|i| i % 10).collect::<Vec<i64>>(), [32]);
    Tensor::realize_all(&[&x, &y])?;
    Ok(Box::new(move || optimizer.step(model.forward(&x).cross_entropy(&y).backward()?)))
}

fn gpt() -> Result<Step> {
    let config =
        GptConfig { vocab_size: 65, block_size: 32, n_layer: 2, n_head: 2, n_embd: 64, dropout: 0.1, bias: true };
    let generator = Generator::new(1);
    let model = Gpt::new(&config, &generator)?;
    let mut optimizer = AdamW::new(&model);
    let (x, y) = (generator.randint(0, 65, [4, 32]), generator.randint(0, 65, [4, 32]));
    Tensor::realize_all(&[&x, &y])?;
    Ok(Box::new(move || optimizer.step(model.loss(&x, &y).backward()?)))
}

#[derive(Module)]
#[module(forward = |x| out(hidden(x).tanh()))]
struct Xor {
    hidden: Linear,
    out: Linear,
}

fn xor_parts() -> Result<(Xor, Tensor, Tensor)> {
    let generator = Generator::new(1);
    let model = Xor { hidden: Linear::drawn(2, 8, &generator)?, out: Linear::drawn(8, 1, &generator)? };
    let inputs = Tensor::from_vec(vec![0f32, 0., 0., 1., 1., 0., 1., 1.], [4, 2]);
    Ok((model, inputs, Tensor::from_vec(vec![0f32, 1., 1., 0.], [4, 1])))
}

fn xor() -> Result<Step> {
    let (model, x, y) = xor_parts()?;
    let mut optimizer = Adam::new(&model);
    Ok(Box::new(move || {
        let loss = model.forward(&x).mse_loss(&y);
        optimizer.step(loss.backward()?)?;
        loss.item::<f32>()?;
        Ok(())
    }))
}

fn xor_captured() -> Result<Step> {
    let (model, x, y) = xor_parts()?;
    let mut optimizer = Adam::new(&model);
    let mut step: CapturedStep = capture(&[&x, &y], |batch| {
        let loss = model.forward(&batch[0]).mse_loss(&batch[1]);
        optimizer.step(loss.backward()?)?;
        Ok::<_, tapeflow::Error>(vec![loss])
    })?;
    Ok(Box::new(move || {
        step.run(&[&x, &y])?;
        step.item::<f32>(0)?;
        Ok(())
    }))
}

fn chain() -> Result<Step> {
    let generator = Generator::new(1);
    let [x, a, b] = [0; 3].map(|_| generator.randn([128, 256]));
    Tensor::realize_all(&[&x, &a, &b])?;
    Ok(Box::new(move || {
        let y = {
            let inner = &x * &a + &b;
            inner.gelu() * &a + &x
        };
        Ok(y.realize()?)
    }))
}

/// What is counted: the name is one that a profiler finds.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C-unwind" fn tapeflow_measured(step: &mut Step, times: u32) -> bool {
    (0..times).all(|_| step().is_ok())
}

fn run(&Workload(_, before, times, begin): &Workload) -> Result<bool> {
    set_threads(1)?;
    let mut step = begin()?;
    (0..before).try_for_each(|_| step())?;
    Ok(tapeflow_measured(&mut step, times))
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        WORKLOADS.iter().for_each(|Workload(name, ..)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some(workload) = WORKLOADS.iter().find(|Workload(known, ..)| *known == name) else {
        eprintln!("unknown workload {name}");
        return ExitCode::FAILURE;
    };
    match run(workload) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("{name}: a step failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
