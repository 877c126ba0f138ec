//! Runs other programs: says what it starts, and turns a bad end into an error that names it.
//!
//! It does not capture what they print, except where a caller asks for it; a developer sees cargo's own output.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The cargo that started this program, or the one on PATH, to be run in `root`.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    command
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
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

/// Says the command, runs it to its end and fails unless it succeeded.
pub fn run(command: &mut Command) -> Result<()> {
    println!("    $ {}", shown(command));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Says the command, runs it, and hands each line of its standard output to `each` while it runs. Fails unless
/// it succeeded; `each` has then seen all lines nevertheless.
pub fn run_lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<()> {
    println!("    $ {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if let Some(stdout) = child.stdout.take() {
        // Bytes, not `lines()`: one bad byte in a test's output must not end the reading.
        for line in BufReader::new(stdout).split(b'\n') {
            each(&String::from_utf8_lossy(&line.context("cannot read the output")?));
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// What a short command prints, or none when it cannot be started or fails.
pub fn answer(program: &OsStr, args: &[&str]) -> Option<String> {
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

/// Writes a program that runs `text` in a shell.
///
/// A shell writes it, not this process: what one thread has open for writing while another starts a program is open
/// in that child as well until it is another program, and so long the file cannot be run ("text file busy").
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
    fn a_bad_end_names_the_command_and_all_lines_were_seen() {
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
    fn a_command_is_shown_as_it_is_typed() {
        let mut command = Command::new("/somewhere/cargo");
        command.args(["test", "--test", "*", "two words"]);
        assert_eq!(shown(&command), "cargo test --test '*' 'two words'");
    }

    #[test]
    fn an_answer_is_only_of_a_program_that_succeeds() {
        assert_eq!(answer(OsStr::new("echo"), &[" yes "]).as_deref(), Some("yes"));
        assert_eq!(answer(OsStr::new("false"), &[]), None);
        assert_eq!(answer(OsStr::new("no-such-program-here"), &[]), None);
    }
}
