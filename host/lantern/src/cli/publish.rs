//! `lantern publish`: where to send, what to send, and what became of it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use lantern_outbox::InputFormat;

use super::broker::BrokerArgs;
use super::{Failure, commands, print};
use lantern_broker::{Lines, PublishError, Published};

/// Numbers of waiting lines in a message.
const LINES_SHOWN: usize = 10;

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The subject, without wildcards.
    #[arg(value_parser = parse_subject)]
    subject: String,
    /// The file to send; `-` reads standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// What one message is made of.
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    /// Use this top-level field of each JSON line (text or a number) as the message id, so that the broker recognises a
    /// line that is sent twice within the stream's duplicate window.
    #[arg(long, value_name = "NAME")]
    id_field: Option<String>,
    /// Send to the embedded broker of the host with this data directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["nats", "nats_context"])]
    data_dir: Option<PathBuf>,
    /// Keep events in this directory until the broker has stored them, also across restarts.
    #[arg(long, value_name = "DIR")]
    outbox: Option<PathBuf>,
    /// Let the group of the outbox read its files (modes 0750 and 0640 instead of 0700 and 0600).
    #[arg(long, requires = "outbox")]
    group_readable: bool,
    /// A header of each message; may be given several times.
    #[arg(long = "header", value_name = "KEY:VALUE")]
    headers: Vec<Header>,
    /// Without them and --data-dir, the broker in the settings of `lantern serve`, or the one in $NATS_URL.
    #[command(flatten)]
    broker: BrokerArgs,
}

/// What one message is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Each line, which has to be JSON; blank lines are skipped.
    Jsonl,
    /// Each line as it is, without its end.
    Text,
    /// The whole input as one message, byte by byte.
    Raw,
}

/// A header of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value, without the blanks around it.
    pub value: String,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("a header is KEY:VALUE")?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic()) {
            return Err("a header's name has visible ASCII characters only".into());
        }
        if value.contains(['\r', '\n', '\0']) {
            return Err("a header's value is one line".into());
        }
        Ok(Self {
            name: name.into(),
            value: value.into(),
        })
    }
}

pub fn run(args: PublishArgs) -> Result<ExitCode, Failure> {
    if args.id_field.is_some() && args.format == Format::Text {
        return Err(Failure::usage("--id-field needs JSON, and the format is text"));
    }
    let broker = args.broker.resolve(args.data_dir.as_deref())?;
    let is_stdin = args.file == Path::new("-");
    let input: Box<dyn BufRead + Send> = if is_stdin {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
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
    let published =
        commands::block_on(lantern_broker::publish(lines))?.map_err(|error| failure(&subject, error))?;
    let report = &published.report;
    if report.bad + report.aside + report.waiting > 0 {
        return Err(incomplete(&subject, &published));
    }
    let known = match report.duplicates {
        0 => String::new(),
        known => format!(", {known} of them known to the broker before"),
    };
    print(&format!("{} stored{known}\n", report.published))?;
    Ok(ExitCode::SUCCESS)
}

fn failure(subject: &str, error: PublishError) -> Failure {
    let hint = match &error {
        PublishError::Connect(error) => error.hint().map(str::to_owned),
        PublishError::Unfinished { path, .. } => Some(format!(
            "{}; or remove the directory and send the whole file again",
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
        "send only what is kept: lantern publish {subject} /dev/null --outbox {} (with the same broker)",
        outbox.display()
    )
}

/// Which lines the broker has not stored, why, and where they are.
fn incomplete(subject: &str, published: &Published) -> Failure {
    let report = &published.report;
    let mut troubles: Vec<String> = report
        .bad_lines
        .iter()
        .map(|bad| format!("line {}: {}", bad.number, bad.reason))
        .collect();
    if report.bad > report.bad_lines.len() as u64 {
        troubles.push(format!("{} lines in all are not events", report.bad));
    }
    for left in &report.unpublished {
        if let Some(reason) = &left.aside {
            troubles.push(format!(
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
            .unwrap_or_else(|| "the broker did not answer in time".to_owned());
        let waiting = report.unpublished.iter().filter(|left| left.aside.is_none());
        let lines: Vec<String> = waiting
            .map(|left| left.line.to_string())
            .take(LINES_SHOWN)
            .collect();
        let more = match report.waiting > lines.len() as u64 {
            true => ", …",
            false => "",
        };
        troubles.push(format!(
            "{} not sent (lines {}{more}): {why}",
            report.waiting,
            lines.join(", ")
        ));
    }
    let words = format!(
        "{} of {} lines were stored by the broker",
        report.published, report.lines
    );
    let failure = Failure::new(anyhow::anyhow!(words)).details(troubles);
    match &published.kept {
        Some(path) if report.waiting > 0 => failure.hint(to_resume(subject, path)),
        Some(path) => failure.hint(format!(
            "what was refused is kept in {}",
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
        false => Err("a subject is words with dots between, without blanks and wildcards".into()),
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
