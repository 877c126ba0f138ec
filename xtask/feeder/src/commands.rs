//! Commands that the demo runs, so that there are executions to display. One of them fails on purpose.

use std::{process::Stdio, time::Duration};

use chrono::{DateTime, Utc};
use tokio::{process, time};

use crate::message::{self, Finished, Started};

/// Time limit, so that a hanging command does not block the others.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Output limit per message; the beginning is sufficient for a dashboard.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// The commands, in order.
pub const COMMANDS: &[Command] = &[
    Command {
        manifest_id: "system-name",
        program: "uname",
        arguments: &["-a"],
    },
    Command {
        manifest_id: "disk-space",
        program: "df",
        arguments: &["-h"],
    },
    Command {
        manifest_id: "missing-file",
        program: "ls",
        arguments: &["/nowhere/at/all"],
    },
];

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The name of the command.
    pub manifest_id: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

/// One run of a command.
#[derive(Debug)]
pub struct Execution {
    command: Command,
    pc_id: String,
    exec_id: String,
    request_id: String,
    result_id: String,
    started_at: DateTime<Utc>,
}

impl Command {
    /// Creates an execution with its ids and its start time, without starting the process.
    pub fn prepare(self, pc_id: &str) -> Execution {
        let started_at = Utc::now();
        // One command runs at a time, so the microsecond distinguishes the runs.
        let exec_id = format!(
            "{}-{}-{}",
            self.manifest_id,
            std::process::id(),
            started_at.timestamp_micros()
        );
        Execution {
            command: self,
            pc_id: pc_id.to_owned(),
            request_id: format!("demo-{}", std::process::id()),
            result_id: format!("{pc_id}-{exec_id}"),
            exec_id,
            started_at,
        }
    }
}

impl Execution {
    /// The message for the start.
    pub fn started(&self) -> Started<'_> {
        Started {
            result_id: &self.result_id,
            request_id: &self.request_id,
            exec_id: &self.exec_id,
            pc_id: &self.pc_id,
            started_at: message::time(self.started_at),
            manifest_id: self.command.manifest_id,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Runs the command. A missing program and a timeout are results as well.
    pub async fn run(self) -> Finished {
        let mut command = process::Command::new(self.command.program);
        command
            .args(self.command.arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let (exit_code, stdout, stderr) = match time::timeout(ENDS_WITHIN, command.output()).await {
            Ok(Ok(output)) => (
                output.status.code().unwrap_or(-1),
                truncate(&output.stdout),
                truncate(&output.stderr),
            ),
            Ok(Err(error)) => (
                -1,
                String::new(),
                format!("cannot start {}: {error}", self.command.program),
            ),
            Err(_) => (
                -1,
                String::new(),
                format!("killed after {} s", ENDS_WITHIN.as_secs()),
            ),
        };
        Finished {
            result_id: self.result_id,
            request_id: self.request_id,
            exec_id: self.exec_id,
            pc_id: self.pc_id,
            exit_code,
            stdout,
            stderr,
            started_at: message::time(self.started_at),
            finished_at: message::time(Utc::now()),
            manifest_id: self.command.manifest_id.to_owned(),
        }
    }
}

/// The beginning of the output as text, without NUL, which the database rejects.
fn truncate(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[..output.len().min(OUTPUT_BYTES_MAX)]).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_command_has_the_expected_result() {
        for command in COMMANDS {
            let execution = command.prepare("pc-1");
            let (result_id, exec_id) = (execution.result_id.clone(), execution.exec_id.clone());
            assert!(
                !exec_id.contains(['.', ' ', '*', '>']),
                "{exec_id} is not a subject token"
            );
            assert_eq!(execution.started().result_id, result_id);
            let result = execution.run().await;
            assert_eq!(result.result_id, result_id);
            assert_eq!(
                result.exit_code == 0,
                command.manifest_id != "missing-file",
                "{result:?}"
            );
            assert_eq!(result.stderr.is_empty(), result.exit_code == 0, "{result:?}");
            assert!(result.finished_at >= result.started_at);
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_a_result() {
        let command = Command {
            manifest_id: "x",
            program: "no-such-program-here",
            arguments: &[],
        };
        let result = command.prepare("pc-1").run().await;
        assert_eq!(result.exit_code, -1);
        assert!(result.stderr.contains("no-such-program-here"), "{result:?}");
    }

    #[test]
    fn output_is_truncated_and_has_no_nul() {
        assert_eq!(truncate(b"a\0b"), "a\u{fffd}b");
        assert_eq!(truncate(&[b'x'; OUTPUT_BYTES_MAX + 1]).len(), OUTPUT_BYTES_MAX);
    }
}
