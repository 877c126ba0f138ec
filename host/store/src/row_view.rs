//! Rows for reports: long values are truncated.

use super::description::ColumnDescription;
use super::values::Stored;
pub use lantern_model::results::row::RowView;
use lantern_model::schema::{Column, ColumnType};

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
    let values: Vec<_> = values.collect::<Result<_, crate::sql::Error>>()?;
    RowView::new(&values).map_err(crate::sql::Error::encode)
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
            row.unwrap().json(),
            r#"{"note":"01234567…","document":{"a":1e400},"damaged":"no JSON","number":0.5}"#
        );
    }
}
