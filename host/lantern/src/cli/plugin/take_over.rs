//! `lantern plugin take-over`: takes over consumers of another host.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::path;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print};
use lantern_api::{TakeOverOutcome, TakenOver};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct TakeOverArgs {
    /// Name of the plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    #[command(flatten)]
    host: HostArgs,
}

pub fn run(args: &TakeOverArgs) -> Result<(), Failure> {
    let taken: TakenOver =
        Client::open(&args.host)?.post_json(&path(&args.name, "/take-over"), &json!({}))?;
    print(&render(&taken))
}

fn render(taken: &TakenOver) -> String {
    let mut text = String::new();
    for consumer in &taken.consumers {
        let outcome = match consumer.outcome {
            TakeOverOutcome::TakenOver => match &consumer.before {
                Some(host) => format!("taken over from host {host}"),
                None => "taken over; it had no owner".to_owned(),
            },
            TakeOverOutcome::Own => "already belongs to this host".to_owned(),
            TakeOverOutcome::Absent => "does not exist; the host creates it when it reads".to_owned(),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "consumer {} of stream {}: {outcome}",
            consumer.consumer, consumer.stream
        );
    }
    text
}
