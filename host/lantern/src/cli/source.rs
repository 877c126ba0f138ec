//! `lantern source`: decisions about the streams that plugins read.

use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, HostArgs};
use super::{Failure, print};
use lantern_model::schema::{PluginName, SourceName};

#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Decide whether the stream of a source is the one that it read, where the host cannot tell.
    Accept(AcceptArgs),
}

#[derive(Debug, Args)]
#[group(id = "history", required = true, multiple = false, args = ["same", "new"])]
pub struct AcceptArgs {
    /// The plugin, or one of its sources. Without a source, the only one that waits for a decision.
    #[arg(value_name = "PLUGIN[/SOURCE]")]
    name: Name,
    /// It is the same stream: continue behind the checkpoint.
    #[arg(long)]
    same: bool,
    /// It is another stream: read all of it in a new epoch. Old rows stay.
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// A plugin, and perhaps one of its sources.
#[derive(Clone, Debug)]
struct Name {
    plugin: PluginName,
    source: Option<SourceName>,
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (plugin, source) = match text.split_once('/') {
            Some((plugin, source)) => (plugin, Some(SourceName::parse(source)?)),
            None => (text, None),
        };
        Ok(Self {
            plugin: PluginName::parse(plugin)?,
            source,
        })
    }
}

#[derive(Deserialize)]
struct Projection {
    plugin: String,
    source: String,
    state: String,
}

pub fn run(command: &SourceCommand) -> Result<(), Failure> {
    match command {
        SourceCommand::Accept(args) => accept(args),
    }
}

fn accept(args: &AcceptArgs) -> Result<(), Failure> {
    let client = Client::open(&args.host)?;
    let plugin = &args.name.plugin;
    let source = match &args.name.source {
        Some(source) => source.to_string(),
        None => the_undecided(client.get_json("/api/v1/projections")?, plugin.as_str())?,
    };
    let history = if args.same { "same" } else { "new" };
    let path = format!("/api/v1/plugins/{plugin}/sources/{source}/accept");
    client.post_json::<Value>(&path, &json!({ "history": history }))?;
    let next = if args.same {
        "continues behind its checkpoint"
    } else {
        "reads all of its stream in a new epoch; old rows stay"
    };
    print(&format!("{plugin}/{source} {next}\n"))
}

/// The only source of the plugin that waits for a decision.
fn the_undecided(projections: Vec<Projection>, plugin: &str) -> Result<String, Failure> {
    let mut undecided: Vec<String> = projections
        .into_iter()
        .filter(|projection| projection.plugin == plugin && projection.state == "undecided")
        .map(|projection| projection.source)
        .collect();
    match undecided.len() {
        1 => Ok(undecided.remove(0)),
        0 => Err(Failure::new(anyhow::anyhow!(
            "no source of plugin {plugin} waits for a decision"
        ))
        .hint("`lantern status` shows the state of each source")),
        _ => Err(Failure::new(anyhow::anyhow!(
            "several sources of plugin {plugin} wait for a decision: {}",
            undecided.join(", ")
        ))
        .hint("name one as PLUGIN/SOURCE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_source_that_waits_is_found() {
        let projection = |plugin: &str, source: &str, state: &str| Projection {
            plugin: plugin.into(),
            source: source.into(),
            state: state.into(),
        };
        let all = |second: &str| {
            vec![
                projection("a", "one", "undecided"),
                projection("a", "two", second),
                projection("b", "three", "undecided"),
            ]
        };
        assert_eq!(the_undecided(all("running"), "a").unwrap(), "one");
        assert!(the_undecided(all("undecided"), "a").is_err());
        assert!(the_undecided(all("running"), "c").is_err());
    }

    #[test]
    fn a_name_is_a_plugin_or_one_of_its_sources() {
        let name = |text: &str| {
            Name::from_str(text).map(|name| (name.plugin.to_string(), name.source.map(|s| s.to_string())))
        };
        assert_eq!(name("obs-events"), Ok(("obs-events".into(), None)));
        assert_eq!(
            name("obs-events/obs"),
            Ok(("obs-events".into(), Some("obs".into())))
        );
        assert!(name("obs-events/").is_err() && name("/obs").is_err() && name("a/b/c").is_err());
    }
}
