//! Compares one stored row with the row that its message produces.

use rusqlite::types::Value as Stored;

use super::{Compared, DAY_US, DeepTable, RowInMessage, VALUE_BYTES};
use crate::values::into_parameter;
use lantern_model::batch::{Row, Timestamp, clean_text};
use lantern_model::schema::Manifest;
use lantern_model::schema::description::ColumnRole;

impl DeepTable {
    pub(super) fn columns(&self) -> Vec<&str> {
        let columns = self.description.columns.iter();
        columns.map(|column| column.name.as_str()).collect()
    }

    /// The columns of the primary key, or of a unique index.
    pub(super) fn key(&self) -> Vec<&str> {
        let unique = self.description.indexes.iter().find(|index| index.unique);
        let key = match (self.description.primary_key.as_slice(), unique) {
            ([], Some(index)) => &index.columns,
            _ => &self.description.primary_key,
        };
        key.iter().map(String::as_str).collect()
    }

    /// The stored values of a row, in the order of the table's columns.
    pub(super) fn wanted(&self, manifest: &Manifest, row: &Row) -> Vec<Stored> {
        let write = &manifest.writes[row.write as usize];
        let declared = manifest.table_of(write);
        let columns = self.columns();
        let mut values = vec![Stored::Null; columns.len()];
        for (value, &column) in row.values.iter().zip(&write.columns) {
            let name = declared.columns[column].name.as_str();
            if let Some(position) = columns.iter().position(|column| *column == name) {
                values[position] = into_parameter(value.clone());
            }
        }
        values
    }

    pub(super) fn compare(
        &self,
        (sequence, number): RowInMessage,
        there: &[Stored],
        wanted: &[Stored],
        found: &mut Compared,
    ) {
        let differing = there
            .iter()
            .zip(wanted)
            .position(|(there, wanted)| there != wanted);
        let Some(position) = differing else {
            found.same += 1;
            return;
        };
        found.differs(|| {
            format!(
                "table {}, row {number} of message {sequence}: column {} is {}, but the message produces {}",
                self.name,
                self.description.columns[position].name,
                describe_value(&there[position]),
                describe_value(&wanted[position])
            )
        });
    }

    /// Whether the retention of the table has removed a row.
    pub(super) fn is_too_old(&self, wanted: &[Stored]) -> bool {
        let time = self
            .description
            .columns
            .iter()
            .position(|column| column.role == Some(ColumnRole::Time));
        let (Some(days), Some(time)) = (self.description.retention_days, time) else {
            return false;
        };
        let before = Timestamp::now().0.saturating_sub(i64::from(days) * DAY_US);
        matches!(wanted[time], Stored::Integer(at) if at < before)
    }
}

fn describe_value(value: &Stored) -> String {
    match value {
        Stored::Null => "null".to_owned(),
        Stored::Integer(integer) => integer.to_string(),
        Stored::Real(real) => real.to_string(),
        Stored::Text(text) => format!("{:?}", clean_text(text, VALUE_BYTES)),
        Stored::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}
