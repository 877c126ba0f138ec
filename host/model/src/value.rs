//! The value of a column, with everything that depends on its type except storage: its names, its textual form, its
//! order and its size. [`json`] renders it as JSON. No other file of the host matches on all types of values to show or to
//! parse one.

mod json;

use std::cmp::Ordering;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::schema::ColumnType;
use crate::text::clean_text;
use crate::timestamp::Timestamp;

pub use json::{Integers, JsonParts, JsonValue};

/// The value of one column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// True or false; stored as 1 or 0.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A finite number.
    Real(f64),
    /// Text without NUL.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// A point in time.
    Timestamp(Timestamp),
    /// One JSON document, byte for byte.
    Json(String),
}

impl Value {
    /// The type; `None` for null, which a column of any type may contain.
    pub fn column_type(&self) -> Option<ColumnType> {
        Some(match self {
            Self::Null => return None,
            Self::Boolean(_) => ColumnType::Boolean,
            Self::Integer(_) => ColumnType::Integer,
            Self::Real(_) => ColumnType::Real,
            Self::Text(_) => ColumnType::Text,
            Self::Blob(_) => ColumnType::Blob,
            Self::Timestamp(_) => ColumnType::Timestamp,
            Self::Json(_) => ColumnType::Json,
        })
    }

    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Parses the textual form of a value, which [`fmt::Display`] writes. A JSON document is compared byte for byte, so
    /// it may be any text.
    ///
    /// # Errors
    /// A sentence that states what the text is not.
    pub fn parse(column_type: ColumnType, text: &str) -> Result<Self, String> {
        let wrong = |expected: &str| format!("{:?} is not {expected}", clean_text(text, 80));
        Ok(match column_type {
            ColumnType::Boolean => Self::Boolean(text.parse().map_err(|_| wrong("true or false"))?),
            ColumnType::Integer => Self::Integer(text.parse().map_err(|_| wrong("a 64-bit integer"))?),
            ColumnType::Real => match text.parse() {
                Ok(number) if f64::is_finite(number) => Self::Real(number),
                Ok(_) => return Err(wrong("a finite number")),
                Err(_) => return Err(wrong("a number")),
            },
            // SQLite ends a text at NUL.
            ColumnType::Text | ColumnType::Json if text.contains('\0') => {
                return Err("text must not contain NUL".to_owned());
            }
            ColumnType::Text => Self::Text(text.to_owned()),
            ColumnType::Json => Self::Json(text.to_owned()),
            ColumnType::Timestamp => {
                Self::Timestamp(Timestamp::parse_rfc3339(text).ok_or_else(|| wrong("a time in RFC 3339"))?)
            }
            ColumnType::Blob => Self::Blob(STANDARD.decode(text).map_err(|_| wrong("base64"))?),
        })
    }

    /// The text, or the JSON document; `None` for other types.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Json(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes of a value of variable length; `None` for numbers, times, booleans and null.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Blob(bytes) => Some(bytes),
            other => other.as_text().map(str::as_bytes),
        }
    }

    /// Size on the heap in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.as_bytes().map_or(0, <[u8]>::len)
    }

    /// The order of two values of one column, as SQLite defines it: text and documents by their bytes. `None` if one of
    /// them is null, or if their types differ, which cannot occur in one column.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Boolean(one), Self::Boolean(other)) => Some(one.cmp(other)),
            (Self::Integer(one), Self::Integer(other)) => Some(one.cmp(other)),
            (Self::Real(one), Self::Real(other)) => one.partial_cmp(other),
            (Self::Timestamp(one), Self::Timestamp(other)) => Some(one.cmp(other)),
            (one, other) if one.column_type() == other.column_type() => {
                Some(one.as_bytes()?.cmp(other.as_bytes()?))
            }
            _ => None,
        }
    }

    /// The value for a report: text and documents longer than `bytes_max` are cleaned and cut, and longer bytes are
    /// replaced by their number.
    pub fn truncated(self, bytes_max: usize) -> Self {
        match self {
            long if long.heap_bytes() <= bytes_max => long,
            Self::Blob(bytes) => Self::Text(format!("{} bytes", bytes.len())),
            Self::Text(text) | Self::Json(text) => Self::Text(clean_text(&text, bytes_max)),
            short => short,
        }
    }
}

/// The textual form: the JSON text, without the quotes of a string.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(yes) => write!(f, "{yes}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
            Self::Text(text) | Self::Json(text) => f.write_str(text),
            Self::Blob(bytes) => f.write_str(&STANDARD.encode(bytes)),
            Self::Timestamp(time) => f.write_str(&time.to_rfc3339()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_textual_form_round_trips() {
        for value in [
            Value::Boolean(true),
            Value::Integer(i64::MIN),
            Value::Real(-0.25),
            Value::Text("=1+1".into()),
            Value::Blob(vec![0, 255]),
            Value::Timestamp(Timestamp(-1)),
            Value::Json("{\"a\": 1e400}".into()),
        ] {
            let column_type = value.column_type().unwrap();
            assert_eq!(Value::parse(column_type, &value.to_string()), Ok(value));
        }
    }

    #[test]
    fn text_that_is_no_value_is_rejected_with_the_reason() {
        for (column_type, text, reason) in [
            (ColumnType::Boolean, "1", "\"1\" is not true or false"),
            (ColumnType::Integer, "7.5", "\"7.5\" is not a 64-bit integer"),
            (ColumnType::Real, "inf", "\"inf\" is not a finite number"),
            (ColumnType::Real, "x", "\"x\" is not a number"),
            (ColumnType::Text, "a\0", "text must not contain NUL"),
            (ColumnType::Json, "\0", "text must not contain NUL"),
            (ColumnType::Timestamp, "1", "\"1\" is not a time in RFC 3339"),
            (ColumnType::Blob, "?", "\"?\" is not base64"),
        ] {
            assert_eq!(Value::parse(column_type, text), Err(reason.to_owned()));
        }
    }

    #[test]
    fn only_values_of_one_type_have_an_order() {
        let text = |text: &str| Value::Text(text.into());
        for (one, other, expected) in [
            (text("B"), text("a"), Some(Ordering::Less)),
            (
                Value::Blob(vec![2]),
                Value::Blob(vec![1, 9]),
                Some(Ordering::Greater),
            ),
            (Value::Real(0.0), Value::Real(-0.0), Some(Ordering::Equal)),
            (Value::Integer(1), Value::Real(1.0), None),
            (text("1"), Value::Json("1".into()), None),
            (Value::Null, Value::Null, None),
        ] {
            assert_eq!(one.compare(&other), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn long_values_are_truncated() {
        let text = |text: &str| Value::Text(text.into());
        for (value, expected) in [
            (text("0123456789abcdef"), text("01234567…")),
            (Value::Json("[0123456789abcdef]".into()), text("[0123456…")),
            (Value::Blob(vec![0; 99]), text("99 bytes")),
            (Value::Blob(vec![0; 11]), Value::Blob(vec![0; 11])),
            (Value::Integer(i64::MAX), Value::Integer(i64::MAX)),
        ] {
            assert_eq!(value.truncated(11), expected);
        }
    }
}
