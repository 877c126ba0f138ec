//! `lantern plugin set`: settings of one plugin.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::path;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print, print_json};
use lantern_model::schema::PluginName;

#[derive(Debug, Args)]
pub struct SetArgs {
    /// The plugin; it need not be installed yet.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    /// A setting and its value, such as limits.memory=128MiB or wasi=true; without a value it is as for all plugins.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = assignment)]
    changes: Vec<(String, String)>,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give KEY=VALUE, or KEY= to take it back".to_owned()),
    }
}

pub fn run(args: &SetArgs) -> Result<(), Failure> {
    let mut changes = BTreeMap::new();
    for (key, value) in &args.changes {
        if changes.insert(key, value).is_some() {
            return Err(Failure::usage(format!("{key} is given twice")));
        }
    }
    let client = Client::open(&args.host)?;
    let body = json!({"changes": changes});
    let settings: Value = client.put_json(&path(&args.name, "/settings"), &body)?;
    if args.json {
        return print_json(&settings);
    }
    let mut lines = Vec::new();
    flatten("", &settings, &mut lines);
    let name = &args.name;
    print(&match lines.as_slice() {
        [] => format!("{name} has the settings of all plugins, from now on\n"),
        lines => format!(
            "in force from the next batch on; what is set for {name}:\n  {}\n",
            lines.join("\n  ")
        ),
    })
}

/// Settings as they are typed.
pub fn flatten(prefix: &str, value: &Value, lines: &mut Vec<String>) {
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
    fn settings_are_shown_as_they_are_typed() {
        let settings = json!({"limits": {"memory": "128 MiB", "rows_per_message": 9}, "wasi": true});
        let mut lines = Vec::new();
        flatten("", &settings, &mut lines);
        assert_eq!(
            lines,
            ["limits.memory=128 MiB", "limits.rows_per_message=9", "wasi=true"]
        );
        assert_eq!(assignment("a=").unwrap(), ("a".into(), String::new()));
        assert_eq!(assignment("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(assignment("a").is_err() && assignment("=b").is_err());
    }
}
