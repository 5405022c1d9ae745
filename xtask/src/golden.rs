//! `cargo xtask golden`: runs the scripts beside the golden files.

use std::process::Command;

#[derive(clap::Args)]
pub struct Args {
    /// An interpreter that has torch, numpy, safetensors, tokenizers and transformers.
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: String,
}

pub fn run(args: &Args) -> Result<(), String> {
    for name in SCRIPTS {
        let script = crate::root().join("tests/golden").join(name);
        let mut command = Command::new(&args.python);
        let status = command.arg("-B").arg(script).status().map_err(|e| format!("{}: {e}", args.python))?;
        if !status.success() {
            return Err(format!("{name}: {status}"));
        }
    }
    Ok(())
}

const SCRIPTS: [&str; 2] = ["make.py", "pretrained.py"];
