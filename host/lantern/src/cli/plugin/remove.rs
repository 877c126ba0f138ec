//! `lantern plugin remove`: a plugin goes, with its tables or without. Tables are not dropped by a slip: their plugin's
//! name is asked for again.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;

use super::path;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    #[command(flatten)]
    tables: Tables,
    /// Do not ask again before tables are dropped.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Tables {
    /// Its tables stay, and so does the memory of where it was: installed again, it goes on there.
    #[arg(long)]
    keep_tables: bool,
    /// Its tables go, with its dead letters, its ledger and everything else that is known of it.
    #[arg(long)]
    drop_tables: bool,
}

#[derive(Deserialize)]
struct Removed {
    dropped: Vec<String>,
    #[serde(default)]
    consumers_left: Vec<ConsumerLeft>,
}

#[derive(Deserialize)]
struct ConsumerLeft {
    stream: String,
    consumer: String,
    reason: String,
}

pub fn run(args: &RemoveArgs) -> Result<(), Failure> {
    let name = &args.name;
    let client = Client::open(&args.host)?;
    if args.tables.drop_tables && !args.yes {
        confirm(name, client.url())?;
    }
    let word = if args.tables.drop_tables { "drop" } else { "keep" };
    let removed: Removed = client.delete(&path(name, &format!("?tables={word}")))?;
    print(&render(name, &removed))
}

fn render(name: &PluginName, removed: &Removed) -> String {
    let mut text = if removed.dropped.is_empty() {
        format!("{name} is removed; its tables stay, and installed again it goes on where it was\n")
    } else {
        format!(
            "{name} is removed with its tables {}; installed again, it reads its streams from the beginning\n",
            removed.dropped.join(", ")
        )
    };
    if !removed.consumers_left.is_empty() {
        text.push_str("still on the broker; the host deletes them as soon as it can:\n");
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
        return Err(
            Failure::usage("--drop-tables asks again, and nobody is there to answer")
                .hint("give --yes when it is meant"),
        );
    }
    let mut answer = String::new();
    let asked = write!(
        io::stderr(),
        "The tables of {name} at {url} will be gone. Type its name to go on: "
    );
    asked
        .and_then(|()| io::stderr().flush())
        .and_then(|()| stdin.lock().read_line(&mut answer))
        .context("cannot ask")
        .map_err(Failure::new)?;
    if answer.trim() == name.as_str() {
        Ok(())
    } else {
        Err(Failure::usage("that is not its name; nothing was done"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_on_the_broker_is_listed() {
        let name = PluginName::parse("things").unwrap();
        let mut removed = Removed {
            dropped: Vec::new(),
            consumers_left: Vec::new(),
        };
        assert!(!render(&name, &removed).contains("broker"));
        removed.consumers_left.push(ConsumerLeft {
            stream: "THINGS".into(),
            consumer: "lantern-things-events".into(),
            reason: "the broker is not connected".into(),
        });
        let text = render(&name, &removed);
        assert!(
            text.ends_with(
                "  - consumer lantern-things-events of stream THINGS: the broker is not connected\n"
            ),
            "{text}"
        );
    }
}
