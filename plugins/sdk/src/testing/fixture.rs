//! Reads messages from the files of a `fixtures` folder.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{PUBLISHED, SEQUENCE};
use crate::{Message, Timestamp};

/// Interval of the messages of one file, in microseconds.
const INTERVAL_US: i64 = 1_000_000;

/// One fixture file.
pub struct Case {
    /// The path of its expectation.
    pub expected: PathBuf,
    /// Whether the file has many messages, and the expectation is a list.
    pub is_list: bool,
    /// Its messages.
    pub messages: Vec<FixtureMessage>,
}

/// A message of a fixture.
pub struct FixtureMessage {
    subject: String,
    sequence: u64,
    published: Timestamp,
    headers: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl FixtureMessage {
    /// The message for a handler.
    pub fn message(&self, wants_headers: bool) -> Message<'_> {
        Message {
            subject: &self.subject,
            sequence: self.sequence,
            published: self.published,
            headers: if wants_headers { &self.headers } else { &[] },
            payload: &self.payload,
        }
    }
}

/// A message with metadata.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    subject: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Header>,
    published: Option<Timestamp>,
    sequence: Option<u64>,
    /// `null` is a valid payload.
    #[serde(default, deserialize_with = "present")]
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
}

/// Distinguishes a field with the value `null` from a missing field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Header {
    One(String),
    Many(Vec<String>),
}

impl Case {
    /// Reads a file in the format given by its name. `subject` is the default subject.
    pub fn read(path: &Path, subject: &str) -> io::Result<Self> {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let bytes = std::fs::read(path)?;
        let kind = [".message.json", ".messages.jsonl", ".jsonl"]
            .into_iter()
            .find(|kind| name.ends_with(kind));
        let messages = match kind {
            None => vec![to_message(Envelope::of(None), Some(bytes), 0, subject)?],
            Some(".message.json") => vec![envelope(&bytes, 0, subject)?],
            Some(kind) => lines(&bytes)
                .zip(0..)
                .map(|(line, index)| match kind {
                    ".jsonl" => to_message(Envelope::of(None), Some(line.to_vec()), index, subject),
                    _ => envelope(line, index, subject),
                })
                .collect::<io::Result<_>>()?,
        };
        let stem = match kind {
            Some(kind) => name.trim_end_matches(kind).to_owned(),
            None => path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };
        Ok(Self {
            expected: path.with_file_name(format!("{stem}.expected.json")),
            is_list: kind.is_some_and(|kind| kind != ".message.json"),
            messages,
        })
    }
}

impl Envelope {
    fn of(payload: Option<Box<RawValue>>) -> Self {
        Self {
            subject: None,
            headers: BTreeMap::new(),
            published: None,
            sequence: None,
            payload,
            payload_base64: None,
        }
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
}

fn envelope(bytes: &[u8], index: u32, subject: &str) -> io::Result<FixtureMessage> {
    to_message(serde_json::from_slice(bytes)?, None, index, subject)
}

fn to_message(
    envelope: Envelope,
    whole: Option<Vec<u8>>,
    index: u32,
    subject: &str,
) -> io::Result<FixtureMessage> {
    let payload = match (whole, envelope.payload, envelope.payload_base64) {
        (Some(whole), _, _) => whole,
        (None, Some(raw), None) => text_of(&raw)?.into_bytes(),
        (None, None, Some(text)) => STANDARD.decode(text).map_err(io::Error::other)?,
        _ => {
            return Err(io::Error::other(
                "a message requires either `payload` or `payload_base64`",
            ));
        }
    };
    let headers = envelope.headers.into_iter().flat_map(|(name, header)| {
        let values = match header {
            Header::One(value) => vec![value],
            Header::Many(values) => values,
        };
        values.into_iter().map(move |value| (name.clone(), value))
    });
    let later = Timestamp::from_micros(PUBLISHED.as_micros() + i64::from(index) * INTERVAL_US);
    Ok(FixtureMessage {
        subject: envelope.subject.unwrap_or_else(|| subject.to_owned()),
        sequence: envelope.sequence.unwrap_or(SEQUENCE + u64::from(index)),
        published: envelope.published.unwrap_or(later),
        headers: headers.collect(),
        payload,
    })
}

/// A JSON string is the text of the string; other JSON is the document as written.
fn text_of(raw: &RawValue) -> io::Result<String> {
    let text = raw.get();
    if text.starts_with('"') {
        Ok(serde_json::from_str(text)?)
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &str) -> io::Result<Case> {
        let path = std::env::temp_dir().join(format!("lantern-sdk-fixture-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let case = Case::read(&path, "a.b");
        std::fs::remove_file(&path).unwrap();
        case
    }

    #[test]
    fn the_name_determines_the_format() {
        let case = read("one.txt", "x\n").unwrap();
        assert!(case.expected.to_string_lossy().ends_with("-one.expected.json"));
        let message = case.messages[0].message(true);
        assert_eq!(
            (message.payload, message.subject, message.sequence),
            (&b"x\n"[..], "a.b", 1)
        );

        let case = read("two.jsonl", "{\"a\":1}\n\n[2]\n").unwrap();
        assert!(case.is_list && case.expected.to_string_lossy().ends_with("-two.expected.json"));
        let second = case.messages[1].message(true);
        assert_eq!((second.payload, second.sequence), (&b"[2]"[..], 2));
        assert_eq!(second.published.to_string(), "2026-01-01T00:00:01.000000Z");
    }

    #[test]
    fn an_envelope_has_metadata() {
        let text = r#"{"subject":"c","headers":{"K":["1","2"],"A":"0"},"sequence":9,"payload":{"x": 1.50}}"#;
        let case = read("m.message.json", text).unwrap();
        let message = case.messages[0].message(true);
        assert_eq!((message.subject, message.sequence), ("c", 9));
        assert_eq!(message.payload, br#"{"x": 1.50}"#, "to the byte");
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            message.headers,
            [header("A", "0"), header("K", "1"), header("K", "2")]
        );
        assert_eq!(case.messages[0].message(false).headers, []);

        let many = "{\"payload\":\"a \\\"word\\\"\"}\n{\"payload_base64\":\"/w==\"}\n";
        let case = read("n.messages.jsonl", many).unwrap();
        assert_eq!(case.messages[0].message(true).payload, b"a \"word\"");
        assert_eq!(case.messages[1].message(true).payload, b"\xff");
        let null = read("q.message.json", r#"{"payload":null}"#).unwrap();
        assert_eq!(null.messages[0].message(true).payload, b"null");
        assert!(read("o.message.json", "{}").is_err());
        assert!(read("p.message.json", r#"{"payload":1,"body":2}"#).is_err());
    }
}
