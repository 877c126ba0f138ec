//! pip, through which programs come that Rust's package manager does not have.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow};

use crate::process;

const WAYS: [&[&str]; 4] = [
    &["python3", "-m", "pip"],
    &["pip3"],
    &["pip"],
    &["python", "-m", "pip"],
];

/// A command that is pip, to be given what to do. Fails where there is none.
pub fn command() -> Result<Command> {
    let found = WAYS.iter().find_map(|way| {
        let (program, args) = way.split_first()?;
        let asked: Vec<&str> = args.iter().copied().chain(["--version"]).collect();
        process::answer(OsStr::new(program), &asked)?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        Some(command)
    });
    found.ok_or_else(|| {
        let looked = WAYS.map(|way| way.join(" ")).join(", ");
        anyhow!("there is no pip to fetch it with (looked for {looked})")
    })
}
