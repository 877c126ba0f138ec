//! Fixtures: files with messages, each with a file of expected outcomes. The SDK's `testing` module uses the same format.
//!
//! | file | content |
//! | --- | --- |
//! | `NAME.message.json` | one message with subject, headers, time and sequence: an [`Envelope`] |
//! | `NAME.messages.jsonl` | several messages, one envelope per line |
//! | `NAME.jsonl` | several messages, one payload per line |
//! | `NAME.expected.json` | the expected outcomes of `NAME` |
//! | `*.md`, hidden files | ignored |
//! | any other file | one payload, unchanged |
//!
//! A file is in a folder with the name of its source; if the source is unambiguous, it may be directly in `fixtures`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use lantern_model::batch::{Delivery, Timestamp};
use lantern_model::schema::{Manifest, Source};

/// Folder of the fixtures in a project.
pub const FOLDER: &str = "fixtures";

/// Default time of publication: 2026-01-01T00:00:00Z.
const PUBLISHED_NS: i64 = 1_767_225_600_000_000_000;

/// A file with messages for one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixture {
    /// Path below the fixtures, without suffixes.
    pub name: String,
    /// Path of the file.
    pub file: PathBuf,
    /// Index of the source in the manifest.
    pub source: usize,
    /// Messages; at least one.
    pub messages: Vec<Delivery>,
    /// Whether the format of the file allows several messages.
    pub many: bool,
}

impl Fixture {
    /// Path of the file with the expected outcomes.
    pub fn expected_file(&self) -> PathBuf {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        self.file
            .with_file_name(format!("{}.expected.json", split_name(&name).0))
    }
}

/// Why fixtures cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// A file or folder cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The content of a file does not match its suffix.
    #[error("{path}, line {line}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Description.
        message: String,
    },
    /// The source of a file is ambiguous or unknown.
    #[error("the source of {path} is ambiguous ({sources})")]
    Source {
        /// The file.
        path: PathBuf,
        /// Names of the sources.
        sources: String,
    },
}

impl FixtureError {
    /// What the author can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Source { .. } => Some(
                "move it to a folder with the name of its source, such as fixtures/SOURCE/NAME.json, or use \
                 NAME.message.json with a `subject` that only one source reads",
            ),
            Self::Content { path, .. } if path.to_string_lossy().ends_with("message.json") => Some(
                "NAME.message.json contains {\"subject\": …, \"headers\": {…}, \"published\": …, \"payload\": …}; use NAME.json for a bare payload",
            ),
            Self::Content { .. } | Self::Read { .. } => None,
        }
    }
}

/// A message in a file. All fields except the payload are optional.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    subject: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Values>,
    published: Option<String>,
    sequence: Option<u64>,
    /// The JSON value `null` is a valid payload.
    #[serde(default, deserialize_with = "present")]
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
}

/// Accepts any value of a present field, including `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// The values of one header.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

impl Envelope {
    fn delivery(self, number: usize, subjects: &[String]) -> Result<Delivery, String> {
        let payload = match (self.payload, self.payload_base64) {
            (Some(_), Some(_)) => return Err("both `payload` and `payload_base64` are set".to_owned()),
            (None, None) => return Err("neither `payload` nor `payload_base64` is set".to_owned()),
            (Some(raw), None) if raw.get().starts_with('"') => {
                let text: String = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
                Bytes::from(text)
            }
            (Some(raw), None) => Bytes::from(raw.get().to_owned()),
            (None, Some(text)) => {
                let bytes = STANDARD.decode(text);
                Bytes::from(bytes.map_err(|error| format!("payload_base64: {error}"))?)
            }
        };
        let mut delivery = message(subjects, number, payload);
        if let Some(subject) = self.subject {
            delivery.subject = subject;
        }
        if let Some(sequence) = self.sequence {
            delivery.sequence = sequence;
        }
        if let Some(text) = self.published {
            let time = Timestamp::parse_rfc3339(&text).ok_or_else(|| {
                format!("published: invalid time {text:?}; expected a value such as 2026-05-28T10:41:00Z")
            })?;
            delivery.published_ns = time.0.saturating_mul(1_000);
        }
        for (name, values) in self.headers {
            let values = match values {
                Values::One(value) => vec![value],
                Values::Many(values) => values,
            };
            delivery
                .headers
                .extend(values.into_iter().map(|value| (name.clone(), value)));
        }
        Ok(delivery)
    }
}

