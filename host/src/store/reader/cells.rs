//! The values of cells, as they are stored and to the byte.

use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

use super::ReadError;
use crate::batch::{Timestamp, Value};
use crate::schema::ColumnType;

/// The value of one cell.
#[derive(Clone, Debug)]
pub enum Cell {
    /// No value.
    Null,
    /// Yes or no.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text; what is not UTF-8 has been replaced.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// A point in time.
    Timestamp(Timestamp),
    /// One JSON document, to the byte.
    Json(Box<RawValue>),
}

impl Cell {
    /// The same value, to be asked for.
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

/// Reads one cell, and about how many bytes it has.
pub(super) fn cell(
    row: &SqliteRow,
    index: usize,
    column_type: ColumnType,
    what: impl Fn() -> String,
) -> Result<(Cell, usize), ReadError> {
    let raw = row.try_get_raw(index).map_err(ReadError::Sql)?;
    if raw.is_null() {
        return Ok((Cell::Null, 8));
    }
    let integer = || row.try_get_unchecked::<i64, _>(index).map_err(ReadError::Sql);
    // Read as bytes, so that text which is not UTF-8 can still be shown.
    let bytes = || row.try_get_unchecked::<Vec<u8>, _>(index).map_err(ReadError::Sql);
    let cell = match (column_type, raw.type_info().name()) {
        (ColumnType::Boolean, "INTEGER") => Cell::Boolean(integer()? != 0),
        (ColumnType::Integer, "INTEGER") => Cell::Integer(integer()?),
        (ColumnType::Timestamp, "INTEGER") => Cell::Timestamp(Timestamp(integer()?)),
        (ColumnType::Real, "REAL") => {
            Cell::Real(row.try_get_unchecked::<f64, _>(index).map_err(ReadError::Sql)?)
        }
        (ColumnType::Text, "TEXT") => return Ok(sized_text(bytes()?)),
        (ColumnType::Json, "TEXT") => {
            let (text, size) = match sized_text(bytes()?) {
                (Cell::Text(text), size) => (text, size),
                other => return Ok(other),
            };
            let json = RawValue::from_string(text).map_err(|error| ReadError::corrupt(what(), error))?;
            return Ok((Cell::Json(json), size));
        }
        (ColumnType::Blob, "BLOB") => {
            let bytes = bytes()?;
            let size = bytes.len();
            return Ok((Cell::Blob(bytes), size));
        }
        (_, stored) => {
            let why = format!("it is declared as {column_type} and stored as {stored}");
            return Err(ReadError::corrupt(what(), why));
        }
    };
    Ok((cell, 8))
}

fn sized_text(bytes: Vec<u8>) -> (Cell, usize) {
    let size = bytes.len();
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    (Cell::Text(text), size)
}
