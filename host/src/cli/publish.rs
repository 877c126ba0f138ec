//! `lantern publish`: where to send, what to send, and what became of it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;

use super::{Failure, commands, print};
use crate::broker::url_file;

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The subject, without wildcards.
    #[arg(value_parser = parse_subject)]
    subject: String,
    /// A file with one event a line; `-` reads standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// The NATS servers; without it and --data-dir, those in $NATS_URL.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Send to the broker of the host with this data directory.
    #[arg(long, value_name = "DIR", conflicts_with = "nats")]
    data_dir: Option<PathBuf>,
    /// Keep events in this directory until the broker has stored them, also across restarts.
    #[arg(long, value_name = "DIR")]
    outbox: Option<PathBuf>,
    /// A header of each message; may be given several times.
    #[arg(long = "header", value_name = "KEY:VALUE")]
    headers: Vec<Header>,
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

/// What is to be sent where.
pub struct PublishRequest {
    /// The NATS servers, separated by commas.
    pub url: String,
    /// Where to.
    pub subject: String,
    /// Headers of each message.
    pub headers: Vec<Header>,
    /// Where events wait until they are stored; none sends them straight from the input.
    pub outbox: Option<PathBuf>,
    /// The input, one event a line.
    pub input: Box<dyn BufRead + Send>,
}

pub fn run(args: PublishArgs) -> Result<ExitCode, Failure> {
    // Not clap's own `env`: that shows the value in the help, passwords included.
    let url = match (
        args.data_dir,
        args.nats.or_else(|| std::env::var("NATS_URL").ok()),
    ) {
        (Some(dir), _) => url_of(&dir)?,
        (None, Some(url)) => url,
        (None, None) => {
            return Err(Failure::usage("no broker is named")
                .hint("give --nats URL, or --data-dir DIR of a running host"));
        }
    };
    let input: Box<dyn BufRead + Send> = if args.file == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
        Box::new(BufReader::new(file))
    };
    let request = PublishRequest {
        url,
        subject: args.subject,
        headers: args.headers,
        outbox: args.outbox,
        input,
    };
    let stored = commands::publish(request)?;
    print(&format!("{stored} stored\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The address that a host with an embedded broker leaves in its data directory.
fn url_of(data_dir: &Path) -> Result<String, Failure> {
    let path = url_file(data_dir);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
    let text = text.map_err(|error| {
        Failure::new(error)
            .hint("only a host that runs its own broker leaves its address there; else give --nats URL")
    })?;
    match text.trim() {
        "" => Err(Failure::new(anyhow::anyhow!("{} is empty", path.display()))
            .hint("start the host, which writes the address there")),
        url => Ok(url.to_owned()),
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
