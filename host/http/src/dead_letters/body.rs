//! Dead letters as JSON. The payload is serialized in parts, because its text in JSON can be six times as long.

use lantern_api::DeadLetter;
use lantern_model::value::{Integers, Value};

use crate::budget::PIECE_BYTES;
use crate::pieces::{Items, Parts};

/// The dead letters of a page.
pub struct DeadLetters {
    dead_letters: std::vec::IntoIter<DeadLetter>,
    bytes: usize,
}

impl DeadLetters {
    /// The dead letters of a page.
    pub fn new(dead_letters: Vec<DeadLetter>) -> Self {
        Self {
            bytes: dead_letters.iter().map(bytes_of).sum(),
            dead_letters: dead_letters.into_iter(),
        }
    }
}

/// Memory of a page and its serialization.
pub fn bytes_of_page(dead_letters: &[DeadLetter]) -> usize {
    let all: usize = dead_letters.iter().map(bytes_of).sum();
    all + 2 * PIECE_BYTES
}

/// Approximate size of a dead letter in memory.
fn bytes_of(dead_letter: &DeadLetter) -> usize {
    let headers = dead_letter.headers.iter();
    let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    let payload = dead_letter.payload_base64.len() + dead_letter.payload_text.as_deref().map_or(0, str::len);
    (1 << 10) + payload + dead_letter.subject.len() + dead_letter.reason.len() + headers
}

impl Items for DeadLetters {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn begin(&mut self, mut text: Vec<u8>, parts: &mut Parts) -> Result<Option<usize>, serde_json::Error> {
        let Some(mut dead_letter) = self.dead_letters.next() else {
            return Ok(None);
        };
        let bytes = bytes_of(&dead_letter);
        self.bytes -= bytes;
        let payload_base64 = Value::Text(std::mem::take(&mut dead_letter.payload_base64));
        let payload_text = dead_letter.payload_text.take().map_or(Value::Null, Value::Text);
        let mut object = serde_json::to_value(dead_letter)?;
        if let Some(object) = object.as_object_mut() {
            object.remove("payload_base64");
            object.remove("payload_text");
        }
        serde_json::to_writer(&mut text, &object)?;
        // The payload completes the object.
        text.pop();
        text.extend_from_slice(b",\"payload_base64\":");
        parts.value(&mut text, payload_base64, Integers::Text)?;
        text.extend_from_slice(b",\"payload_text\":");
        parts.value(&mut text, payload_text, Integers::Text)?;
        text.push(b'}');
        parts.text(text);
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pieces::{Frame, Pieces};

    fn dead_letter(payload_base64: &str, payload_text: Option<&str>) -> DeadLetter {
        DeadLetter {
            id: 7,
            plugin: "p".into(),
            source: "s".into(),
            epoch: 1,
            origin: 1,
            stream: None,
            sequence: 3,
            subject: "a.\"b".into(),
            published: "1970-01-01T00:00:00Z".into(),
            headers: vec![("n".into(), "v".into())],
            payload_base64: payload_base64.into(),
            payload_text: payload_text.map(str::to_owned),
            class: "invalid".into(),
            reason: "because".into(),
            version: "1.0.0".into(),
            digest: "d".into(),
            attempts: 1,
            state: "open".into(),
            first_at: "1970-01-01T00:00:00Z".into(),
            last_at: "1970-01-01T00:00:00Z".into(),
        }
    }

    #[test]
    fn the_payload_is_serialized_in_pieces() {
        let (base64, control) = ("QUFB".repeat(200_000), "\u{1}".repeat(500_000));
        for (payload_base64, payload_text) in [
            ("", Some("")),
            ("e30=", Some("{}")),
            (&base64, Some(&*control)),
            (&base64, None),
        ] {
            let frame = Frame {
                before: Vec::new(),
                between: b"",
                after: Vec::new(),
            };
            let expected = dead_letter(payload_base64, payload_text);
            let mut pieces = Pieces::new(DeadLetters::new(vec![expected.clone()]), frame, None);
            let mut joined = Vec::new();
            while let Some(piece) = pieces.next().unwrap() {
                assert!(piece.len() <= PIECE_BYTES + (40 << 10), "{}", piece.len());
                joined.extend_from_slice(&piece);
            }
            assert_eq!(serde_json::from_slice::<DeadLetter>(&joined).unwrap(), expected);
        }
    }
}
