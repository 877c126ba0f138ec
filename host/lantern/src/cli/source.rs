//! `lantern source`: resolves sources whose stream the host cannot identify.

use std::str::FromStr;

use clap::{Args, Subcommand};

use super::client::{Client, HostArgs};
use super::{Failure, print};
use lantern_api::{SourceDecided, SourceDecision, SourceHistory};
use lantern_model::schema::{PluginName, SourceName};
use lantern_model::status::{ProjectionState, Status};

#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Decide whether the stream of an undecided source is the same stream or a new one.
    Accept(AcceptArgs),
}

#[derive(Debug, Args)]
#[group(id = "history", required = true, multiple = false, args = ["same", "new"])]
pub struct AcceptArgs {
    /// Plugin, with an optional source [default: its only undecided source].
    #[arg(value_name = "PLUGIN[/SOURCE]")]
    name: Name,
    /// The stream is the same: continue after the checkpoint.
    #[arg(long)]
    same: bool,
    /// The stream is new: read all of it in a new epoch. Old rows stay.
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// A plugin with an optional source.
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
        None => undecided_source(client.get_json("/api/v1/projections")?, plugin.as_str())?,
    };
    let history = match args.same {
        true => SourceHistory::Same,
        false => SourceHistory::New,
    };
    let path = format!("/api/v1/plugins/{plugin}/sources/{source}/accept");
    client.post_json::<SourceDecided>(&path, &SourceDecision { history })?;
    let next = if args.same {
        "continues after its checkpoint"
    } else {
        "reads all of its stream in a new epoch; old rows stay"
    };
    print(&format!("{plugin}/{source} {next}\n"))
}

/// The only undecided source of the plugin.
fn undecided_source(projections: Vec<Status>, plugin: &str) -> Result<String, Failure> {
    let mut undecided: Vec<String> = projections
        .into_iter()
        .filter(|projection| projection.plugin == plugin && projection.state == ProjectionState::Undecided)
        .map(|projection| projection.source)
        .collect();
    match undecided.len() {
        1 => Ok(undecided.remove(0)),
        0 => Err(
            Failure::new(anyhow::anyhow!("plugin {plugin} has no undecided source"))
                .hint("`lantern status` shows the state of each source"),
        ),
        _ => Err(Failure::new(anyhow::anyhow!(
            "plugin {plugin} has several undecided sources: {}",
            undecided.join(", ")
        ))
        .hint("name one as PLUGIN/SOURCE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_undecided_source_is_found() {
        use ProjectionState::{Running, Undecided};
        let projection = |plugin: &str, source: &str, state| Status {
            state,
            ..Status::starting(plugin, "1.0.0", "sha256:aa", source, None)
        };
        let all = |second| {
            vec![
                projection("a", "one", Undecided),
                projection("a", "two", second),
                projection("b", "three", Undecided),
            ]
        };
        assert_eq!(undecided_source(all(Running), "a").unwrap(), "one");
        assert!(undecided_source(all(Undecided), "a").is_err());
        assert!(undecided_source(all(Running), "c").is_err());
    }

    #[test]
    fn a_name_is_a_plugin_with_an_optional_source() {
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
