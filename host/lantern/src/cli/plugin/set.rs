//! `lantern plugin set`: changes settings of a plugin.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;

use super::path;
use crate::cli::client::OutputArgs;
use crate::cli::{Failure, print, print_json};
use lantern_api::{PluginDetail, SettingsChanges};
use lantern_model::schema::PluginName;
use lantern_model::settings::PluginSettings;

#[derive(Debug, Args)]
pub struct SetArgs {
    /// Name of the plugin, which may not be installed yet.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    /// Setting and value, such as limits.memory=128MiB or wasi=true; KEY= restores the default of all plugins.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = assignment)]
    changes: Vec<(String, String)>,
    #[command(flatten)]
    output: OutputArgs,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, or KEY= to restore the default".to_owned()),
    }
}

pub fn run(args: &SetArgs) -> Result<(), Failure> {
    let mut changes = BTreeMap::new();
    for (key, value) in &args.changes {
        if changes.insert(key.clone(), value.as_str().into()).is_some() {
            return Err(Failure::usage(format!("duplicate setting {key}")));
        }
    }
    let client = args.output.open()?;
    let body = SettingsChanges { changes };
    let settings: PluginSettings = client.put_json(&path(&args.name, "/settings"), &body)?;
    if args.output.json {
        return print_json(&settings);
    }
    let lines = describe(&settings)?;
    let name = &args.name;
    print(&match lines.as_slice() {
        [] => format!("{name} now has the default settings\n"),
        lines => format!(
            "settings of {name}, effective from the next batch:\n  {}\n",
            lines.join("\n  ")
        ),
    })?;
    let plugin: PluginDetail = client.get_json(&path(name, ""))?;
    if plugin.versions.is_empty() {
        print(&format!(
            "plugin {name} is not installed; the settings apply when it is\nto remove them: lantern plugin remove {name} \
             --keep-tables\n"
        ))?;
    }
    Ok(())
}

/// Renders settings as KEY=VALUE lines.
pub fn describe(settings: &PluginSettings) -> Result<Vec<String>, Failure> {
    let tree = serde_json::to_value(settings).map_err(|error| Failure::new(anyhow::Error::new(error)))?;
    let mut lines = Vec::new();
    flatten("", &tree, &mut lines);
    Ok(lines)
}

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let path = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(&path, value, lines);
            }
        }
        Value::Null => {}
        Value::String(text) => lines.push(format!("{prefix}={text}")),
        other => lines.push(format!("{prefix}={other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_rendered_as_key_value_lines() {
        let settings = r#"{"limits": {"memory": "128 MiB", "rows_per_message": 9}, "wasi": true}"#;
        let settings = PluginSettings::from_json(settings).unwrap();
        assert_eq!(
            describe(&settings).unwrap(),
            ["limits.memory=128 MiB", "limits.rows_per_message=9", "wasi=true"]
        );
        assert_eq!(assignment("a=").unwrap(), ("a".into(), String::new()));
        assert_eq!(assignment("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(assignment("a").is_err() && assignment("=b").is_err());
    }
}
