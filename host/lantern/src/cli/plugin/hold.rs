//! `lantern plugin pause` and `resume`.

use clap::Args;
use serde_json::{Value, json};

use super::path;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    /// Why, for those who find it paused.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    #[command(flatten)]
    host: HostArgs,
}

pub fn pause(args: &PauseArgs) -> Result<(), Failure> {
    let body = json!({"reason": args.reason});
    Client::open(&args.host)?.post_json::<Value>(&path(&args.name, "/pause"), &body)?;
    let name = &args.name;
    print(&format!(
        "{name} is paused, also after a restart; its messages wait in their streams\n\
         to let it go on: lantern plugin resume {name}\n"
    ))
}

pub fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    Client::open(&args.host)?.post_json::<Value>(&path(&args.name, "/resume"), &json!({}))?;
    print(&format!("{} goes on where it was\n", args.name))
}
