//! `lantern plugin record`: saves messages of a stream, or dead letters of a host, as fixtures.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::count;
use crate::cli::broker::BrokerArgs;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, block_on, note, print};
use lantern_api::{DeadLetter, Page};
use lantern_authoring::fixture;
use lantern_authoring::live::{self, Part};
use lantern_model::batch::{Delivery, Timestamp};
use lantern_model::schema::{PluginName, SourceName};

/// Arguments of `lantern plugin record`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("from").required(true).args(["from_stream", "dead_letters"])))]
pub struct RecordArgs {
    /// Directory of the project.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Stream whose messages are saved.
    #[arg(long, value_name = "STREAM")]
    from_stream: Option<String>,
    /// Plugin whose newest open dead letters in a running host are saved.
    #[arg(long, value_name = "PLUGIN", value_parser = PluginName::parse)]
    dead_letters: Option<PluginName>,
    /// Number of messages, newest first.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    last: u32,
    /// Range of sequences of the stream, inclusive.
    #[arg(long, value_name = "A..B", conflicts_with_all = ["last", "dead_letters"])]
    seq: Option<SequenceRange>,
    /// Source of the messages, and folder below fixtures; required if the plugin has several sources.
    #[arg(long, value_name = "NAME", value_parser = SourceName::parse)]
    source: Option<SourceName>,
    #[command(flatten)]
    host: HostArgs,
    /// Broker of the stream [default: the embedded broker of --data-dir, the settings of `lantern serve`, or $NATS_URL].
    #[command(flatten)]
    broker: BrokerArgs,
}

/// `A..B`, or one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SequenceRange(u64, u64);

impl FromStr for SequenceRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| {
            text.parse()
                .map_err(|_| "expected A..B, such as 100..120".to_owned())
        };
        match (number(first)?, number(last.trim_start_matches('='))?) {
            (first, last) if first <= last && last - first < 1_000 => Ok(Self(first, last)),
            _ => Err("expected at most 1,000 sequences, the first not after the last".to_owned()),
        }
    }
}

/// A message with the stem of its file name, and its source, if known.
struct Recorded {
    delivery: Delivery,
    stem: String,
    source: Option<String>,
}

pub fn run(args: &RecordArgs) -> Result<(), Failure> {
    let recorded = match (&args.from_stream, &args.dead_letters) {
        (Some(stream), _) => from_stream(args, stream)?,
        (None, Some(plugin)) => from_dead_letters(args, plugin)?,
        (None, None) => Vec::new(), // The argument group requires one of them.
    };
    let folder = args.path.join(fixture::FOLDER);
    let (mut written, mut existing) = (Vec::new(), 0);
    for Recorded {
        delivery,
        stem,
        source,
    } in recorded
    {
        let source = args.source.as_ref().map(ToString::to_string).or(source);
        let folder = match source {
            Some(source) => folder.join(source),
            None => folder.clone(),
        };
        let file = folder.join(format!("{stem}.message.json"));
        if file.exists() {
            existing += 1;
            continue;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        std::fs::write(&file, fixture::envelope(&delivery))
            .with_context(|| format!("failed to write {}", file.display()))?;
        written.push(file);
    }
    let mut text: String = written
        .iter()
        .map(|file| format!("{}\n", file.display()))
        .collect();
    text.push_str(&format!("{} written", count(written.len(), "fixture")));
    if existing > 0 {
        text.push_str(&format!(", {existing} already present"));
    }
    if !written.is_empty() {
        text.push_str("\nnext: run `lantern plugin test`, and accept the results with --bless");
    }
    print(&format!("{text}\n"))
}

fn from_stream(args: &RecordArgs, stream: &str) -> Result<Vec<Recorded>, Failure> {
    let broker = args.broker.resolve(args.host.data_dir())?;
    let part = match args.seq {
        Some(SequenceRange(first, last)) => Part::Between(first, last),
        None => Part::Last(args.last.into()),
    };
    let read = block_on(live::read(broker, stream, part))??;
    let recorded = read.messages.into_iter().map(|delivery| Recorded {
        stem: format!("{}-{}", stream.to_lowercase(), delivery.sequence),
        delivery,
        source: None,
    });
    Ok(recorded.collect())
}

fn from_dead_letters(args: &RecordArgs, plugin: &PluginName) -> Result<Vec<Recorded>, Failure> {
    let client = Client::open(&args.host)?;
    let source = args
        .source
        .as_ref()
        .map(|source| format!("&source={source}"))
        .unwrap_or_default();
    let path = format!(
        "/api/v1/dead-letters?plugin={plugin}{source}&state=open&limit={}",
        args.last.min(200)
    );
    let page: Page<DeadLetter> = client.get_json(&path)?;
    if page.items.is_empty() {
        return Err(Failure::new(anyhow::anyhow!(
            "plugin {plugin} has no open dead letters"
        )));
    }
    let recorded = page.items.into_iter().map(|dead_letter| {
        let payload = STANDARD.decode(&dead_letter.payload_base64);
        let payload = payload
            .with_context(|| format!("failed to decode the payload of message {}", dead_letter.sequence))?;
        note(format_args!(
            "{} {}: {}",
            dead_letter.source, dead_letter.sequence, dead_letter.reason
        ));
        // The name becomes a folder, so it must not be a path.
        let source =
            SourceName::parse(&dead_letter.source).map_err(|why| Failure::new(anyhow::anyhow!(why)))?;
        Ok(Recorded {
            stem: format!("dead-letter-{}", dead_letter.sequence),
            delivery: Delivery {
                subject: dead_letter.subject,
                sequence: dead_letter.sequence.unsigned_abs(),
                published_ns: Timestamp::parse_rfc3339(&dead_letter.published)
                    .unwrap_or_default()
                    .0
                    .saturating_mul(1_000),
                headers: dead_letter.headers,
                payload: payload.into(),
            },
            source: Some(source.to_string()),
        })
    });
    recorded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_range_is_one_sequence_or_two() {
        assert_eq!("7".parse(), Ok(SequenceRange(7, 7)));
        assert_eq!("7..9".parse(), Ok(SequenceRange(7, 9)));
        for bad in ["", "a..b", "9..7", "1..2000"] {
            assert!(bad.parse::<SequenceRange>().is_err(), "{bad}");
        }
    }
}
