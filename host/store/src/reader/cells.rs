//! The values of cells, exactly as stored.

use rusqlite::types::ValueRef;
use serde_json::value::RawValue;

use super::ReadError;
use super::connections::Row;
use super::text::json_bytes;
use lantern_model::batch::{Timestamp, Value};
use lantern_model::schema::ColumnType;

/// The value of one cell.
#[derive(Clone, Debug)]
pub enum Cell {
    /// No value.
    Null,
    /// A boolean.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text; invalid UTF-8 was replaced.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// A point in time.
    Timestamp(Timestamp),
    /// One JSON document, byte for byte.
    Json(Box<RawValue>),
}

impl Cell {
    /// The same value as a parameter.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(yes) => Value::Boolean(*yes),
            Self::Integer(number) => Value::Integer(*number),
            Self::Real(number) => Value::Real(*number),
            Self::Text(text) => Value::Text(text.clone()),
            Self::Blob(bytes) => Value::Blob(bytes.clone()),
            Self::Timestamp(time) => Value::Timestamp(*time),
            Self::Json(document) => Value::Json(document.get().to_owned()),
        }
    }
}

/// Reads one cell, and its approximate size in JSON. Text and bytes are moved out of the row.
///
/// A real that is not finite and a time outside [`Timestamp::MIN`] to [`Timestamp::MAX`] are read as null: JSON cannot
/// represent them, and one such value must not make the whole table unreadable. Only earlier versions stored them.
pub(super) fn cell(
    row: &mut Row,
    index: usize,
    column_type: ColumnType,
    what: impl Fn() -> String,
) -> Result<(Cell, usize), ReadError> {
    let value = row.value(index).map_err(ReadError::Sql)?;
    let cell = match (column_type, value) {
        (_, ValueRef::Null) => Cell::Null,
        (ColumnType::Boolean, ValueRef::Integer(number)) => Cell::Boolean(number != 0),
        (ColumnType::Integer, ValueRef::Integer(number)) => Cell::Integer(number),
        (ColumnType::Timestamp, ValueRef::Integer(number)) => match Timestamp(number) {
            time if time.is_admissible() => Cell::Timestamp(time),
            _ => Cell::Null,
        },
        (ColumnType::Real, ValueRef::Real(number)) if number.is_finite() => Cell::Real(number),
        (ColumnType::Real, ValueRef::Real(_)) => Cell::Null,
        (ColumnType::Text, ValueRef::Text(text)) => {
            let bytes = json_bytes(text);
            return Ok((Cell::Text(lossy(row.take_bytes(index))), bytes));
        }
        (ColumnType::Json, ValueRef::Text(text)) => {
            let bytes = text.len();
            let json = RawValue::from_string(lossy(row.take_bytes(index)))
                .map_err(|error| ReadError::corrupt(what(), error))?;
            return Ok((Cell::Json(json), bytes));
        }
        (ColumnType::Blob, ValueRef::Blob(bytes)) => {
            let size = bytes.len().div_ceil(3) * 4;
            return Ok((Cell::Blob(row.take_bytes(index)), size));
        }
        (_, stored) => {
            let stored = stored.data_type();
            let why = format!("it is declared as {column_type} and stored as {stored}");
            return Err(ReadError::corrupt(what(), why));
        }
    };
    Ok((cell, 8))
}

fn lossy(text: Vec<u8>) -> String {
    String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
