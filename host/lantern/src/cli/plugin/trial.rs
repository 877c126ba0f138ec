//! `lantern plugin canary` and `written`: what a version would do, and what it has done.

use std::fmt::Write as _;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Reference, Short, path};
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print, print_json, table};

#[derive(Debug, Args)]
pub struct CanaryArgs {
    /// The plugin and the version on trial, by @DIGEST (eight digits or more) or @VERSION.
    #[arg(value_name = "NAME@VERSION")]
    plugin: Reference,
    /// Try it on the last messages of each stream [default: 1000, unless --live is given].
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// Try it on what comes in for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    live: Option<u64>,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct WrittenArgs {
    /// The plugin and the version, by @DIGEST (eight digits or more) or @VERSION.
    #[arg(value_name = "NAME@VERSION")]
    plugin: Reference,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// The host's report of a canary. Rows stay the text that they are, because their documents are shown as they are stored.
#[derive(Deserialize, Serialize)]
pub struct Report {
    plugin: String,
    old: Value,
    new: Value,
    tables: Vec<Compared>,
    sources: Value,
    differences: Value,
    effect: Value,
    needs_rebuild: bool,
    took_ms: u64,
    partial: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct Compared {
    table: String,
    key: Vec<String>,
    same: u64,
    changed: u64,
    only_old: u64,
    only_new: u64,
    examples: Vec<Example>,
}

#[derive(Deserialize, Serialize)]
struct Example {
    source: String,
    sequence: u64,
    old: Option<Box<RawValue>>,
    new: Option<Box<RawValue>>,
}

/// Rows that are shown of each table; all that the host gives are in the JSON.
const EXAMPLES_SHOWN: usize = 10;

fn version(plugin: &Reference) -> Result<&str, Failure> {
    plugin.version.as_deref().ok_or_else(|| {
        Failure::usage(format!(
            "which version of {0}? name it: {0}@VERSION or {0}@DIGEST",
            plugin.name
        ))
        .hint(format!("lantern plugin show {} lists them", plugin.name))
    })
}

pub fn canary(args: &CanaryArgs) -> Result<(), Failure> {
    let client = Client::open(&args.host)?;
    let messages = args.messages.or(args.live.is_none().then_some(1_000));
    let report = try_out(&client, &args.plugin, version(&args.plugin)?, messages, args.live)?;
    match args.json {
        true => print_json(&report),
        false => print(&render(&report)),
    }
}

/// Has the host try a version, and gives its report.
pub fn try_out(
    client: &Client,
    plugin: &Reference,
    version: &str,
    messages: Option<u64>,
    live_seconds: Option<u64>,
) -> Result<Report, Failure> {
    let body = json!({"version": version, "messages": messages, "live_seconds": live_seconds});
    client.post_json_for_long(&path(&plugin.name, "/canary"), &body)
}

/// The report for people: what each table would hold, what would be rejected, what it costs.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let mut rows = vec![
        ["table", "same", "changed", "only before", "only now"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for compared in &report.tables {
        rows.push(vec![
            compared.table.clone(),
            compared.same.to_string(),
            compared.changed.to_string(),
            compared.only_old.to_string(),
            compared.only_new.to_string(),
        ]);
    }
    text.push_str(&table::align(&rows, &[false, true, true, true, true], ""));
    text.push('\n');
    let mut sides = vec![
        [
            "",
            "version",
            "messages",
            "rows",
            "skipped",
            "rejected",
            "µs a message",
            "memory",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for (name, side) in [("runs", &report.old), ("on trial", &report.new)] {
        if side.is_object() {
            sides.push(vec![
                name.to_owned(),
                format!(
                    "{} {}",
                    side["version"].as_str().unwrap_or_default(),
                    Short(side["digest"].as_str().unwrap_or_default())
                ),
                number(&side["messages"]).to_string(),
                number(&side["rows"]).to_string(),
                number(&side["skipped"]).to_string(),
                number(&side["rejected"]).to_string(),
                format!(
                    "{:.1}",
                    side["decode_us_per_message"].as_f64().unwrap_or_default()
                ),
                table::bytes(number(&side["memory_peak_bytes"])),
            ]);
        }
    }
    text.push_str(&table::align(
        &sides,
        &[false, false, true, true, true, true, true, true],
        "",
    ));
    for rejects in report.new["rejects"].as_array().into_iter().flatten() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  rejected: {rejects}");
    }
    let row =
        |row: &Option<Box<RawValue>>| row.as_ref().map_or("null".to_owned(), |row| row.get().to_owned());
    for compared in &report.tables {
        for example in compared.examples.iter().take(EXAMPLES_SHOWN) {
            let _ = writeln!(
                text,
                "  {}, {} {}: {} -> {}",
                compared.table,
                example.source,
                example.sequence,
                row(&example.old),
                row(&example.new)
            );
        }
    }
    for words in &report.partial {
        let _ = writeln!(text, "not all of it: {words}");
    }
    if report.needs_rebuild {
        let digest = report.new["digest"].as_str().unwrap_or_default();
        let _ = writeln!(
            text,
            "its tables are others: lantern rebuild {}@{}",
            report.plugin,
            Short(digest)
        );
    }
    text
}

pub fn written(args: &WrittenArgs) -> Result<(), Failure> {
    let version = version(&args.plugin)?;
    let client = Client::open(&args.host)?;
    let written: Value = client.get_json(&path(&args.plugin.name, &format!("/written?version={version}")))?;
    if args.json {
        return print_json(&written);
    }
    let ranges = written["ranges"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if ranges.is_empty() {
        return print("it has handled nothing, or others have done its work again\n");
    }
    let head = [
        "source",
        "epoch",
        "from",
        "to",
        "messages",
        "projected",
        "skipped",
        "dead",
        "rows now",
    ];
    let cell = |range: &Value, key: &str| match &range[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let keys = [
        "source",
        "epoch",
        "first_sequence",
        "last_sequence",
        "messages",
        "projected",
        "skipped",
        "dead",
        "rows",
    ];
    let rows = ranges
        .iter()
        .map(|range| keys.map(|key| cell(range, key)).to_vec());
    let rows: Vec<Vec<String>> = std::iter::once(head.map(str::to_owned).to_vec())
        .chain(rows)
        .collect();
    print(&table::align(
        &rows,
        &[false, true, true, true, true, true, true, true, true],
        "",
    ))
}
