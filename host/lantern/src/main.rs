//! The program: parse, run, tell what failed, choose the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use lantern::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            // The code says it as well, where nobody reads this.
            drop(write!(std::io::stderr(), "{}", cli::printable(&failure.render())));
            failure.exit_code()
        }
    }
}
