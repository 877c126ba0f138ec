//! `lantern plugin canary` and `written`: what a version would write, and what it has written.

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
    /// Plugin and candidate version: @DIGEST (at least eight digits) or @VERSION.
    #[arg(value_name = "NAME@VERSION")]
    plugin: Reference,
    /// Number of last messages of each stream to read [default: 1000, unless --live is given].
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// Number of seconds for which to read new messages.
    #[arg(long, value_name = "SECONDS")]
    live: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct WrittenArgs {
    /// Plugin and version: @DIGEST (at least eight digits) or @VERSION.
    #[arg(value_name = "NAME@VERSION")]
    plugin: Reference,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// Report of a canary. Rows stay raw text, because their JSON values are shown exactly as they are stored.
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

/// Number of example rows per table in the text output; the JSON output contains all.
const EXAMPLES_SHOWN: usize = 10;

fn version(plugin: &Reference) -> Result<&str, Failure> {
    plugin.version.as_deref().ok_or_else(|| {
        Failure::usage(format!(
            "no version of {0} given: expected {0}@VERSION or {0}@DIGEST",
            plugin.name
        ))
        .hint(format!(
            "`lantern plugin show {}` lists the versions",
            plugin.name
        ))
    })
}

pub fn canary(args: &CanaryArgs) -> Result<(), Failure> {
    let client = Client::open(&args.host)?;
    let messages = args.messages.or(args.live.is_none().then_some(1_000));
    let report = run_canary(&client, &args.plugin, version(&args.plugin)?, messages, args.live)?;
    match args.json {
        true => print_json(&report),
        false => print(&render(&report)),
    }
}

/// Runs a canary in the host and returns its report.
pub fn run_canary(
    client: &Client,
    plugin: &Reference,
    version: &str,
    messages: Option<u64>,
    live_seconds: Option<u64>,
) -> Result<Report, Failure> {
    let body = json!({"version": version, "messages": messages, "live_seconds": live_seconds});
    client.post_json_for_long(&path(&plugin.name, "/canary"), &body)
}

/// Renders the report: differences by table, rejected messages, and cost of both versions.
pub fn render(report: &Report) -> String {
    let mut text = format!("{}\n{}", render_tables(&report.tables), render_versions(report));
    for rejects in report.new["rejects"].as_array().into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  rejected: {rejects}");
    }
    for compared in &report.tables {
        text.push_str(&render_examples(compared));
    }
    for reason in &report.partial {
        let _ = writeln!(text, "incomplete: {reason}");
    }
    if report.needs_rebuild {
        let digest = report.new["digest"].as_str().unwrap_or_default();
        let _ = writeln!(
            text,
            "the tables differ; activation requires a rebuild: lantern rebuild {}@{}",
            report.plugin,
            Short(digest)
        );
    }
    text
}

fn render_tables(tables: &[Compared]) -> String {
    let head = ["table", "same", "changed", "only active", "only candidate"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(tables.iter().map(|compared| {
        vec![
            compared.table.clone(),
            compared.same.to_string(),
            compared.changed.to_string(),
            compared.only_old.to_string(),
            compared.only_new.to_string(),
        ]
    }));
    table::align(&rows, &[false, true, true, true, true], "")
}

fn render_versions(report: &Report) -> String {
    let head = [
        "",
        "version",
        "messages",
        "rows",
        "skipped",
        "rejected",
        "µs/message",
        "memory",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (role, version) in [("active", &report.old), ("candidate", &report.new)] {
        if version.is_object() {
            rows.push(version_cells(role, version));
        }
    }
    table::align(&rows, &[false, false, true, true, true, true, true, true], "")
}

fn version_cells(role: &str, version: &Value) -> Vec<String> {
    let number = |key: &str| version[key].as_u64().unwrap_or_default();
    let text = |key: &str| version[key].as_str().unwrap_or_default();
    let microseconds = version["decode_us_per_message"].as_f64().unwrap_or_default();
    vec![
        role.to_owned(),
        format!("{} {}", text("version"), Short(text("digest"))),
        number("messages").to_string(),
        number("rows").to_string(),
        number("skipped").to_string(),
        number("rejected").to_string(),
        format!("{microseconds:.1}"),
        table::bytes(number("memory_peak_bytes")),
    ]
}

fn render_examples(compared: &Compared) -> String {
    let row =
        |row: &Option<Box<RawValue>>| row.as_ref().map_or("null".to_owned(), |row| row.get().to_owned());
    let mut text = String::new();
    for example in compared.examples.iter().take(EXAMPLES_SHOWN) {
        // Writing to a String cannot fail.
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
        return print("this version has handled no messages, or other versions have reprocessed them\n");
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
