//! `lantern dead-letters list` and `show`.

use clap::Args;

use super::filter::Filter;
use crate::cli::client::OutputArgs;
use crate::cli::{Failure, plugin, table};
use lantern_api::DeadLetter;

/// Size of a page. Payloads are large, so the host's limit of bytes ends a page early anyway.
const PAGE_MAX: usize = 200;

/// Longest reason in a list, in characters; `show` prints all of it.
const REASON_CHARS_MAX: usize = 80;

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Maximum number of dead letters, newest first.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Id of the dead letter, as printed by `list`.
    id: i64,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn list(args: &ListArgs) -> Result<(), Failure> {
    let client = args.output.open()?;
    let list = format!("/api/v1/dead-letters?{}", args.filter.query());
    let dead_letters: Vec<DeadLetter> = client.newest(&list, args.limit, PAGE_MAX)?;
    if dead_letters.is_empty() {
        plugin::require(&client, args.filter.plugin())?;
    }
    args.output.print(&dead_letters[..], render_list)
}

pub fn show(args: &ShowArgs) -> Result<(), Failure> {
    let client = args.output.open()?;
    let dead_letter: DeadLetter = client.get_json(&format!("/api/v1/dead-letters/{}", args.id))?;
    args.output.print(&dead_letter, render)
}

fn render_list(dead_letters: &[DeadLetter]) -> String {
    if dead_letters.is_empty() {
        return "no matching dead letters\n".to_owned();
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
    rows.extend(dead_letters.iter().map(|dead_letter| {
        vec![
            dead_letter.id.to_string(),
            format!("{}/{}", dead_letter.plugin, dead_letter.source),
            dead_letter.sequence.to_string(),
            dead_letter.state.clone(),
            dead_letter.class.clone(),
            dead_letter.attempts.to_string(),
            dead_letter.version.clone(),
            table::to_the_second(&dead_letter.last_at),
            shortened(&dead_letter.reason),
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

fn render(dead_letter: &DeadLetter) -> String {
    let DeadLetter { id, state, .. } = dead_letter;
    let stream = dead_letter.stream.as_deref().unwrap_or("core NATS");
    let mut lines = vec![
        ("dead letter", format!("{id}, {state}")),
        ("source", format!("{}/{}", dead_letter.plugin, dead_letter.source)),
        (
            "message",
            format!("{stream} {}, epoch {}", dead_letter.sequence, dead_letter.epoch),
        ),
        ("subject", dead_letter.subject.clone()),
        ("published", dead_letter.published.clone()),
        ("class", dead_letter.class.clone()),
        ("reason", dead_letter.reason.clone()),
        (
            "tried",
            format!(
                "{} times, first at {}, last at {} by version {}",
                dead_letter.attempts,
                table::to_the_second(&dead_letter.first_at),
                table::to_the_second(&dead_letter.last_at),
                dead_letter.version
            ),
        ),
    ];
    let headers = dead_letter.headers.iter();
    lines.extend(headers.map(|(name, value)| ("header", format!("{name}: {value}"))));
    let rows: Vec<Vec<String>> = lines
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    let mut text = table::align(&rows, &[], "");
    text.push_str(&match &dead_letter.payload_text {
        Some(payload) => format!("\n{payload}\n"),
        None => format!("\n(binary, in base64)\n{}\n", dead_letter.payload_base64),
    });
    if state == "open" {
        text.push_str(&format!(
            "\nto retry:   lantern dead-letters retry --id {id}\n\
             to discard: lantern dead-letters discard --id {id}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead_letter() -> DeadLetter {
        serde_json::from_value(serde_json::json!({
            "id": 7, "plugin": "obs", "source": "events", "epoch": 1, "origin": 1, "stream": "OBS", "sequence": 9, "subject": "a.b\u{1b}[31m\nforged",
            "published": "2026-11-20T10:00:00.123456Z", "headers": [["h", "v"]], "payload_base64": "G1szMW0=",
            "payload_text": "\u{1b}[31m{}", "class": "malformed", "reason": "x".repeat(100), "version": "1.0.0",
            "digest": "sha256:aa", "attempts": 2, "state": "open", "first_at": "2026-11-20T10:00:01.000000Z",
            "last_at": "2026-11-20T10:00:02.000000Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_dead_letter_is_shown_completely_and_escaped() {
        let text = render(&dead_letter());
        assert!(
            text.starts_with("dead letter  7, open\nsource       obs/events\n"),
            "{text}"
        );
        assert!(
            text.contains("\nsubject      a.b\\u{1b}[31m\\u{a}forged\n"),
            "{text}"
        );
        assert!(text.contains("header       h: v"), "{text}");
        assert!(text.ends_with("discard --id 7\n"), "{text}");
        let list = render_list(&[dead_letter()]);
        assert!(list.ends_with(&format!("{}…\n", "x".repeat(80))), "{list}");
    }
}
