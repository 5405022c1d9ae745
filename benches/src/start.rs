//! How long a program takes from its start to its first result and its end: this program, started anew.

use std::process::{Command, ExitCode, Stdio};

use tapeflow::prelude::*;
use tapeflow::{Error, Result};

use crate::harness::{Bench, Floor};

/// The argument with which this program computes one product and ends.
pub const FIRST_RESULT: &str = "first-result";

/// Milliseconds from the start of a process to its end; it multiplies two 2 × 2 matrices and prints an element.
pub fn cold(bench: &mut Bench, name: &str) -> Result<()> {
    let refused = |e: std::io::Error| Error::Configuration(format!("this program cannot be started anew: {e}"));
    let program = std::env::current_exe().map_err(refused)?;
    bench.ms(
        name,
        Floor::default(),
        || {
            let status = Command::new(&program).arg(FIRST_RESULT).stdout(Stdio::null()).status().map_err(refused)?;
            if status.success() { Ok(()) } else { Err(refused(std::io::Error::other(status.to_string()))) }
        },
        &[],
    )
}

/// What the started process does.
pub fn first_result() -> ExitCode {
    let a = Tensor::ones([2, 2], DType::F32);
    match a.matmul(&a).to_vec::<f32>() {
        Ok(values) => {
            println!("{}", values[0]);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
