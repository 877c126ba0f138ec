//! `lantern plugin list` and `show`.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::{Short, path, set, signature};
use crate::cli::client::OutputArgs;
use crate::cli::{Failure, print, print_json, table};
use lantern_api::{
    LedgerRange, LoadFailure, PluginDetail, PluginSummary, PluginUse, PluginVersionDetail, SignatureState,
};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Name of the plugin.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn list(args: &ListArgs) -> Result<(), Failure> {
    let client = args.output.open()?;
    let failures: Vec<LoadFailure> = client.get_json("/api/v1/plugin-files")?;
    let plugins: Vec<PluginSummary> = client.get_json("/api/v1/plugins")?;
    match args.output.json {
        true => print_json(&json!({"plugins": plugins, "load_failures": failures})),
        false => print(&render_list(&plugins, &failures)),
    }
}

pub fn show(args: &ShowArgs) -> Result<(), Failure> {
    let client = args.output.open()?;
    let path = path(&args.name, "");
    let plugin: PluginDetail = client.get_json(&path)?;
    match args.output.json {
        true => print_json(&plugin),
        false => print(&render(&plugin)?),
    }
}

fn describe_use(used: &PluginUse) -> String {
    if used.messages_passed == 0 {
        return "no messages passed since loading".to_owned();
    }
    format!(
        "{} messages passed since loading, {:.1} µs per message, peak memory {}, {} failed calls",
        used.messages_passed,
        used.busy_us as f64 / used.messages_passed as f64,
        table::bytes(used.memory_peak_bytes),
        used.faults
    )
}

