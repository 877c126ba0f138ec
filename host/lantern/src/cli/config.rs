//! `lantern config`: effective values with their sources, validation, and the reference of all settings.

use std::process::ExitCode;

use clap::Subcommand;

use super::{Failure, ServeArgs, block_on, print};
use crate::config::{
    BrokerSettings, ConfigError, HostConfig, Problem, Resolved, Servers, SettingOrigin, reference, resolve,
};
use lantern_broker as broker;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print each setting with its value and the source of the value.
    Show(ServeArgs),
    /// Validate the configuration without starting the host.
    Check(ServeArgs),
    /// Print a commented configuration file with every setting and its default.
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
            print("OK: the configuration is valid\n")?;
        }
        ConfigCommand::Reference => print(&reference())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks the context of the nats command line tool, which the host reads only when it connects.
fn check_context(resolved: &Resolved, config: &HostConfig) -> Result<(), Failure> {
    let BrokerSettings::Remote(remote) = &config.broker else {
        return Ok(());
    };
    let Servers::Context(name) = &remote.servers else {
        return Ok(());
    };
    let Err(error) = block_on(broker::check_context(name))? else {
        return Ok(());
    };
    let fix = error.hint().unwrap_or("`nats context ls` lists the contexts");
    let problem = Problem {
        setting: "broker.context".to_owned(),
        origin: resolved
            .origin("broker.context")
            .cloned()
            .unwrap_or(SettingOrigin::Default),
        fix: fix.to_owned(),
        message: format!("{:#}", anyhow::Error::new(error)),
    };
    Err(ConfigError {
        problems: vec![problem],
    }
    .into())
}
