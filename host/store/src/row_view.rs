//! Rows for reports: long values are truncated.

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::description::ColumnDescription;
use super::values::Stored;
use lantern_model::batch::Value;
use lantern_model::schema::{Column, ColumnType};
use lantern_model::value::{Integers, JsonValue};

/// A row for display: its columns by name, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowView(Vec<(String, Value)>);

impl RowView {
    /// The value of a column; none if there is no such column.
    pub fn get(&self, column: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(name, _)| name == column);
        found.map(|(_, value)| value)
    }
}

impl Serialize for RowView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, &JsonValue(value, Integers::Numbers))?;
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

/// The values of a row from index `first` on, one for each of `columns`; values of more than `bytes_max` bytes are
/// truncated.
pub(super) fn row_view(
    row: &crate::sql::Row<'_>,
    first: usize,
    columns: &[ViewColumn],
    bytes_max: usize,
) -> Result<RowView, crate::sql::Error> {
    let values = columns.iter().enumerate().map(|(number, column)| {
        let stored = row.get_ref(first + number)?;
        // A report shows a damaged value as it is.
        let value = Stored::of(stored)
            .into_value(column.column_type)
            .unwrap_or_else(|_| Stored::of(stored).into_untyped());
        Ok((column.name.clone(), value.truncated(bytes_max)))
    });
    values.collect::<Result<_, _>>().map(RowView)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_damaged_values_and_truncates_long_ones() {
        let connection = crate::sql::Connection::open_in_memory().unwrap();
        let columns = [
            ("note", ColumnType::Text),
            ("document", ColumnType::Json),
            ("damaged", ColumnType::Json),
            ("number", ColumnType::Integer),
        ];
        let columns = columns.map(|(name, column_type)| ViewColumn {
            name: name.to_owned(),
            column_type,
        });
        let sql = r#"SELECT '0123456789abcdef', '{"a":1e400}', 'no JSON', 0.5"#;
        let row = connection.query_row(sql, [], |row| row_view(row, 0, &columns, 11));
        assert_eq!(
            serde_json::to_string(&row.unwrap()).unwrap(),
            r#"{"note":"01234567…","document":{"a":1e400},"damaged":"no JSON","number":0.5}"#
        );
    }
}
