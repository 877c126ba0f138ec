//! `lantern config`: what holds and why, whether it can be used, and what there is.

use std::process::ExitCode;

use clap::Subcommand;

use super::{Failure, ServeArgs, commands, print};
use crate::config::{
    BrokerSettings, Config, ConfigError, Origin, Problem, Resolved, Servers, reference, resolve,
};
use lantern_broker as broker;

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
            let (resolved, config) = resolve(&args.sources());
            check_context(&resolved, &config?)?;
            print("the configuration is good\n")?;
        }
        ConfigCommand::Reference => print(&reference())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A context of the nats command line tool is read when the host connects; here it is read to see whether it could be.
fn check_context(resolved: &Resolved, config: &Config) -> Result<(), Failure> {
    let BrokerSettings::Remote(remote) = &config.broker else {
        return Ok(());
    };
    let Servers::Context(name) = &remote.servers else {
        return Ok(());
    };
    let Err(error) = commands::block_on(broker::check_context(name))? else {
        return Ok(());
    };
    let fix = error.hint().unwrap_or("`nats context ls` lists the contexts");
    let problem = Problem {
        setting: "broker.context".to_owned(),
        origin: resolved
            .origin("broker.context")
            .cloned()
            .unwrap_or(Origin::Default),
        fix: fix.to_owned(),
        message: format!("{:#}", anyhow::Error::new(error)),
    };
    Err(ConfigError {
        problems: vec![problem],
    }
    .into())
}
