//! `lantern plugin pause` and `resume`.

use clap::Args;
use serde_json::json;

use super::path;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print};
use lantern_api::{Pause, PluginSummary};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Name of the plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    /// Reason, shown wherever the plugin is listed as paused.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Name of the plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    #[command(flatten)]
    host: HostArgs,
}

pub fn pause(args: &PauseArgs) -> Result<(), Failure> {
    let body = Pause {
        reason: args.reason.clone(),
    };
    Client::open(&args.host)?.post_json::<PluginSummary>(&path(&args.name, "/pause"), &body)?;
    let name = &args.name;
    print(&format!(
        "paused {name}; it stays paused after a restart, and its messages stay in their streams\n\
         to resume: lantern plugin resume {name}\n"
    ))
}

pub fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    Client::open(&args.host)?.post_json::<PluginSummary>(&path(&args.name, "/resume"), &json!({}))?;
    print(&format!("resumed {}\n", args.name))
}
