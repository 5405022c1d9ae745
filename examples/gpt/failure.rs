//! How the example fails: what is said on stderr, and the exit code.

use std::process::ExitCode;

use tapeflow::Error;

/// Why the program ends early.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for makes no sense; exit code 2, as for a flag that is not known.
    Usage(String),
    /// It made sense but could not be done; exit code 1.
    Run(String),
}

impl Failure {
    /// Says what was wrong, in one line, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let (message, code) = match self {
            Failure::Usage(message) => (message, 2),
            Failure::Run(message) => (message, 1),
        };
        // Errors of tensors and checkpoints explain themselves in several lines.
        let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        eprintln!("error: {}", lines.join("; "));
        ExitCode::from(code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Configuration(_) | Error::UnknownCharacter { .. } => Failure::Usage(error.to_string()),
            _ => Failure::Run(error.to_string()),
        }
    }
}
