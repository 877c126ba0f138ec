//! Reads sample messages from a file: a sequence or an array of JSON values, lines of text, or envelopes.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::fixture::{self, FixtureError};
use lantern_model::batch::Delivery;

/// Most messages to read; more would not improve the derived table.
pub const MESSAGES_MAX: usize = 1_000;

/// Sample messages with their origin.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Description of the origin, such as `events.jsonl`.
    pub origin: String,
    /// Messages; at least one.
    pub messages: Vec<Delivery>,
    /// Whether the messages have real subjects, headers and times.
    pub has_envelopes: bool,
    /// Notes on how the file was split into messages.
    pub notes: Vec<String>,
}

/// Why a sample could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The file contains no message.
    #[error("no messages in {0}")]
    Empty(String),
    /// The file begins as JSON, but is invalid.
    #[error("invalid JSON in {origin}: {error}")]
    Json {
        /// Origin of the sample.
        origin: String,
        /// Problem and position.
        error: String,
    },
    /// The envelopes are invalid.
    #[error(transparent)]
    Envelopes(#[from] FixtureError),
}

/// Reads a sample.
///
/// # Errors
/// See [`SampleError`].
pub fn read(path: &Path) -> Result<Sample, SampleError> {
    let bytes = std::fs::read(path).map_err(|source| SampleError::Read {
        path: path.to_owned(),
        source,
    })?;
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if name.ends_with(".message.json") || name.ends_with(".messages.jsonl") {
        let mut messages = fixture::messages(path, &bytes, &[])?;
        messages.truncate(MESSAGES_MAX);
        return Ok(Sample {
            origin: name,
            messages,
            has_envelopes: true,
            notes: Vec::new(),
        });
    }
    split(&bytes, name)
}

/// Splits bytes into messages.
///
/// # Errors
/// If there are no messages, or the JSON is invalid.
pub fn split(bytes: &[u8], origin: String) -> Result<Sample, SampleError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = bytes.trim_ascii_start();
    let mut notes = Vec::new();
    let payloads: Vec<Bytes> = if text.starts_with(b"{") || text.starts_with(b"[") {
        documents(text, &mut notes).map_err(|error| SampleError::Json {
            origin: origin.clone(),
            error,
        })?
    } else {
        notes.push("the sample is not JSON: each line is one text message".to_owned());
        let lines = text
            .split(|&byte| byte == b'\n')
            .map(|line| line.trim_ascii_end());
        let lines = lines.filter(|line| !line.is_empty()).take(MESSAGES_MAX);
        lines.map(Bytes::copy_from_slice).collect()
    };
    if payloads.is_empty() {
        return Err(SampleError::Empty(origin));
    }
    let messages = payloads
        .into_iter()
        .enumerate()
        .map(|(number, payload)| fixture::message(&[], number, payload))
        .collect();
    Ok(Sample {
        origin,
        messages,
        has_envelopes: false,
        notes,
    })
}

fn documents(text: &[u8], notes: &mut Vec<String>) -> Result<Vec<Bytes>, String> {
    let documents = serde_json::Deserializer::from_slice(text).into_iter::<Box<RawValue>>();
    let documents: Vec<Box<RawValue>> = documents
        .take(MESSAGES_MAX)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    if let [one] = documents.as_slice()
        && let Ok(items) = serde_json::from_str::<Vec<Box<RawValue>>>(one.get())
        && items.iter().all(|item| item.get().starts_with('{'))
        && !items.is_empty()
    {
        notes.push("the sample is an array of objects: each object is one message".to_owned());
        return Ok(items
            .iter()
            .take(MESSAGES_MAX)
            .map(|item| to_bytes(item))
            .collect());
    }
    Ok(documents.iter().map(|document| to_bytes(document)).collect())
}

fn to_bytes(document: &RawValue) -> Bytes {
    Bytes::from(document.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let sample = split(text.as_bytes(), "x".to_owned()).unwrap();
        let payloads: Vec<_> = sample
            .messages
            .iter()
            .map(|message| std::str::from_utf8(&message.payload).unwrap())
            .collect();
        assert_eq!(payloads, expected);
    }

    #[test]
    fn a_sample_is_split_into_messages() {
        check("{\"a\": 1}\n{\"a\":2}\n", &["{\"a\": 1}", "{\"a\":2}"]);
        check("{\n  \"a\": 1\n}\n", &["{\n  \"a\": 1\n}"]);
        check("[{\"a\":1}, {\"a\":2}]", &["{\"a\":1}", "{\"a\":2}"]);
        check("[1, 2]", &["[1, 2]"]);
        check("\u{feff}{\"a\":1}\r\n{\"a\":2}\r\n", &["{\"a\":1}", "{\"a\":2}"]);
        check("<34>1 a\r\n\n<34>1 b\n", &["<34>1 a", "<34>1 b"]);
        assert!(matches!(
            split(b" \n", "x".to_owned()),
            Err(SampleError::Empty(_))
        ));
        let error = split(b"{\"a\":1}\n{\"a\":}\n", "x".to_owned()).unwrap_err();
        assert!(error.to_string().contains("line 2 column 6"), "{error}");
    }
}
