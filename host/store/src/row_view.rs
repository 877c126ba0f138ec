//! Stored values as JSON for reports: times in RFC 3339, bytes in base64, documents unchanged, and long values
//! truncated.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::ValueRef;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::description::ColumnDescription;
use lantern_model::batch::{Timestamp, clean_text};
use lantern_model::schema::{Column, ColumnType};

/// A row for display: its columns by name, in the order of the table. Each value is JSON text, so that a document keeps
/// every byte: numbers of any length, duplicate members, and their order.
#[derive(Clone, Debug, Default)]
pub struct RowView(Vec<(String, Box<RawValue>)>);

impl RowView {
    /// The JSON text of a column; none if there is no such column.
    pub fn get(&self, column: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == column);
        found.map(|(_, value)| value.get())
    }
}

impl PartialEq for RowView {
    fn eq(&self, other: &Self) -> bool {
        let texts = |row: &Self| -> Vec<(String, String)> {
            row.0
                .iter()
                .map(|(name, value)| (name.clone(), value.get().to_owned()))
                .collect()
        };
        texts(self) == texts(other)
    }
}

impl Serialize for RowView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A column of a displayed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ViewColumn {
    pub(super) name: String,
    pub(super) column_type: ColumnType,
}

impl From<&Column> for ViewColumn {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.to_string(),
            column_type: column.column_type,
        }
    }
}

impl From<&ColumnDescription> for ViewColumn {
    fn from(column: &ColumnDescription) -> Self {
        Self {
            name: column.name.clone(),
            column_type: column.column_type,
        }
    }
}

/// The cells of a row from index `first` on, one for each of `columns`; texts of more than `bytes_max` bytes are
/// truncated.
pub(super) fn row_view(
    row: &rusqlite::Row<'_>,
    first: usize,
    columns: &[ViewColumn],
    bytes_max: usize,
) -> Result<RowView, rusqlite::Error> {
    let cells = columns.iter().enumerate().map(|(number, column)| {
        let value = row.get_ref(first + number)?;
        Ok((column.name.clone(), to_json(value, column.column_type, bytes_max)))
    });
    cells.collect::<Result<_, _>>().map(RowView)
}

/// One value as JSON text. A stored JSON document is its own text.
fn to_json(value: ValueRef<'_>, column_type: ColumnType, bytes_max: usize) -> Box<RawValue> {
    if let (ValueRef::Text(text), ColumnType::Json) = (value, column_type)
        && text.len() <= bytes_max
        && let Ok(text) = std::str::from_utf8(text)
        && let Ok(document) = RawValue::from_string(text.to_owned())
    {
        return document;
    }
    // Values of these kinds can always be serialized.
    to_raw_value(&to_value(value, column_type, bytes_max)).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// One value that is not a JSON document.
fn to_value(value: ValueRef<'_>, column_type: ColumnType, bytes_max: usize) -> serde_json::Value {
    match (value, column_type) {
        (ValueRef::Null, _) => serde_json::Value::Null,
        (ValueRef::Integer(integer), ColumnType::Boolean) => json!(integer != 0),
        // As in the reader: a time outside the admissible range, which earlier versions stored, is null.
        (ValueRef::Integer(integer), ColumnType::Timestamp) => match Timestamp(integer) {
            time if time.is_admissible() => json!(time.to_rfc3339()),
            _ => serde_json::Value::Null,
        },
        (ValueRef::Integer(integer), _) => json!(integer),
        (ValueRef::Real(real), _) => json!(real),
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
    fn values_are_rendered_for_display_and_truncated_when_long() {
        let text = |text: &'static str| ValueRef::Text(text.as_bytes());
        for (value, column_type, expected) in [
            (ValueRef::Null, ColumnType::Text, "null"),
            (ValueRef::Integer(1), ColumnType::Boolean, "true"),
            (
                ValueRef::Integer(0),
                ColumnType::Timestamp,
                "\"1970-01-01T00:00:00.000000Z\"",
            ),
            (ValueRef::Integer(i64::MAX), ColumnType::Timestamp, "null"),
            (ValueRef::Real(f64::INFINITY), ColumnType::Real, "null"),
            (text("{\"a\":1}"), ColumnType::Json, "{\"a\":1}"),
            (text("no JSON"), ColumnType::Json, "\"no JSON\""),
            (text("0123456789abcdef"), ColumnType::Text, "\"01234567…\""),
            (ValueRef::Blob(&[1, 2]), ColumnType::Blob, "\"AQI=\""),
            (ValueRef::Blob(&[0; 99]), ColumnType::Blob, "\"99 bytes\""),
        ] {
            assert_eq!(to_json(value, column_type, 11).get(), expected);
        }
    }

    #[test]
    fn documents_keep_every_byte() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for document in [
            r#"{"n":12345678901234567890123,"a":1,"a":2,"z":-0,"e":1e2}"#,
            r#"{"n":1e400,"b":0.10}"#,
            r#"{"s":"\ud800","z":1,"a":"\u0041"}"#,
            " [ 1 ,2 ] ".trim(),
            deep.as_str(),
        ] {
            let value = ValueRef::Text(document.as_bytes());
            let row = RowView(vec![("d".to_owned(), to_json(value, ColumnType::Json, 4096))]);
            assert_eq!(row.get("d"), Some(document));
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(text, format!("{{\"d\":{document}}}"));
            let pretty = serde_json::to_string_pretty(&row).unwrap();
            assert!(pretty.contains(document), "{pretty}");
        }
    }
}