/// Renders a message as an envelope, without loss; JSON and text stay readable.
pub fn envelope(delivery: &Delivery) -> String {
    #[derive(Serialize)]
    struct Written<'a> {
        subject: &'a str,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<&'a str, Values>,
        published: String,
        sequence: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload_base64: Option<String>,
    }
    let mut headers: BTreeMap<&str, Values> = BTreeMap::new();
    for (name, value) in &delivery.headers {
        let entry = headers.entry(name).or_insert_with(|| Values::Many(Vec::new()));
        if let Values::Many(values) = entry {
            values.push(value.clone());
        }
    }
    for values in headers.values_mut() {
        if let Values::Many(many) = values
            && let [one] = many.as_mut_slice()
        {
            *values = Values::One(std::mem::take(one));
        }
    }
    let text = std::str::from_utf8(&delivery.payload).ok();
    let payload = text.and_then(|text| {
        let as_json = RawValue::from_string(text.to_owned())
            .ok()
            .filter(|raw| raw.get() == text && !text.starts_with('"'));
        as_json.or_else(|| serde_json::value::to_raw_value(text).ok())
    });
    let written = Written {
        subject: &delivery.subject,
        headers,
        published: delivery.published().to_rfc3339(),
        sequence: delivery.sequence,
        payload_base64: payload.is_none().then(|| STANDARD.encode(&delivery.payload)),
        payload,
    };
    // Serialization cannot fail: the value contains only maps with text keys, numbers and text.
    serde_json::to_string_pretty(&written).unwrap_or_default() + "\n"
}

/// Creates a message with default values for a source with these subjects. `number` is its index in the file.
pub fn message(subjects: &[String], number: usize, payload: Bytes) -> Delivery {
    Delivery {
        subject: subjects
            .first()
            .map_or_else(|| "fixture".to_owned(), |first| concrete(first)),
        sequence: number as u64 + 1,
        published_ns: PUBLISHED_NS + number as i64 * 1_000_000_000,
        headers: Vec::new(),
        payload,
    }
}

/// A subject that matches `pattern`: `fixture` in place of `*` and `>`.
fn concrete(pattern: &str) -> String {
    let tokens = pattern.split('.').map(|token| match token {
        "*" | ">" => "fixture",
        token => token,
    });
    tokens.collect::<Vec<_>>().join(".")
}

/// Reads the fixtures of a plugin, in the order of their names.
///
/// # Errors
/// See [`FixtureError`]. A missing folder contains no fixtures.
pub fn read(folder: &Path, manifest: &Manifest) -> Result<Vec<Fixture>, FixtureError> {
    let mut files = Vec::new();
    walk(folder, &mut files)?;
    files.sort();
    let mut fixtures = Vec::new();
    for file in files {
        fixtures.push(read_file(folder, &file, manifest)?);
    }
    Ok(fixtures)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), FixtureError> {
    let failed = |source| FixtureError::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') || name.ends_with(".md") || name.ends_with(".expected.json") {
            continue;
        }
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Splits a file name: its stem, whether it contains envelopes, and whether it may contain several messages.
fn split_name(name: &str) -> (&str, bool, bool) {
    for (suffix, envelopes, many) in [
        (".message.json", true, false),
        (".messages.jsonl", true, true),
        (".jsonl", false, true),
    ] {
        if let Some(stem) = name.strip_suffix(suffix) {
            return (stem, envelopes, many);
        }
    }
    (name.rsplit_once('.').map_or(name, |(stem, _)| stem), false, false)
}

fn read_file(folder: &Path, file: &Path, manifest: &Manifest) -> Result<Fixture, FixtureError> {
    let bytes = std::fs::read(file).map_err(|source| FixtureError::Read {
        path: file.to_owned(),
        source,
    })?;
    let file_name = file.file_name().unwrap_or_default().to_string_lossy();
    let (stem, _, many) = split_name(&file_name);
    let below = file.strip_prefix(folder).unwrap_or(file);
    let name = below.with_file_name(stem).display().to_string();
    let named = below.components().next().and_then(|first| {
        let first = first.as_os_str().to_str()?;
        Some(manifest.source(first)?.0)
    });
    let only = (manifest.sources.len() == 1).then_some(0);
    let known = named.or(only);
    let source_subjects = known.map_or(&[][..], |index| manifest.sources[index].origin.subjects());
    let messages = messages(file, &bytes, source_subjects)?;
    let source = known
        .or_else(|| find_source(manifest, &messages))
        .ok_or_else(|| {
            let names: Vec<&str> = manifest
                .sources
                .iter()
                .map(|source| source.name.as_str())
                .collect();
            FixtureError::Source {
                path: file.to_owned(),
                sources: names.join(", "),
            }
        })?;
    Ok(Fixture {
        name,
        file: file.to_owned(),
        source,
        messages,
        many,
    })
}

