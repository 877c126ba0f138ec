//! `lantern dead-letters list` and `show`.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::filter::Filter;
use crate::cli::client::{Client, HostArgs};
use crate::cli::{Failure, print, print_json, table};

/// As many as are asked for at once: with their payloads a page ends at the host's limit of bytes anyway.
const PAGE_MAX: usize = 200;

/// Longest reason in a list, in characters; `show` has it whole.
const REASON_CHARS_MAX: usize = 80;

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// So many, the newest first.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Its number, as `list` shows it.
    id: i64,
    /// Answer with JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Deserialize)]
struct Letter {
    id: i64,
    plugin: String,
    source: String,
    epoch: i64,
    stream: Option<String>,
    sequence: i64,
    subject: String,
    published: String,
    headers: Vec<(String, String)>,
    payload_base64: String,
    payload_text: Option<String>,
    class: String,
    reason: String,
    version: String,
    attempts: i64,
    state: String,
    first_at: String,
    last_at: String,
}

pub fn list(args: &ListArgs) -> Result<(), Failure> {
    let client = Client::open(&args.host)?;
    let list = format!("/api/v1/dead-letters?{}", args.filter.query());
    let letters: Vec<Value> = client.newest(&list, args.limit, PAGE_MAX)?;
    if args.json {
        return print_json(&letters);
    }
    let letters: Vec<Letter> = letters.into_iter().map(parse).collect::<Result<_, _>>()?;
    print(&render_list(&letters))
}

pub fn show(args: &ShowArgs) -> Result<(), Failure> {
    let client = Client::open(&args.host)?;
    let letter: Value = client.get_json(&format!("/api/v1/dead-letters/{}", args.id))?;
    match args.json {
        true => print_json(&letter),
        false => print(&render(&parse(letter)?)),
    }
}

fn parse(letter: Value) -> Result<Letter, Failure> {
    serde_json::from_value(letter).map_err(|error| {
        Failure::new(
            anyhow::Error::new(error).context("the host shows a dead letter that cannot be understood"),
        )
        .hint("is it a Lantern of another version?")
    })
}

fn render_list(letters: &[Letter]) -> String {
    if letters.is_empty() {
        return "there are no such dead letters\n".to_owned();
    }
    let head = [
        "id",
        "plugin/source",
        "sequence",
        "state",
        "class",
        "tries",
        "version",
        "last tried",
        "reason",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(letters.iter().map(|letter| {
        vec![
            letter.id.to_string(),
            format!("{}/{}", letter.plugin, letter.source),
            letter.sequence.to_string(),
            letter.state.clone(),
            letter.class.clone(),
            letter.attempts.to_string(),
            letter.version.clone(),
            table::to_the_second(&letter.last_at),
            shortened(&letter.reason),
        ]
    }));
    let right = [true, false, true, false, false, true];
    table::align(&rows, &right, "")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn render(letter: &Letter) -> String {
    let Letter { id, state, .. } = letter;
    let stream = letter.stream.as_deref().unwrap_or("core NATS");
    let mut lines = vec![
        ("dead letter", format!("{id}, {state}")),
        ("of", format!("{}/{}", letter.plugin, letter.source)),
        (
            "message",
            format!("{stream} {}, epoch {}", letter.sequence, letter.epoch),
        ),
        ("subject", letter.subject.clone()),
        ("published", letter.published.clone()),
        ("class", letter.class.clone()),
        ("reason", letter.reason.clone()),
        (
            "tried",
            format!(
                "{} times, first at {}, last at {} by version {}",
                letter.attempts,
                table::to_the_second(&letter.first_at),
                table::to_the_second(&letter.last_at),
                letter.version
            ),
        ),
    ];
    let headers = letter.headers.iter();
    lines.extend(headers.map(|(name, value)| ("header", format!("{name}: {value}"))));
    let rows: Vec<Vec<String>> = lines
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    let mut text = table::align(&rows, &[], "");
    text.push_str(&match &letter.payload_text {
        Some(payload) => format!("\n{payload}\n"),
        None => format!("\n(not text; in base64:)\n{}\n", letter.payload_base64),
    });
    if state == "open" {
        text.push_str(&format!(
            "\nto try it again: lantern dead-letters retry --id {id}\n\
             to give it up:   lantern dead-letters discard --id {id}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        parse(serde_json::json!({
            "id": 7, "plugin": "obs", "source": "events", "epoch": 1, "stream": "OBS", "sequence": 9, "subject": "a.b\u{1b}[31m\nforged",
            "published": "2026-11-20T10:00:00.123456Z", "headers": [["h", "v"]], "payload_base64": "G1szMW0=",
            "payload_text": "\u{1b}[31m{}", "class": "malformed", "reason": "x".repeat(100), "version": "1.0.0",
            "digest": "sha256:aa", "attempts": 2, "state": "open", "first_at": "2026-11-20T10:00:01.000000Z",
            "last_at": "2026-11-20T10:00:02.000000Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_dead_letter_is_shown_whole_and_harmless() {
        let text = render(&letter());
        assert!(
            text.starts_with("dead letter  7, open\nof           obs/events\n"),
            "{text}"
        );
        assert!(
            text.contains("\nsubject      a.b\\u{1b}[31m\\u{a}forged\n"),
            "{text}"
        );
        assert!(text.contains("header       h: v"), "{text}");
        assert!(text.ends_with("discard --id 7\n"), "{text}");
        let list = render_list(&[letter()]);
        assert!(list.ends_with(&format!("{}…\n", "x".repeat(80))), "{list}");
    }
}
