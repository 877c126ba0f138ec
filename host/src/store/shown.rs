//! Stored values as JSON, for reports that people read: times in RFC 3339, bytes in base64, documents as they are, and
//! whatever is long cut short.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};

use super::description::ColumnDescription;
use crate::batch::{Timestamp, clean_text};
use crate::schema::{Column, ColumnType};

/// A row for people: its columns by name.
pub type ShownRow = Map<String, Value>;

/// A column of a row that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShownColumn {
    pub(super) name: String,
    pub(super) column_type: ColumnType,
}

impl From<&Column> for ShownColumn {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.to_string(),
            column_type: column.column_type,
        }
    }
}

impl From<&ColumnDescription> for ShownColumn {
    fn from(column: &ColumnDescription) -> Self {
        Self {
            name: column.name.clone(),
            column_type: column.column_type,
        }
    }
}

/// The cells of a row from number `first` on, one for each of `columns`; texts of more than `bytes_max` bytes are cut.
pub(super) fn shown_row(
    row: &rusqlite::Row<'_>,
    first: usize,
    columns: &[ShownColumn],
    bytes_max: usize,
) -> Result<ShownRow, rusqlite::Error> {
    let cells = columns.iter().enumerate().map(|(number, column)| {
        let value = row.get_ref(first + number)?;
        Ok((column.name.clone(), shown(value, column.column_type, bytes_max)))
    });
    cells.collect()
}

/// One value.
pub(super) fn shown(value: ValueRef<'_>, column_type: ColumnType, bytes_max: usize) -> Value {
    match (value, column_type) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Integer(integer), ColumnType::Boolean) => json!(integer != 0),
        // As the reader shows it: what an earlier version stored outside the admissible range is null.
        (ValueRef::Integer(integer), ColumnType::Timestamp) => match Timestamp(integer) {
            time if time.is_admissible() => json!(time.to_rfc3339()),
            _ => Value::Null,
        },
        (ValueRef::Integer(integer), _) => json!(integer),
        (ValueRef::Real(real), _) => json!(real),
        (ValueRef::Text(text), ColumnType::Json) if text.len() <= bytes_max => {
            // What the host stored is JSON; what somebody else has put there is shown as text.
            serde_json::from_slice(text).unwrap_or_else(|_| json!(String::from_utf8_lossy(text)))
        }
        (ValueRef::Text(text), _) => {
            let text = String::from_utf8_lossy(text);
            if text.len() <= bytes_max {
                json!(text)
            } else {
                json!(clean_text(&text, bytes_max))
            }
        }
        (ValueRef::Blob(bytes), _) if bytes.len() <= bytes_max => json!(STANDARD.encode(bytes)),
        (ValueRef::Blob(bytes), _) => json!(format!("{} bytes", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_people_read_them_and_cut_when_they_are_long() {
        let text = |text: &'static str| ValueRef::Text(text.as_bytes());
        for (value, column_type, expected) in [
            (ValueRef::Null, ColumnType::Text, json!(null)),
            (ValueRef::Integer(1), ColumnType::Boolean, json!(true)),
            (
                ValueRef::Integer(0),
                ColumnType::Timestamp,
                json!("1970-01-01T00:00:00.000000Z"),
            ),
            (text("{\"a\":1}"), ColumnType::Json, json!({ "a": 1 })),
            (text("0123456789abcdef"), ColumnType::Text, json!("01234567…")),
            (ValueRef::Blob(&[1, 2]), ColumnType::Blob, json!("AQI=")),
            (ValueRef::Blob(&[0; 99]), ColumnType::Blob, json!("99 bytes")),
        ] {
            assert_eq!(shown(value, column_type, 11), expected);
        }
    }
}
