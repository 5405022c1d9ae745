//! `cargo xtask golden`: runs the script beside the golden files.

use std::process::Command;

#[derive(clap::Args)]
pub struct Args {
    /// An interpreter that has torch, numpy and safetensors.
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: String,
}

pub fn run(args: &Args) -> Result<(), String> {
    let script = crate::root().join("tests/golden/make.py");
    let mut command = Command::new(&args.python);
    let status = command.arg("-B").arg(script).status().map_err(|e| format!("{}: {e}", args.python))?;
    if status.success() { Ok(()) } else { Err(format!("make.py: {status}")) }
}
