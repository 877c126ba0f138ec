//! `lantern plugin canary` and `written`: what a version would write, and what it has written.

use std::fmt::Write as _;

use clap::Args;

use super::{Reference, Short, path};
use crate::cli::client::{Client, OutputArgs};
use crate::cli::{Failure, table};
use lantern_api::{CanaryReport, CanaryVersion, NewCanary, Rejects, RowView, TableComparison, VersionWork};

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
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct WrittenArgs {
    /// Plugin and version: @DIGEST (at least eight digits) or @VERSION.
    #[arg(value_name = "NAME@VERSION")]
    plugin: Reference,
    #[command(flatten)]
    output: OutputArgs,
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
    let client = args.output.open()?;
    let messages = args.messages.or(args.live.is_none().then_some(1_000));
    let report = run_canary(&client, &args.plugin, version(&args.plugin)?, messages, args.live)?;
    args.output.print(&report, render)
}

/// Runs a canary in the host and returns its report.
pub fn run_canary(
    client: &Client,
    plugin: &Reference,
    version: &str,
    messages: Option<u64>,
    live_seconds: Option<u64>,
) -> Result<CanaryReport, Failure> {
    let body = NewCanary {
        version: version.to_owned(),
        messages,
        live_seconds,
    };
    client.post_json_for_long(&path(&plugin.name, "/canary"), &body)
}

/// Renders the report: differences by table, rejected messages, and cost of both versions.
pub fn render(report: &CanaryReport) -> String {
    let mut text = format!("{}\n{}", render_tables(&report.tables), render_versions(report));
    for rejects in &report.new.rejects {
        text.push_str(&render_rejects(rejects));
    }
    let examples: String = report.tables.iter().map(render_examples).collect();
    if !examples.is_empty() {
        text.push_str("examples of changed rows (table, source, sequence: active -> candidate):\n");
        text.push_str(&examples);
    }
    for reason in &report.partial {
        let _ = writeln!(text, "incomplete: {reason}");
    }
    if report.needs_rebuild {
        let _ = writeln!(
            text,
            "the tables differ; activation requires a rebuild: lantern rebuild {}@{}",
            report.plugin,
            Short(&report.new.digest)
        );
    }
    text
}

fn render_rejects(rejects: &Rejects) -> String {
    let mut text = format!("  rejected as {}: {}\n", rejects.class, rejects.rejected);
    for example in &rejects.examples {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "    {} {}: {}",
            example.source, example.sequence, example.reason
        );
    }
    text
}

fn render_tables(tables: &[TableComparison]) -> String {
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

fn render_versions(report: &CanaryReport) -> String {
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
    rows.extend(report.old.iter().map(|version| version_cells("active", version)));
    rows.push(version_cells("candidate", &report.new));
    table::align(&rows, &[false, false, true, true, true, true, true, true], "")
}

fn version_cells(role: &str, version: &CanaryVersion) -> Vec<String> {
    vec![
        role.to_owned(),
        format!("{} {}", version.version, Short(&version.digest)),
        version.messages.to_string(),
        version.rows.to_string(),
        version.skipped.to_string(),
        version.rejected.to_string(),
        format!("{:.1}", version.decode_us_per_message),
        table::bytes(version.memory_peak_bytes),
    ]
}

fn render_examples(compared: &TableComparison) -> String {
    let row = |row: &Option<RowView>| {
        row.as_ref()
            .map_or("no row".to_owned(), |row| row.json().to_owned())
    };
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
    let client = args.output.open()?;
    let work: VersionWork =
        client.get_json(&path(&args.plugin.name, &format!("/written?version={version}")))?;
    args.output.print(&work, render_work)
}

fn render_work(work: &VersionWork) -> String {
    if work.ranges.is_empty() {
        return "this version has handled no messages, or other versions have reprojected them\n".to_owned();
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
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(work.ranges.iter().map(|range| {
        vec![
            range.source.clone(),
            range.epoch.to_string(),
            range.first_sequence.to_string(),
            range.last_sequence.to_string(),
            range.messages.to_string(),
            range.projected.to_string(),
            range.skipped.to_string(),
            range.dead.to_string(),
            range.row_count.to_string(),
        ]
    }));
    let mut right = [true; 9];
    right[0] = false;
    table::align(&rows, &right, "")
}
