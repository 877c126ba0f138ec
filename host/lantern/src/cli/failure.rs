//! The failure of a command: message, causes, hint and exit code.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::config::ConfigError;

/// The operation failed.
const FAILED: u8 = 1;
/// Usage error; clap uses the same code.
const USAGE: u8 = 2;
/// `EX_CONFIG` of sysexits.h.
const CONFIG: u8 = 78;

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    /// Problems, printed as a list below the error.
    details: Vec<String>,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A failed operation: exit code 1.
    pub fn new(error: impl Into<anyhow::Error>) -> Self {
        Self {
            error: error.into(),
            details: Vec::new(),
            hint: None,
            code: FAILED,
        }
    }

    /// An invalid command line: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            ..Self::new(anyhow::Error::msg(message.into()))
        }
    }

    /// Adds a hint: what the user can do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Adds the single problems, one per line.
    pub fn details(self, details: Vec<String>) -> Self {
        Self { details, ..self }
    }

    /// The code to exit with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// `error: …`, each problem, each cause, and the hint; ends with a newline.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(text, "error: {}", self.error);
        for detail in &self.details {
            let _ = writeln!(text, "  - {detail}");
        }
        for cause in self.error.chain().skip(1) {
            let _ = writeln!(text, "caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let details = error.problems.iter().map(ToString::to_string).collect();
        Self {
            details,
            code: CONFIG,
            ..Self::new(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_rendered_with_error_cause_and_hint() {
        let cause = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "permission denied");
        let failure = Failure::new(anyhow::Error::new(cause).context("failed to open database x"))
            .hint("check who owns the directory");
        assert_eq!(
            failure.render(),
            "error: failed to open database x\ncaused by: permission denied\nhint: check who owns the directory\n"
        );
    }
}
