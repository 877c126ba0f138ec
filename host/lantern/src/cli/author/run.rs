//! `lantern plugin run`: projects the messages of a file and prints the outcomes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value as Tree;

use super::{build_and_load, count, drain_log, find_source, indented, source_names, subscribe_to_log, time};
use crate::cli::publish::Header;
use crate::cli::{Failure, note, print, print_json, table};
use lantern_authoring::project::Project;
use lantern_authoring::{fixture, outcome, trial};
use lantern_model::batch::{Delivery, Outcome, Row};
use lantern_model::schema::Manifest;
use lantern_plugin::Speed;

/// Arguments of `lantern plugin run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Component file, or project directory, which is built first.
    path: PathBuf,
    /// Message: a payload, or a fixture (NAME.message.json, NAME.messages.jsonl, NAME.jsonl); - reads a payload from
    /// standard input.
    #[arg(long, value_name = "FILE|-")]
    input: PathBuf,
    /// Source of the message; required if several sources of the plugin read its subject.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Subject [default: the source's first subject, with `fixture` in place of * and >].
    #[arg(long)]
    subject: Option<String>,
    /// Header; repeatable.
    #[arg(long = "header", value_name = "KEY:VALUE")]
    headers: Vec<Header>,
    /// Print JSON in the format of *.expected.json.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let log = subscribe_to_log("warn")?;
    let project = Project::open(&args.path)?;
    let (_, loaded) = build_and_load(&project, Speed::Full)?;
    let plugin = &loaded.plugin;
    let manifest = plugin.manifest();
    let mut source = find_source(manifest, args.source.as_deref())?;
    let source_subjects = source.map_or(&[][..], |index| manifest.sources[index].origin.subjects());
    let messages = read_messages(args, source_subjects)?;
    source = source.or_else(|| fixture::find_source(manifest, &messages));
    let source = source.ok_or_else(|| {
        Failure::usage("the source of the message is ambiguous")
            .hint(format!("use --source with one of: {}", source_names(manifest)))
    })?;
    if !args.headers.is_empty() && !manifest.sources[source].wants_headers {
        note(format_args!(
            "note: the plugin does not receive headers, because the source does not request them (`.with_headers()`)"
        ));
    }
    drop(drain_log(&log));
    let run = trial::run(plugin, source, &messages)?;
    let rejected = run
        .outcomes
        .iter()
        .any(|outcome| matches!(outcome, Outcome::Reject(_)));
    let lines = drain_log(&log);
    if args.json {
        let outcomes: Vec<Tree> = run
            .outcomes
            .iter()
            .map(|outcome| outcome::render(manifest, outcome))
            .collect();
        match outcomes.as_slice() {
            [one] => print_json(one)?,
            many => print_json(&many)?,
        }
    } else {
        print(&render(manifest, &messages, &run.outcomes))?;
        for line in lines {
            print(&format!("{line}\n"))?;
        }
        print(&format!(
            "{}, {} memory\n",
            time(run.busy),
            table::bytes(run.memory_peak_bytes as u64)
        ))?;
    }
    Ok(ExitCode::from(u8::from(rejected)))
}

/// Reads the messages of the input, with the subject and the headers of the command line.
fn read_messages(args: &RunArgs, source_subjects: &[String]) -> Result<Vec<Delivery>, Failure> {
    let mut messages = fixture::messages(&args.input, &read(&args.input)?, source_subjects)?;
    for message in &mut messages {
        if let Some(subject) = &args.subject {
            message.subject.clone_from(subject);
        }
        let headers = args.headers.iter();
        message
            .headers
            .extend(headers.map(|header| (header.name.clone(), header.value.clone())));
        message.headers.sort_by(|a, b| a.0.cmp(&b.0));
    }
    Ok(messages)
}

fn read(input: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match input == Path::new("-") {
        true => std::io::stdin().lock().read_to_end(&mut bytes),
        false => std::fs::File::open(input).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("failed to read {}", input.display()))?;
    Ok(bytes)
}

fn render(manifest: &Manifest, messages: &[Delivery], outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for (message, outcome) in messages.iter().zip(outcomes) {
        let Delivery {
            subject,
            sequence,
            payload,
            ..
        } = message;
        text.push_str(&format!("{subject} {sequence} ({} bytes)\n", payload.len()));
        match outcome {
            Outcome::Skip => text.push_str("  skipped\n"),
            Outcome::Reject(rejection) => {
                text.push_str(&format!(
                    "  rejected as {}: {}\n",
                    rejection.class.as_str(),
                    rejection.reason
                ));
            }
            Outcome::Rows(rows) => {
                text.push_str(&format!("  {}\n", count(rows.len(), "row")));
                for row in rows {
                    text.push_str(&render_row(manifest, row));
                }
            }
        }
    }
    text
}

fn render_row(manifest: &Manifest, row: &Row) -> String {
    // The rows have been checked against the manifest.
    let Some(write) = manifest.writes.get(row.write as usize) else {
        return String::new();
    };
    let declared = manifest.table_of(write);
    let cells = write.columns.iter().zip(&row.values).map(|(&column, value)| {
        let value = match outcome::render_value(value) {
            Tree::String(text) => text,
            other => other.to_string(),
        };
        vec![String::new(), declared.columns[column].name.to_string(), value]
    });
    let cells: Vec<_> = cells.collect();
    format!(
        "  {} (write {})\n{}",
        declared.name,
        row.write,
        indented(&cells, &[])
    )
}