fn render_list(plugins: &[PluginSummary], failures: &[LoadFailure]) -> String {
    let mut text = if plugins.is_empty() {
        "no plugins installed\nto install one: lantern plugin install FILE --activate\n".to_owned()
    } else {
        let head = [
            "plugin", "state", "version", "digest", "versions", "sources", "tables",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(plugins.iter().map(|plugin| {
            let active = plugin
                .versions
                .iter()
                .find(|version| Some(&version.digest) == plugin.active.as_ref());
            let (version, digest) = active.map_or_else(
                || ("-".to_owned(), "-".to_owned()),
                |active| (active.version.clone(), Short(&active.digest).to_string()),
            );
            vec![
                plugin.name.clone(),
                state(plugin),
                version,
                digest,
                plugin.versions.len().to_string(),
                plugin.sources.join(", "),
                plugin.tables.join(", "),
            ]
        }));
        table::align(&rows, &[false, false, false, false, true], "")
    };
    for plugin in plugins {
        let active = plugin
            .versions
            .iter()
            .find(|version| Some(&version.digest) == plugin.active.as_ref());
        if let Some(active) = active.filter(|active| active.signature.state != SignatureState::Good)
            && let Some(signature) = signature::describe(&active.signature)
        {
            // Writing to a String does not fail.
            let _ = writeln!(text, "\nsignature of {}: {signature}", plugin.name);
        }
        if let Some(reason) = &plugin.paused {
            // Writing to a String does not fail.
            let _ = writeln!(text, "\npaused: {}: {reason}", plugin.name);
        }
    }
    if !failures.is_empty() {
        text.push_str("\nrejected components:\n");
        for failure in failures {
            let _ = writeln!(text, "  - {}: {}", failure.subject, failure.reason);
        }
    }
    text
}

/// The state of a plugin. One without versions has only settings.
fn state(plugin: &PluginSummary) -> String {
    let state = match plugin.versions.is_empty() {
        true => "not installed",
        false => plugin.state.as_str(),
    };
    state.to_owned()
}

fn render(plugin: &PluginDetail) -> Result<String, Failure> {
    let mut head = vec![
        vec!["plugin".to_owned(), plugin.name.clone()],
        vec!["state".to_owned(), plugin.state.as_str().to_owned()],
        vec!["sources".to_owned(), plugin.sources.join(", ")],
        vec!["tables".to_owned(), plugin.tables.join(", ")],
    ];
    if let Some(reason) = &plugin.paused {
        head.insert(2, vec!["paused".to_owned(), reason.clone()]);
    }
    if let Some(used) = &plugin.used {
        head.push(vec!["usage".to_owned(), describe_use(used)]);
    }
    let settings = set::describe(&plugin.settings)?;
    head.extend(settings.into_iter().map(|line| vec!["setting".to_owned(), line]));
    let mut text = table::align(&head, &[], "");
    text.push('\n');
    text.push_str(&versions(&plugin.versions));
    text.push_str(&ranges(&plugin.versions));
    for PluginVersionDetail { version, .. } in &plugin.versions {
        if let Some(signature) = signature::describe(&version.signature) {
            let (number, digest) = (&version.version, Short(&version.digest));
            // Writing to a String does not fail.
            let _ = writeln!(text, "\nsignature of {number} ({digest}): {signature}");
        }
        if let Some(reason) = &version.failed {
            let (number, digest) = (&version.version, Short(&version.digest));
            // Writing to a String does not fail.
            let _ = writeln!(text, "\n{number} ({digest}) failed: {reason}");
        }
    }
    Ok(text)
}

fn versions(versions: &[PluginVersionDetail]) -> String {
    let head = ["version", "digest", "state", "installed", "origin", "signature"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(versions.iter().map(|PluginVersionDetail { version, .. }| {
        vec![
            version.version.clone(),
            Short(&version.digest).to_string(),
            version.state.as_str().to_owned(),
            table::to_the_second(&version.installed_at),
            version.came_from.clone().unwrap_or_else(|| "-".into()),
            signature::short(&version.signature).unwrap_or_default(),
        ]
    }));
    // Without checked signatures the column is left out.
    if versions
        .iter()
        .all(|version| signature::short(&version.version.signature).is_none())
    {
        for row in &mut rows {
            row.pop();
        }
    }
    table::align(&rows, &[], "")
}

/// The ranges that each version handled, in stream order.
fn ranges(versions: &[PluginVersionDetail]) -> String {
    let mut ranges: Vec<(&PluginVersionDetail, &LedgerRange)> = versions
        .iter()
        .flat_map(|version| version.ranges.iter().map(move |range| (version, range)))
        .collect();
    if ranges.is_empty() {
        return String::new();
    }
    ranges.sort_by_key(|(_, range)| (&range.source, range.epoch, range.first_sequence));
    let head = [
        "source",
        "epoch",
        "from",
        "to",
        "version",
        "messages",
        "projected",
        "skipped",
        "dead",
        "inserted",
        "updated",
        "present",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(ranges.into_iter().map(|(version, range)| {
        vec![
            range.source.clone(),
            range.epoch.to_string(),
            range.first_sequence.to_string(),
            range.last_sequence.to_string(),
            version.version.version.clone(),
            range.messages.to_string(),
            range.projected.to_string(),
            range.skipped.to_string(),
            range.dead.to_string(),
            range.inserted.to_string(),
            range.updated.to_string(),
            range.present.to_string(),
        ]
    }));
    let mut right = [true; 12];
    (right[0], right[4]) = (false, false);
    format!("\n{}", table::align(&rows, &right, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused_plugin() -> serde_json::Value {
        let version = json!({
            "version": "1.0.0", "digest": "sha256:aa", "contract": "0.1.0", "state": "paused",
            "installed_at": "2026-11-20T10:00:00.123456Z", "activated_at": null, "component_bytes": 1,
            "came_from": "file obs.wasm", "failed": "it was bad",
            "signature": {"state": "not-checked", "key": null, "comment": null, "reason": null},
            "ranges": [{"id": 1, "plugin": "obs", "source": "obs", "epoch": 1, "origin": 1, "stream": "OBS",
                        "version": "1.0.0", "digest": "sha256:aa", "first_sequence": 1, "last_sequence": 100,
                        "messages": 100, "projected": 98, "skipped": 1, "dead": 1, "missing": 0, "rows": 98,
                        "inserted": 90, "updated": 5, "present": 3, "first_at": "", "last_at": ""}],
        });
        json!({
            "name": "obs", "state": "paused", "active": "sha256:aa", "previous": null, "paused": "by me",
            "sources": ["obs"], "tables": ["events"], "settings": {}, "used": null, "versions": [version],
        })
    }

    #[test]
    fn plugins_are_listed_with_rejected_components() {
        let plugin = paused_plugin();
        let listed: PluginSummary = serde_json::from_value(plugin.clone()).unwrap();
        let plugin: PluginDetail = serde_json::from_value(plugin).unwrap();
        let failure = LoadFailure {
            subject: "file x.wasm".into(),
            reason: "it is empty".into(),
            blocks_messages: false,
            unsigned: false,
        };
        assert_eq!(
            render(&plugin).unwrap(),
            "\
plugin   obs
state    paused
paused   by me
sources  obs
tables   events

version  digest  state   installed             origin
1.0.0    aa      paused  2026-11-20T10:00:00Z  file obs.wasm

source  epoch  from   to  version  messages  projected  skipped  dead  inserted  updated  present
obs         1     1  100  1.0.0         100         98        1     1        90        5        3

1.0.0 (aa) failed: it was bad
"
        );
        assert_eq!(
            render_list(&[listed], &[failure]),
            "\
plugin  state   version  digest  versions  sources  tables
obs     paused  1.0.0    aa             1  obs      events

paused: obs: by me

rejected components:
  - file x.wasm: it is empty
"
        );
        assert!(render_list(&[], &[]).contains("lantern plugin install"));
        let mut signed = plugin;
        signed.versions[0].version.failed = None;
        signed.versions[0].ranges.clear();
        signed.versions[0].version.signature = serde_json::from_value(json!({
            "state": "good", "key": "E7620F1842B4E81F", "comment": "orders 1.0.0", "reason": null,
        }))
        .unwrap();
        let text = render(&signed).unwrap();
        assert!(text.contains("origin         signature\n"), "{text}");
        assert!(
            text.ends_with("signature of 1.0.0 (aa): valid, key E7620F1842B4E81F: orders 1.0.0\n"),
            "{text}"
        );
    }
}
