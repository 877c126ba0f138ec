//! The program: parses the command line, runs the command, prints a failure, chooses the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use lantern::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            // A closed standard error must not change the exit code.
            drop(write!(std::io::stderr(), "{}", cli::printable(&failure.render())));
            failure.exit_code()
        }
    }
}