/// Parses the messages of a file, in the format of its suffix.
///
/// # Errors
/// See [`FixtureError`].
pub fn messages(
    file: &Path,
    bytes: &[u8],
    source_subjects: &[String],
) -> Result<Vec<Delivery>, FixtureError> {
    let file_name = file.file_name().unwrap_or_default().to_string_lossy();
    let (_, envelopes, many) = split_name(&file_name);
    let mut messages = Vec::new();
    let parts: Vec<(usize, &[u8])> = match many {
        false => vec![(0, bytes)],
        true => bytes
            .split(|&byte| byte == b'\n')
            .enumerate()
            .filter(|(_, line)| !line.trim_ascii().is_empty())
            .collect(),
    };
    for (line, part) in parts {
        let error = |line: usize, message: String| FixtureError::Content {
            path: file.to_owned(),
            line,
            message,
        };
        let number = messages.len();
        messages.push(if envelopes {
            let envelope: Envelope = serde_json::from_slice(part)
                .map_err(|cause| error(line + cause.line().max(1), cause.to_string()))?;
            envelope
                .delivery(number, source_subjects)
                .map_err(|message| error(line + 1, message))?
        } else {
            message(source_subjects, number, Bytes::copy_from_slice(part))
        });
    }
    if messages.is_empty() {
        return Err(FixtureError::Content {
            path: file.to_owned(),
            line: 1,
            message: "the file contains no message".to_owned(),
        });
    }
    Ok(messages)
}

/// Index of the only source that reads all these subjects.
pub fn find_source(manifest: &Manifest, messages: &[Delivery]) -> Option<usize> {
    let reads = |source: &Source| {
        let subjects = source.origin.subjects();
        messages.iter().all(|message| {
            subjects.is_empty()
                || subjects
                    .iter()
                    .any(|pattern| matches_pattern(pattern, &message.subject))
        })
    };
    let mut readers = manifest
        .sources
        .iter()
        .enumerate()
        .filter(|(_, source)| reads(source));
    match (readers.next(), readers.next()) {
        (Some((index, _)), None) => Some(index),
        _ => None,
    }
}

/// Whether a subject matches a pattern with `*` and `>`.
fn matches_pattern(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in pattern.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_match_patterns_as_in_the_broker() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("a.b", "a", false),
        ] {
            assert_eq!(matches_pattern(pattern, subject), expected, "{pattern} {subject}");
        }
    }

    #[test]
    fn envelopes_preserve_messages() {
        let payloads: [&[u8]; 8] = [
            br#"{"b":1.50, "a":2}"#,
            b"[1]",
            b"null",
            b"\"text in JSON\"",
            b"<34>1 2003-10-11T22:14:15.003Z mymachine su - ID47",
            b"{\"a\":1}\n",
            b"\xff\x00",
            b"",
        ];
        for payload in payloads {
            let delivery = Delivery {
                subject: "a.b".to_owned(),
                sequence: 7,
                published_ns: 1_767_225_600_123_456_000,
                headers: vec![
                    ("A".to_owned(), "1".to_owned()),
                    ("B".to_owned(), "2".to_owned()),
                    ("B".to_owned(), "3".to_owned()),
                ],
                payload: Bytes::copy_from_slice(payload),
            };
            let text = envelope(&delivery);
            let read = messages(Path::new("x.message.json"), text.as_bytes(), &[]).unwrap();
            assert_eq!(read, [delivery], "{text}");
        }
    }

    #[test]
    fn the_suffix_determines_the_format() {
        let of = |name: &str, text: &str| messages(Path::new(name), text.as_bytes(), &[]);
        assert_eq!(of("a.jsonl", "1\n\n2\n").unwrap().len(), 2);
        assert_eq!(of("a.json", "1\n\n2\n").unwrap()[0].payload, "1\n\n2\n");
        assert_eq!(of("a.txt", "").unwrap()[0].payload, "");
        assert_eq!(
            of("a.messages.jsonl", "{\"payload\":1}\n{\"payload\":\"x\"}\n")
                .unwrap()
                .iter()
                .map(|message| (message.sequence, &message.payload[..]))
                .collect::<Vec<_>>(),
            [(1, &b"1"[..]), (2, b"x")]
        );
        let error = of("a.messages.jsonl", "{\"payload\":1}\n{\"payloud\":1}\n").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("a.messages.jsonl, line 2: unknown field `payloud`"),
            "{error}"
        );
        let error = of("a.message.json", "{\"subject\":\"a\"}").unwrap_err();
        assert!(error.to_string().contains("neither `payload` nor"), "{error}");
    }
}
