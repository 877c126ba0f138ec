//! `lantern completions`: a completion script for a shell.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};

use super::{Cli, Failure, print};

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell for which to print the script.
    shell: clap_complete::Shell,
}

pub fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lantern", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
