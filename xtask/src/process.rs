//! Runs other programs: prints each command, and converts a failure into an error with the command.
//!
//! Output is captured only on request, so that developers see the output of Cargo.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The Cargo that started this program, or the one on PATH, with `root` as its working directory.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    command
}

/// The command line for display.
pub fn format_command(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .map(|word| {
            if word.contains([' ', '*']) {
                format!("'{word}'")
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Prints and runs a command. Fails unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    println!("    $ {}", format_command(command));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", format_command(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", format_command(command));
    }
    Ok(())
}

/// Prints and runs a command, and calls `each` with each line of its standard output. Fails unless the command succeeds,
/// after `each` has received all lines.
pub fn run_lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<()> {
    println!("    $ {}", format_command(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", format_command(command)))?;
    if let Some(stdout) = child.stdout.take() {
        // Bytes instead of `lines()`, which would stop at invalid UTF-8.
        for line in BufReader::new(stdout).split(b'\n') {
            each(&String::from_utf8_lossy(&line.context("cannot read the output")?));
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{}`", format_command(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", format_command(command));
    }
    Ok(())
}

/// The output of a short command, or none if it cannot be started or fails.
pub fn output_of(program: &OsStr, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes a shell script with `text`.
///
/// A child process writes it: a file that this process has open for writing is briefly inherited by programs that other
/// threads start, and cannot be executed meanwhile ("text file busy").
#[cfg(test)]
pub fn write_script(path: &Path, text: &str) {
    let write = r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""#;
    let mut shell = Command::new("/bin/sh");
    let status = shell
        .args(["-c", write, "sh"])
        .arg(path)
        .arg(text)
        .status()
        .unwrap();
    assert!(status.success(), "{} cannot be written", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn a_failure_names_the_command_and_all_lines_are_read() {
        let mut lines = Vec::new();
        let error = run_lines(&mut shell("echo one; printf '\\377two'; exit 3"), |line| {
            lines.push(line.to_owned())
        });
        assert_eq!(lines, ["one", "\u{fffd}two"]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains('3'), "{error}");
        assert!(run(&mut shell("exit 0")).is_ok());
        assert!(run(&mut shell("exit 1")).is_err());
    }

    #[test]
    fn a_command_is_formatted_with_quotes() {
        let mut command = Command::new("/somewhere/cargo");
        command.args(["test", "--test", "*", "two words"]);
        assert_eq!(format_command(&command), "cargo test --test '*' 'two words'");
    }

    #[test]
    fn only_successful_commands_have_output() {
        assert_eq!(output_of(OsStr::new("echo"), &[" yes "]).as_deref(), Some("yes"));
        assert_eq!(output_of(OsStr::new("false"), &[]), None);
        assert_eq!(output_of(OsStr::new("no-such-program-here"), &[]), None);
    }
}
