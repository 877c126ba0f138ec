//! The program: parse, run, tell what failed, choose the exit code.

use std::process::ExitCode;

use clap::Parser as _;
use lantern::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprint!("{}", failure.render());
            failure.exit_code()
        }
    }
}
