//! `lantern plugin record`: real messages as fixtures, from a stream or from a host's dead letters.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Deserialize;

use super::count;
use crate::cli::broker::BrokerArgs;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, commands, note, print};
use lantern_authoring::fixture;
use lantern_authoring::live::{self, Part};
use lantern_model::batch::{Delivery, Timestamp};
use lantern_model::schema::{PluginName, SourceName};

/// What is typed after `lantern plugin record`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("from").required(true).args(["from_stream", "dead_letters"])))]
pub struct RecordArgs {
    /// The project.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Take messages of this stream.
    #[arg(long, value_name = "STREAM")]
    from_stream: Option<String>,
    /// Take the newest open dead letters of this plugin in a running host.
    #[arg(long, value_name = "PLUGIN", value_parser = PluginName::parse)]
    dead_letters: Option<PluginName>,
    /// So many, the newest.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    last: u32,
    /// From one sequence of the stream to another, both included.
    #[arg(long, value_name = "A..B", conflicts_with_all = ["last", "dead_letters"])]
    seq: Option<Sequences>,
    /// The source that they are for: the folder below fixtures. Needed where the plugin has several.
    #[arg(long, value_name = "NAME", value_parser = SourceName::parse)]
    source: Option<SourceName>,
    #[command(flatten)]
    host: HostArgs,
    /// The stream's broker; without them, the embedded one of --data-dir, the one in the settings of `lantern serve`, or
    /// the one in $NATS_URL.
    #[command(flatten)]
    broker: BrokerArgs,
}

/// `A..B`, or one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sequences(u64, u64);

impl FromStr for Sequences {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| text.parse().map_err(|_| "give A..B, such as 100..120".to_owned());
        match (number(first)?, number(last.trim_start_matches('='))?) {
            (first, last) if first <= last && last - first < 1_000 => Ok(Self(first, last)),
            _ => Err("the first is not after the last, and they are at most 1,000".to_owned()),
        }
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Letter>,
}

#[derive(Deserialize)]
struct Letter {
    source: String,
    sequence: i64,
    subject: String,
    published: String,
    headers: Vec<(String, String)>,
    payload_base64: String,
    reason: String,
}

/// A message, the words for its file's name, and the source that it is known to be for.
struct Recorded {
    delivery: Delivery,
    stem: String,
    source: Option<String>,
}

pub fn run(args: &RecordArgs) -> Result<(), Failure> {
    let recorded = match (&args.from_stream, &args.dead_letters) {
        (Some(stream), _) => from_stream(args, stream)?,
        (None, Some(plugin)) => from_dead_letters(args, plugin)?,
        (None, None) => Vec::new(), // The group above asks for one of both.
    };
    let folder = args.path.join(fixture::FOLDER);
    let (mut written, mut there) = (Vec::new(), 0);
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
            there += 1;
            continue;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        std::fs::write(&file, fixture::envelope(&delivery))
            .with_context(|| format!("write {}", file.display()))?;
        written.push(file);
    }
    let mut text: String = written
        .iter()
        .map(|file| format!("{}\n", file.display()))
        .collect();
    text.push_str(&format!("{} written", count(written.len(), "fixture")));
    if there > 0 {
        text.push_str(&format!(", {there} were there already"));
    }
    if !written.is_empty() {
        text.push_str(
            "\nnext: see what becomes of them with `lantern plugin test`, and accept it with --bless",
        );
    }
    print(&format!("{text}\n"))
}

fn from_stream(args: &RecordArgs, stream: &str) -> Result<Vec<Recorded>, Failure> {
    let broker = args.broker.resolve(args.host.data_dir())?;
    let part = match args.seq {
        Some(Sequences(first, last)) => Part::Between(first, last),
        None => Part::Last(args.last.into()),
    };
    let read = commands::block_on(live::read(broker, stream, part))??;
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
    let page: Page = client.get_json(&path)?;
    if page.items.is_empty() {
        return Err(Failure::new(anyhow::anyhow!("{plugin} has no open dead letters")));
    }
    let recorded = page.items.into_iter().map(|letter| {
        let payload = STANDARD.decode(&letter.payload_base64);
        let payload = payload.with_context(|| format!("read the payload of message {}", letter.sequence))?;
        note(format_args!(
            "{} {}: {}",
            letter.source, letter.sequence, letter.reason
        ));
        // It becomes a folder, so it must be no path.
        let source = SourceName::parse(&letter.source).map_err(|why| Failure::new(anyhow::anyhow!(why)))?;
        Ok(Recorded {
            stem: format!("dead-letter-{}", letter.sequence),
            delivery: Delivery {
                subject: letter.subject,
                sequence: letter.sequence.unsigned_abs(),
                published_ns: Timestamp::parse_rfc3339(&letter.published)
                    .unwrap_or_default()
                    .0
                    .saturating_mul(1_000),
                headers: letter.headers,
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
    fn sequences_are_one_or_from_to() {
        assert_eq!("7".parse(), Ok(Sequences(7, 7)));
        assert_eq!("7..9".parse(), Ok(Sequences(7, 9)));
        for bad in ["", "a..b", "9..7", "1..2000"] {
            assert!(bad.parse::<Sequences>().is_err(), "{bad}");
        }
    }
}
