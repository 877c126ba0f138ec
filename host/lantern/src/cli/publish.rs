//! `lantern publish`: sends the messages of a file to the broker and reports the result.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use lantern_outbox::InputFormat;

use super::broker::BrokerArgs;
use super::{Failure, block_on, print};
use lantern_broker::{Lines, PublishError, Published};

/// Number of line numbers in an error message.
const LINES_SHOWN: usize = 10;

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// Subject, without wildcards.
    #[arg(value_parser = parse_subject)]
    subject: String,
    /// Input file; `-` reads standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Format of the input.
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    /// Top-level field of each JSON line (text or a number) to use as the message id, by which the broker recognises
    /// duplicates within the stream's duplicate window.
    #[arg(long, value_name = "NAME")]
    id_field: Option<String>,
    /// Data directory of a host whose embedded broker receives the messages.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["nats", "nats_context"])]
    data_dir: Option<PathBuf>,
    /// Directory in which events are kept until the broker has stored them, also across restarts.
    #[arg(long, value_name = "DIR")]
    outbox: Option<PathBuf>,
    /// Make the outbox readable by its group (modes 0750 and 0640 instead of 0700 and 0600).
    #[arg(long, requires = "outbox")]
    group_readable: bool,
    /// Header of each message; repeatable.
    #[arg(long = "header", value_name = "KEY:VALUE")]
    headers: Vec<Header>,
    /// Without these options and --data-dir: the broker in the settings of `lantern serve`, or $NATS_URL.
    #[command(flatten)]
    broker: BrokerArgs,
}

/// Format of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One message per line, which must be JSON; blank lines are skipped.
    Jsonl,
    /// One message per line, unchanged, without the line end.
    Text,
    /// The whole input as one message, unchanged.
    Raw,
}

/// A header of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name.
    pub name: String,
    /// Value, without surrounding blanks.
    pub value: String,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("expected KEY:VALUE")?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic()) {
            return Err("a header name consists of visible ASCII characters".into());
        }
        if value.contains(['\r', '\n', '\0']) {
            return Err("a header value is a single line".into());
        }
        Ok(Self {
            name: name.into(),
            value: value.into(),
        })
    }
}

pub fn run(args: PublishArgs) -> Result<ExitCode, Failure> {
    if args.id_field.is_some() && args.format == Format::Text {
        return Err(Failure::usage("--id-field requires JSON; the format is text"));
    }
    let broker = args.broker.resolve(args.data_dir.as_deref())?;
    let is_stdin = args.file == Path::new("-");
    let input: Box<dyn BufRead + Send> = if is_stdin {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file =
            File::open(&args.file).with_context(|| format!("failed to open {}", args.file.display()))?;
        Box::new(BufReader::new(file))
    };
    let subject = args.subject.clone();
    let headers = args.headers.into_iter();
    let lines = Lines {
        broker,
        subject: args.subject,
        headers: headers.map(|header| (header.name, header.value)).collect(),
        format: match args.format {
            Format::Jsonl => InputFormat::JsonLines,
            Format::Text => InputFormat::Lines,
            Format::Raw => InputFormat::Whole,
        },
        id_field: args.id_field,
        outbox: args.outbox,
        group_readable: args.group_readable,
        file: (!is_stdin).then_some(args.file),
        input,
    };
    let published = block_on(lantern_broker::publish(lines))?.map_err(|error| failure(&subject, error))?;
    let report = &published.report;
    if report.bad + report.aside + report.waiting > 0 {
        return Err(incomplete(&subject, &published));
    }
    let duplicates = match report.duplicates {
        0 => String::new(),
        duplicates => format!(", {duplicates} of them duplicates"),
    };
    print(&format!("{} stored{duplicates}\n", report.published))?;
    Ok(ExitCode::SUCCESS)
}

fn failure(subject: &str, error: PublishError) -> Failure {
    let hint = match &error {
        PublishError::Connect(error) => error.hint().map(str::to_owned),
        PublishError::Unfinished { path, .. } => Some(format!(
            "{}, or remove the directory and send the whole file again",
            to_resume(subject, path)
        )),
        PublishError::Lines { kept: Some(path), .. } => Some(to_resume(subject, path)),
        PublishError::Scratch { source, .. } => source.hint(),
        _ => None,
    };
    let failure = Failure::new(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn to_resume(subject: &str, outbox: &Path) -> String {
    format!(
        "to send only the kept messages: lantern publish {subject} /dev/null --outbox {} (with the same broker)",
        outbox.display()
    )
}

/// The lines that the broker has not stored, with the reasons and the files that keep them.
fn incomplete(subject: &str, published: &Published) -> Failure {
    let report = &published.report;
    let mut problems: Vec<String> = report
        .bad_lines
        .iter()
        .map(|bad| format!("line {}: {}", bad.number, bad.reason))
        .collect();
    if report.bad > report.bad_lines.len() as u64 {
        problems.push(format!("{} invalid lines in total", report.bad));
    }
    for left in &report.unpublished {
        if let Some(reason) = &left.aside {
            problems.push(format!(
                "line {}: {reason}; kept in {}",
                left.line,
                left.file.display()
            ));
        }
    }
    if report.waiting > 0 {
        let blocked = report.blocked.first().map(|blocked| blocked.reason.clone());
        let last = report.last_error.as_ref().map(|error| error.message.clone());
        let why = blocked
            .or(last)
            .unwrap_or_else(|| "the broker did not respond in time".to_owned());
        let waiting = report.unpublished.iter().filter(|left| left.aside.is_none());
        let lines: Vec<String> = waiting
            .map(|left| left.line.to_string())
            .take(LINES_SHOWN)
            .collect();
        let more = match report.waiting > lines.len() as u64 {
            true => ", …",
            false => "",
        };
        problems.push(format!(
            "{} not sent (lines {}{more}): {why}",
            report.waiting,
            lines.join(", ")
        ));
    }
    let message = format!("the broker stored {} of {} lines", report.published, report.lines);
    let failure = Failure::new(anyhow::anyhow!(message)).details(problems);
    match &published.kept {
        Some(path) if report.waiting > 0 => failure.hint(to_resume(subject, path)),
        Some(path) => failure.hint(format!(
            "the rejected messages are in {}",
            path.join("aside").display()
        )),
        None => failure,
    }
}

fn parse_subject(text: &str) -> Result<String, String> {
    let token_is_good = |token: &str| {
        !token.is_empty() && token != "*" && token != ">" && !token.contains([' ', '\t', '\r', '\n', '\0'])
    };
    match text.split('.').all(token_is_good) {
        true => Ok(text.to_owned()),
        false => Err("a subject consists of tokens separated by dots, without blanks and wildcards".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_and_headers_are_checked() {
        for good in ["obs.pc-1", "a", "a.b*c"] {
            assert!(parse_subject(good).is_ok(), "{good}");
        }
        for bad in ["", "a..b", ".a", "a.", "a.*", "a.>", "a b", "a\r\nPUB b"] {
            assert!(parse_subject(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            "a: b:c ".parse::<Header>().unwrap(),
            Header {
                name: "a".into(),
                value: "b:c".into()
            }
        );
        for bad in ["a", ": b", "a b: c", "a: b\r\nc: d"] {
            assert!(bad.parse::<Header>().is_err(), "{bad:?}");
        }
    }
}
