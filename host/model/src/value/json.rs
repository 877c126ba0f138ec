//! A value as JSON: times in RFC 3339, bytes in base64, documents unchanged, and numbers that JSON cannot represent as
//! strings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Value;

/// JavaScript reads integers up to here exactly.
const EXACT: u64 = 1 << 53;

/// Size of a part of a long value; a control character becomes six bytes. A multiple of three, so that base64 needs no
/// padding between parts.
pub(super) const PART_BYTES: usize = 6 << 10;

/// Format of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// JSON numbers, which JavaScript reads exactly up to 2^53.
    Numbers,
    /// JSON strings.
    Text,
    /// JSON numbers up to 2^53, and strings beyond.
    NumbersIfExact,
}

impl Integers {
    fn are_text(self, number: i64) -> bool {
        match self {
            Self::Numbers => false,
            Self::Text => true,
            Self::NumbersIfExact => number.unsigned_abs() > EXACT,
        }
    }
}

/// Serializes a value as JSON. Only a document that is not JSON fails.
pub struct JsonValue<'a>(pub &'a Value, pub Integers);

impl Serialize for JsonValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_none(),
            Value::Boolean(yes) => serializer.serialize_bool(*yes),
            Value::Integer(number) if !self.1.are_text(*number) => serializer.serialize_i64(*number),
            Value::Real(number) if number.is_finite() => serializer.serialize_f64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Json(document) => {
                let document: &RawValue = serde_json::from_str(document).map_err(S::Error::custom)?;
                document.serialize(serializer)
            }
            other => serializer.collect_str(other),
        }
    }
}

/// A value as JSON text in parts, so that the text of a long value is never in memory as a whole.
pub struct JsonParts {
    value: Value,
    integers: Integers,
    /// Bytes of the value that have been written.
    written: usize,
}

impl JsonParts {
    /// Starts with the first part.
    pub fn new(value: Value, integers: Integers) -> Self {
        Self {
            value,
            integers,
            written: 0,
        }
    }

    /// Bytes of the value that have not been written.
    pub fn remaining_bytes(&self) -> usize {
        self.value.heap_bytes() - self.written
    }

    /// Appends the next part, and returns whether it is the last one.
    ///
    /// # Errors
    /// If the value cannot be serialized.
    pub fn write_next(&mut self, out: &mut Vec<u8>) -> Result<bool, serde_json::Error> {
        let from = self.written;
        match &self.value {
            Value::Text(text) => {
                let to = text.floor_char_boundary(from + PART_BYTES);
                let quoted = serde_json::to_string(&text[from..to])?;
                // The quotes of the part, except those around the value.
                let start = usize::from(from > 0);
                let end = quoted.len() - usize::from(to < text.len());
                out.extend_from_slice(&quoted.as_bytes()[start..end]);
                self.written = to;
            }
            Value::Blob(bytes) => {
                let to = bytes.len().min(from + PART_BYTES);
                out.extend_from_slice(if from == 0 { b"\"" } else { b"" });
                out.extend_from_slice(STANDARD.encode(&bytes[from..to]).as_bytes());
                out.extend_from_slice(if to == bytes.len() { b"\"" } else { b"" });
                self.written = to;
            }
            Value::Json(document) => {
                let to = document.len().min(from + PART_BYTES);
                out.extend_from_slice(&document.as_bytes()[from..to]);
                self.written = to;
            }
            short => serde_json::to_writer(out, &JsonValue(short, self.integers))?,
        }
        Ok(self.remaining_bytes() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Timestamp;

    fn whole(value: &Value, integers: Integers) -> String {
        serde_json::to_string(&JsonValue(value, integers)).unwrap()
    }

    #[test]
    fn values_are_rendered_as_json() {
        for (value, integers, expected) in [
            (Value::Null, Integers::Text, "null"),
            (Value::Boolean(true), Integers::Text, "true"),
            (
                Value::Integer(i64::MIN),
                Integers::Numbers,
                "-9223372036854775808",
            ),
            (Value::Integer(1), Integers::Text, "\"1\""),
            (
                Value::Integer(1 << 53),
                Integers::NumbersIfExact,
                "9007199254740992",
            ),
            (
                Value::Integer(-(1 << 53) - 1),
                Integers::NumbersIfExact,
                "\"-9007199254740993\"",
            ),
            (Value::Real(0.1), Integers::Text, "0.1"),
            (Value::Real(f64::NEG_INFINITY), Integers::Text, "\"-inf\""),
            (Value::Text("a\"b".into()), Integers::Text, "\"a\\\"b\""),
            (Value::Blob(vec![1, 2]), Integers::Text, "\"AQI=\""),
            (
                Value::Timestamp(Timestamp(0)),
                Integers::Numbers,
                "\"1970-01-01T00:00:00.000000Z\"",
            ),
        ] {
            assert_eq!(whole(&value, integers), expected);
        }
        let wrong = Value::Json("{".into());
        assert!(serde_json::to_string(&JsonValue(&wrong, Integers::Text)).is_err());
    }

    #[test]
    fn documents_keep_every_byte() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for document in [
            r#"{"n":12345678901234567890123,"a":1,"a":2,"z":-0,"e":1e2}"#,
            r#"{"n":1e400,"b":0.10}"#,
            r#"{"s":"\ud800","z":1,"a":"\u0041"}"#,
            "[ 1 ,2 ]",
            deep.as_str(),
        ] {
            let value = Value::Json(document.to_owned());
            assert_eq!(whole(&value, Integers::Text), document);
            let pretty = serde_json::to_string_pretty(&[JsonValue(&value, Integers::Text)]).unwrap();
            assert!(pretty.contains(document), "{pretty}");
        }
    }

    #[test]
    fn parts_equal_the_complete_json() {
        let long = "ä\u{1}\"\\\n😀".repeat(2 * PART_BYTES);
        for value in [
            Value::Json(serde_json::to_string(&[&long, "x"]).unwrap()),
            Value::Text(long),
            Value::Text(String::new()),
            Value::Text("x".repeat(PART_BYTES)),
            Value::Blob(vec![7; 100_001]),
            Value::Blob(vec![7; PART_BYTES]),
            Value::Blob(Vec::new()),
            Value::Integer(i64::MAX),
            Value::Null,
        ] {
            let expected = whole(&value, Integers::Text);
            let mut parts = JsonParts::new(value, Integers::Text);
            let mut joined = Vec::new();
            loop {
                let before = joined.len();
                let is_last = parts.write_next(&mut joined).unwrap();
                assert!(joined.len() - before <= 6 * PART_BYTES + 2);
                if is_last {
                    break;
                }
            }
            assert_eq!(String::from_utf8(joined).unwrap(), expected);
        }
    }
}
