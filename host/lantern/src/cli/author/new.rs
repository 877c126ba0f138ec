//! `lantern plugin new`: a project that builds and passes its test, and what was guessed for it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{count, indented};
use crate::cli::broker::BrokerArgs;
use crate::cli::{Failure, commands, print};
use lantern_authoring::guess::{Column, Content};
use lantern_authoring::live::{self, Part};
use lantern_authoring::sample::{self, Sample};
use lantern_authoring::scaffold::{self, Language, Made, Plan, ScaffoldError};
use lantern_model::schema::{PluginName, Role};

/// Messages that are read from a stream to guess from.
const STREAM_MESSAGES: u64 = 200;

/// What is typed after `lantern plugin new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The plugin's name; its project is made in a folder of this name.
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,
    /// The language that it is written in.
    #[arg(long, value_enum, default_value = "rust")]
    lang: Language,
    /// The stream that it reads [default: the name in capitals].
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// A subject that it reads; may be given several times [default: NAME.>].
    #[arg(long = "subject", value_name = "SUBJECT")]
    subjects: Vec<String>,
    /// Messages to guess the table from: JSON documents one after another, or lines of text.
    #[arg(long, value_name = "FILE", conflicts_with = "from_stream")]
    sample: Option<PathBuf>,
    /// A stream to read and to guess the table from its last messages.
    #[arg(long, value_name = "STREAM")]
    from_stream: Option<String>,
    /// The stream is in the embedded broker of the host with this data directory.
    #[arg(long, value_name = "DIR", requires = "from_stream", conflicts_with_all = ["nats", "nats_context"])]
    data_dir: Option<PathBuf>,
    /// Another folder for the project.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The broker of that stream; without them, the one in the settings of `lantern serve` or in $NATS_URL.
    #[command(flatten)]
    broker: BrokerArgs,
}

pub fn run(args: &NewArgs) -> Result<(), Failure> {
    if args.broker.is_given() && args.from_stream.is_none() {
        return Err(Failure::usage(
            "the options of a broker need --from-stream STREAM",
        ));
    }
    let mut subjects = args.subjects.clone();
    let sample = match (&args.sample, &args.from_stream) {
        (Some(file), _) => Some(sample::read(file).map_err(Failure::new)?),
        (None, Some(stream)) => {
            let broker = args.broker.resolve(args.data_dir.as_deref())?;
            let read = commands::block_on(live::read(broker, stream, Part::Last(STREAM_MESSAGES)))??;
            if subjects.is_empty() {
                subjects = read.subjects;
            }
            Some(Sample {
                origin: format!("the stream {stream}"),
                messages: read.messages,
                whole: true,
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
    let made = scaffold::make(&dir, plan).map_err(|error| {
        let exists = matches!(error, ScaffoldError::Exists(_));
        let failure = Failure::new(error);
        match exists {
            true => failure.hint("choose another name, or another folder with --path DIR"),
            false => failure,
        }
    })?;
    print(&render(&made, &table, &stream, &subjects))
}

fn render(made: &Made, table: &str, stream: &str, subjects: &str) -> String {
    let mut text = format!(
        "{}: a plugin for the stream {stream} ({subjects})\n\nthe table {table}, guessed from {} of {}:\n",
        made.dir.display(),
        count(made.messages, "message"),
        made.origin
    );
    let rows: Vec<Vec<String>> = made
        .guess
        .columns
        .iter()
        .map(|column| cells(column, made))
        .collect();
    text.push_str(&indented(&rows, &[]));
    for note in made.notes.iter().chain(&made.guess.notes) {
        text.push_str(&format!("  note: {note}\n"));
    }
    text.push_str(&format!(
        "{} in {}, each with the rows that it must become\n\nnext: look at {}, then\n  cd {}\n  lantern plugin test\n  lantern plugin dev\n",
        count(made.fixtures, "fixture"),
        made.dir.join("fixtures").display(),
        made.dir.join(made.source_file).display(),
        quoted(&made.dir),
    ));
    text
}

fn cells(column: &Column, made: &Made) -> Vec<String> {
    let null = if column.nullable { " or null" } else { "" };
    let role = match &column.role {
        _ if made.guess.key.as_ref() == Some(&column.name) => "key".to_owned(),
        Role::None => String::new(),
        Role::Time => "time".to_owned(),
        Role::Entity => "entity".to_owned(),
        Role::Facet => "facet".to_owned(),
        Role::Measure(unit) if unit.is_empty() => "measure".to_owned(),
        Role::Measure(unit) => format!("measure in {unit}"),
    };
    let from = match &column.content {
        Content::Field(field) if *field != column.name => format!("from {field:?}; "),
        _ => String::new(),
    };
    vec![
        column.name.clone(),
        format!("{}{null}", column.column_type),
        role,
        format!("{from}{}", column.why).trim_end_matches("; ").to_owned(),
    ]
}

fn quoted(dir: &Path) -> String {
    let text = dir.display().to_string();
    match text.contains([' ', '\'', '"', '$', '&']) {
        true => format!("'{}'", text.replace('\'', "'\\''")),
        false => text,
    }
}
