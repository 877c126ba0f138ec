//! pip, which downloads programs that are not on crates.io.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow};

use crate::process;

const COMMANDS: [&[&str]; 4] = [
    &["python3", "-m", "pip"],
    &["pip3"],
    &["pip"],
    &["python", "-m", "pip"],
];

/// A pip command without arguments. Fails if pip is not installed.
pub fn command() -> Result<Command> {
    let found = COMMANDS.iter().find_map(|command| {
        let (program, args) = command.split_first()?;
        let version: Vec<&str> = args.iter().copied().chain(["--version"]).collect();
        process::output_of(OsStr::new(program), &version)?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        Some(command)
    });
    found.ok_or_else(|| {
        let tried = COMMANDS.map(|command| command.join(" ")).join(", ");
        anyhow!("pip is not installed (tried {tried})")
    })
}
