//! `lantern plugin remove`: removes a plugin, with or without its tables. Before it drops tables, the command asks for the
//! name of the plugin again.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::Args;

use super::path;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print};
use lantern_api::{PluginDetail, Removed};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Name of the plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    #[command(flatten)]
    tables: Tables,
    /// Drop tables without confirmation.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Tables {
    /// Keep tables and checkpoints; after a new installation the plugin continues there.
    #[arg(long)]
    keep_tables: bool,
    /// Drop the tables, dead letters, ledger and checkpoints of the plugin.
    #[arg(long)]
    drop_tables: bool,
}

pub fn run(args: &RemoveArgs) -> Result<(), Failure> {
    let name = &args.name;
    let client = Client::open(&args.host)?;
    if args.tables.drop_tables && !args.yes {
        confirm(name, client.url())?;
    }
    let plugin: PluginDetail = client.get_json(&path(name, ""))?;
    let tables = if args.tables.drop_tables { "drop" } else { "keep" };
    let removed: Removed = client.delete(&path(name, &format!("?tables={tables}")))?;
    print(&render(name, plugin.versions.is_empty(), &removed))
}

fn render(name: &PluginName, had_only_settings: bool, removed: &Removed) -> String {
    let mut text = if had_only_settings {
        format!("removed the settings of {name}, which was not installed\n")
    } else if removed.dropped.is_empty() {
        format!(
            "removed {name}; its tables stay, and after a new installation it continues at its checkpoint\n"
        )
    } else {
        format!(
            "removed {name} with its tables {}; after a new installation it reads its streams from the beginning\n",
            removed.dropped.join(", ")
        )
    };
    if !removed.consumers_left.is_empty() {
        text.push_str("consumers that are still on the broker; the host deletes them as soon as possible:\n");
        for left in &removed.consumers_left {
            text.push_str(&format!(
                "  - consumer {} of stream {}: {}\n",
                left.consumer, left.stream, left.reason
            ));
        }
    }
    text
}

fn confirm(name: &PluginName, url: &str) -> Result<(), Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(
            "--drop-tables requires confirmation, and standard input is not a terminal",
        )
        .hint("use --yes to drop the tables without confirmation"));
    }
    let mut answer = String::new();
    let written = write!(
        io::stderr(),
        "This drops the tables of {name} at {url}. Type the name of the plugin to confirm: "
    );
    written
        .and_then(|()| io::stderr().flush())
        .and_then(|()| stdin.lock().read_line(&mut answer))
        .context("failed to ask for confirmation")
        .map_err(Failure::new)?;
    if answer.trim() == name.as_str() {
        Ok(())
    } else {
        Err(Failure::usage("the name does not match; nothing was changed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_api::ConsumerLeft;

    #[test]
    fn consumers_left_on_the_broker_are_listed() {
        let name = PluginName::parse("things").unwrap();
        let mut removed = Removed {
            plugin: name.to_string(),
            dropped: Vec::new(),
            consumers_left: Vec::new(),
        };
        assert!(!render(&name, false, &removed).contains("broker"));
        assert_eq!(
            render(&name, true, &removed),
            "removed the settings of things, which was not installed\n"
        );
        removed.consumers_left.push(ConsumerLeft {
            stream: "THINGS".into(),
            consumer: "lantern-things-events".into(),
            reason: "the broker is not connected".into(),
        });
        let text = render(&name, false, &removed);
        assert!(
            text.ends_with(
                "  - consumer lantern-things-events of stream THINGS: the broker is not connected\n"
            ),
            "{text}"
        );
    }
}
