//! The bench binary behind `cargo xtask bench`: runs workloads in this process and prints one JSON line for each, with
//! the names and keys of the peers' scripts. Owns the command line and the list of workloads.

mod attention;
mod gpt;
mod harness;
mod machine;
mod matmul;
mod nets;
mod observed;
mod overhead;
mod pointwise;
mod rows;
mod start;

use std::process::ExitCode;

use clap::Parser;
use tapeflow::{Device, Problem};

use harness::{Bench, Options};

type Workload = fn(&mut Bench, &str) -> tapeflow::Result<()>;

/// By the names of the peers' `torch_bench.py`, in its order; then what is tapeflow's own.
const WORKLOADS: &[(&str, Workload)] = &[
    ("sgemm_256", matmul::sgemm),
    ("sgemm_512", matmul::sgemm),
    ("sgemm_1024", matmul::sgemm),
    ("sgemm_2048", matmul::sgemm),
    ("bf16gemm_1024", matmul::bf16gemm),
    ("bf16gemm_2048", matmul::bf16gemm),
    ("gpt_cpu_train", gpt::train),
    ("gpt_baby_train_b16", gpt::train),
    ("gpt_baby_train_b16_bf16", gpt::train),
    ("gpt_baby_train_b64", gpt::train),
    ("gpt_baby_drop_b16", gpt::train),
    ("gpt_baby_drop_b64", gpt::train),
    ("mlp_train", nets::mlp),
    ("cnn_train", nets::cnn),
    ("resnet20_train", nets::resnet20),
    ("xor_train", nets::xor),
    ("xor_captured", nets::xor_captured),
    ("gpt2_decode", gpt::decode),
    ("gpt2_decode_bf16", gpt::decode),
    ("gpt2_decode_int8", gpt::decode),
    ("gpt2_prefill512", gpt::prefill),
    ("gpt2_prefill512_bf16", gpt::prefill),
    ("op_chain_16M", pointwise::chain),
    ("op_softmax", rows::softmax),
    ("op_layernorm_fwd", rows::layer_norm),
    ("op_layernorm_fwdbwd", rows::layer_norm_backward),
    ("op_attention_fwd", attention::forward),
    ("op_attention_fwdbwd", attention::backward),
    ("step_overhead", overhead::step),
    ("cold_start", start::cold),
    ("gemv_50257x768", matmul::gemv),
    ("gemv_3072x768", matmul::gemv),
    ("gemv_768x3072", matmul::gemv),
    ("gemv_bf16_50257x768", matmul::gemv),
    ("gemv_bf16_3072x768", matmul::gemv),
    ("linear_masked_4x3072x768", matmul::linear),
    ("linear_masked_64x768x768", matmul::linear),
    ("linear_masked_512x512x512", matmul::linear),
    ("linear_cast_1x3072x768", matmul::linear),
    ("linear_cast_8x3072x768", matmul::linear),
    ("linear_cast_512x768x768", matmul::linear),
    ("linear_relu_16384x32x256", matmul::linear),
    ("linear_relu_2048x128x512", matmul::linear),
    ("linear_softmax_4096x64x512", matmul::linear),
    ("linear_plain_4096x64x512", matmul::linear),
    ("linear_plain_2048x128x512", matmul::linear),
    ("linear_plain_16384x32x256", matmul::linear),
];

#[derive(Parser)]
#[command(about = "Times tapeflow's workloads; prints one JSON line each")]
struct Cli {
    /// Workloads; none: list them.
    names: Vec<String>,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(start::FIRST_RESULT) {
        return start::first_result();
    }
    let cli = Cli::parse();
    if cli.names.is_empty() {
        let names = WORKLOADS.iter().map(|(name, _)| *name);
        println!("workloads: {}", names.collect::<Vec<_>>().join(" "));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = tapeflow::set_threads(cli.options.threads) {
        eprintln!("--threads: {error}");
        return ExitCode::FAILURE;
    }
    let device = match cli.options.device.parse::<Device>() {
        Ok(device) => device,
        Err(error) => {
            eprintln!("--device {}: {error}", cli.options.device);
            return ExitCode::FAILURE;
        }
    };
    let mut bench = Bench::new(cli.options, device);
    let mut code = ExitCode::SUCCESS;
    for name in &cli.names {
        if let Some((_, workload)) = WORKLOADS.iter().find(|(known, _)| known == name) {
            match device.scope(|| workload(&mut bench, name)) {
                Ok(()) => {}
                Err(error) if is_unsupported(&error) => eprintln!("{name}: not on {device}: {error}"),
                Err(error) => {
                    eprintln!("{name} on {device} failed: {error}");
                    code = ExitCode::FAILURE;
                }
            }
        } else {
            eprintln!("unknown workload {name}");
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Whether the device has no way to run something in it; then there is nothing to measure, and nothing is wrong.
fn is_unsupported(error: &tapeflow::Error) -> bool {
    matches!(error, tapeflow::Error::Tensor(e) if matches!(e.problem(), Problem::Unsupported { .. }))
}
