//! `lantern plugin new`: creates a project that builds and passes its test, and prints the derived table.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{count, indented};
use crate::cli::broker::BrokerArgs;
use crate::cli::{Failure, block_on, print};
use lantern_authoring::guess::{Column, Content};
use lantern_authoring::live::{self, Part};
use lantern_authoring::sample::{self, Sample};
use lantern_authoring::scaffold::{self, Language, NewProject, Plan, ScaffoldError};
use lantern_model::schema::{DeclaredRole, PluginName};

/// Number of messages to read from a stream as a sample.
const SAMPLE_MESSAGES: u64 = 200;

/// Arguments of `lantern plugin new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Name of the plugin, and of the directory of its project.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    /// Language of the plugin.
    #[arg(long, value_enum, default_value = "rust")]
    lang: Language,
    /// Stream that the plugin reads [default: the name in upper case].
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Subject that the plugin reads; repeatable [default: NAME.>].
    #[arg(long = "subject", value_name = "SUBJECT")]
    subjects: Vec<String>,
    /// File with sample messages from which the table is derived: JSON documents, or lines of text.
    #[arg(long, value_name = "FILE", conflicts_with = "from_stream")]
    sample: Option<PathBuf>,
    /// Stream from whose last messages the table is derived.
    #[arg(long, value_name = "STREAM")]
    from_stream: Option<String>,
    /// Data directory of a host whose embedded broker has the stream.
    #[arg(long, value_name = "DIR", requires = "from_stream", conflicts_with_all = ["nats", "nats_context"])]
    data_dir: Option<PathBuf>,
    /// Directory of the project [default: NAME].
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Broker of the stream [default: from the settings of `lantern serve`, or $NATS_URL].
    #[command(flatten)]
    broker: BrokerArgs,
}

pub fn run(args: &NewArgs) -> Result<(), Failure> {
    if args.broker.is_given() && args.from_stream.is_none() {
        return Err(Failure::usage("broker options require --from-stream STREAM"));
    }
    let mut subjects = args.subjects.clone();
    let sample = match (&args.sample, &args.from_stream) {
        (Some(file), _) => Some(sample::read(file).map_err(Failure::new)?),
        (None, Some(stream)) => {
            let broker = args.broker.resolve(args.data_dir.as_deref())?;
            let read = block_on(live::read(broker, stream, Part::Last(SAMPLE_MESSAGES)))??;
            if subjects.is_empty() {
                subjects = read.subjects;
            }
            Some(Sample {
                origin: format!("the stream {stream}"),
                messages: read.messages,
                has_envelopes: true,
                notes: Vec::new(),
            })
        }
        (None, None) => None,
    };
    let dir = args
        .path
        .clone()
        .unwrap_or_else(|| PathBuf::from(args.name.as_str()));
    let stream = args.stream.clone().or_else(|| args.from_stream.clone());
    let table = scaffold::table_name(&args.name);
    let plan = Plan {
        stream: stream.unwrap_or_else(|| table.to_uppercase()),
        subjects: match subjects.is_empty() {
            true => vec![format!("{}.>", args.name)],
            false => subjects,
        },
        name: args.name.clone(),
        language: args.lang,
        sample,
    };
    let (stream, subjects) = (plan.stream.clone(), plan.subjects.join(", "));
    let project = scaffold::create(&dir, plan).map_err(|error| {
        let exists = matches!(error, ScaffoldError::Exists(_));
        let failure = Failure::new(error);
        match exists {
            true => failure.hint("choose another name, or another directory with --path DIR"),
            false => failure,
        }
    })?;
    print(&render(&project, &table, &stream, &subjects))
}

fn render(project: &NewProject, table: &str, stream: &str, subjects: &str) -> String {
    let mut text = format!(
        "{}: plugin for the stream {stream} ({subjects})\n\ntable {table}, derived from {} of {}:\n",
        project.dir.display(),
        count(project.messages, "message"),
        project.origin
    );
    let rows: Vec<Vec<String>> = project
        .guess
        .columns
        .iter()
        .map(|column| cells(column, project))
        .collect();
    text.push_str(&indented(&rows, &[]));
    for note in project.notes.iter().chain(&project.guess.notes) {
        text.push_str(&format!("  note: {note}\n"));
    }
    text.push_str(&format!(
        "{} in {} {} the expected rows\n\nnext: review {}, then\n  cd {}\n  lantern plugin test\n  lantern plugin dev\n",
        count(project.fixtures, "fixture"),
        project.dir.join("fixtures").display(),
        if project.expected > 0 { "with" } else { "without" },
        project.dir.join(project.source_file).display(),
        quoted(&project.dir),
    ));
    text
}

fn cells(column: &Column, project: &NewProject) -> Vec<String> {
    let null = if column.nullable { ", nullable" } else { "" };
    let role = match &column.role {
        _ if project.guess.key.as_ref() == Some(&column.name) => "key".to_owned(),
        DeclaredRole::None => String::new(),
        DeclaredRole::Time => "time".to_owned(),
        DeclaredRole::Entity => "entity".to_owned(),
        DeclaredRole::Facet => "facet".to_owned(),
        DeclaredRole::Measure(unit) if unit.is_empty() => "measure".to_owned(),
        DeclaredRole::Measure(unit) => format!("measure ({unit})"),
    };
    let from = match &column.content {
        Content::Field(field) if *field != column.name => format!("from {field:?}; "),
        _ => String::new(),
    };
    vec![
        column.name.clone(),
        format!("{}{null}", column.column_type),
        role,
        format!("{from}{}", column.reason)
            .trim_end_matches("; ")
            .to_owned(),
    ]
}

fn quoted(dir: &Path) -> String {
    let text = dir.display().to_string();
    match text.contains([' ', '\'', '"', '$', '&']) {
        true => format!("'{}'", text.replace('\'', "'\\''")),
        false => text,
    }
}
