//! The same bits whatever the number of threads, whenever the loss is read, with and without fusion, on every
//! instruction-set path.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tapeflow::prelude::*;
use tapeflow::{Result, set_threads, without_fusion};

/// The number of threads is the process's: one test at a time.
static SERIAL: Mutex<()> = Mutex::new(());

fn config(dropout: f64) -> GptConfig {
    GptConfig { block_size: 24, vocab_size: 29, n_layer: 2, n_head: 2, n_embd: 32, dropout, bias: true }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Read {
    Never,
    EveryStep,
    EveryTenth,
    BeforeBackward,
    BetweenBackwardAndStep,
}

/// The bits of all parameters after `steps` steps, and of the last loss.
fn train(dropout: f64, steps: u64, read: Read) -> Result<Vec<u8>> {
    let generator = Generator::new(42);
    let model = Gpt::new(&config(dropout), &generator)?;
    let mut optimizer = AdamW::new(&model).group_where(|_, shape| shape.len() < 2, |g| g.weight_decay(0.0));
    let batches = Generator::new(7);
    let mut last = None;
    for step in 0..steps {
        // Differing shapes: every fifth batch is smaller.
        let rows = if step % 5 == 4 { 3 } else { 6 };
        let tokens = batches.randint(0, 29, [rows, 25]);
        let loss = model.loss(&tokens.slice(1, ..24), &tokens.slice(1, 1..));
        if read == Read::BeforeBackward {
            loss.item::<f32>()?;
        }
        let gradients = loss.backward()?;
        if read == Read::BetweenBackwardAndStep {
            loss.item::<f32>()?;
        }
        optimizer.set_learning_rate(1e-3 * (step + 1) as f64);
        optimizer.step(gradients.clip_norm(1.0).0)?;
        if read == Read::EveryStep || (read == Read::EveryTenth && step % 10 == 9) {
            loss.item::<f32>()?;
        }
        last = (step + 1 == steps).then_some(loss);
    }
    let mut bytes = Vec::new();
    for (_, tensor) in model.state().into_iter().chain(last.map(|loss| (String::new(), loss))) {
        bytes.extend(tensor.with_bytes(<[u8]>::to_vec)?);
    }
    Ok(bytes)
}

/// FNV-1a, 64 bits: what a child process prints instead of all bytes.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn any_number_of_threads_gives_the_same_bits() -> Result<()> {
    let _serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    for dropout in [0.0, 0.2] {
        let runs = [1, 2, 3, 8, 2].map(|threads| {
            set_threads(threads).unwrap();
            train(dropout, 40, Read::EveryTenth).unwrap()
        });
        for (threads, run) in [2, 3, 8, 2].iter().zip(&runs[1..]) {
            assert!(*run == runs[0], "{threads} threads and 1 thread differ with dropout {dropout}");
        }
        assert!(runs[0].chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite()));
    }
    Ok(())
}

#[test]
fn reading_the_loss_changes_no_bit() -> Result<()> {
    let _serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    set_threads(2).unwrap();
    for dropout in [0.0, 0.2] {
        let never = train(dropout, 40, Read::Never)?;
        for read in [Read::EveryStep, Read::EveryTenth, Read::BeforeBackward, Read::BetweenBackwardAndStep] {
            assert!(train(dropout, 40, read)? == never, "{read:?} with dropout {dropout}");
        }
    }
    Ok(())
}

#[test]
fn fusion_changes_no_bit_of_a_training() -> Result<()> {
    let _serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    for dropout in [0.0, 0.2] {
        assert!(train(dropout, 8, Read::Never)? == without_fusion(|| train(dropout, 8, Read::Never))?, "{dropout}");
    }
    Ok(())
}

/// Not a test of its own: what the tests below start, in an environment of their choice.
#[test]
#[ignore = "started by the tests of this file"]
fn child() -> Result<()> {
    for threads in [1, 3] {
        set_threads(threads).unwrap();
        for dropout in [0.0, 0.2] {
            println!("digest {dropout} {:016x}", digest(&train(dropout, 12, Read::EveryTenth)?));
        }
    }
    Ok(())
}

/// The digests a child prints, or what it said when it failed.
fn run_child(variable: &str, value: &str) -> std::result::Result<Vec<String>, String> {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"];
    let output = Command::new(program).args(arguments).env(variable, value).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(text);
    }
    let digests = text.lines().filter_map(|l| l.split_once("digest ").map(|(_, d)| d.to_owned())).collect::<Vec<_>>();
    assert_eq!(digests.len(), 4, "{text}");
    Ok(digests)
}

#[test]
fn every_instruction_set_gives_the_same_bits_with_any_number_of_threads() {
    let mut ran = Vec::new();
    for isa in ["avx512bf16", "avx512", "avx2", "neon", "baseline"] {
        match run_child("TAPEFLOW_ISA", isa) {
            Ok(digests) => {
                assert_eq!(digests[..2], digests[2..], "{isa}: 1 thread and 3 threads differ");
                ran.push(isa);
            }
            Err(text) => {
                assert!(text.contains("this machine cannot run the instruction set"), "{isa}: {text}");
                println!("skipped: this machine has no {isa}");
            }
        }
    }
    assert!(ran.contains(&"baseline"), "{ran:?}");
}

#[test]
fn an_instruction_set_that_does_not_exist_is_an_error() {
    let text = run_child("TAPEFLOW_ISA", "mmx").unwrap_err();
    assert!(text.contains("TAPEFLOW_ISA=\"mmx\" is not an instruction set"), "{text}");
}

#[test]
fn eager_runs_give_the_same_bits() {
    let lazy = run_child("TAPEFLOW_EAGER", "0").unwrap();
    assert_eq!(run_child("TAPEFLOW_EAGER", "1").unwrap(), lazy);
}
