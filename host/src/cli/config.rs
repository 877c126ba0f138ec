//! `lantern config`: what holds and why, whether it can be used, and what there is.

use std::process::ExitCode;

use clap::Subcommand;

use super::{Failure, ServeArgs, print};
use crate::config::{reference, resolve};

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print each setting with its value and where that comes from.
    Show(ServeArgs),
    /// Say whether the host could start with it, without starting anything.
    Check(ServeArgs),
    /// Print a commented file with every setting and its default.
    Reference,
}

pub fn run(command: &ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Show(args) => {
            let (resolved, config) = resolve(&args.sources());
            print(&resolved.show())?;
            config?;
        }
        ConfigCommand::Check(args) => {
            resolve(&args.sources()).1?;
            print("the configuration is good\n")?;
        }
        ConfigCommand::Reference => print(&reference())?,
    }
    Ok(ExitCode::SUCCESS)
}
