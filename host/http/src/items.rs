//! Rows as JSON objects, with their identity.

use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::problem::Problem;
use lantern_model::identity::RowIdentity;
use lantern_model::value::{Integers, JsonValue, Value};
use lantern_store::reader::{RowPage, RowRecord, Shape};

/// Serializes as `api::Row`: an object of the columns and the identity.
pub struct Item {
    columns: Arc<[String]>,
    record: RowRecord,
    integers: Integers,
}

impl Item {
    /// The rows of a page.
    pub fn all(page: RowPage, integers: Integers) -> Vec<Self> {
        let RowPage { columns, items, .. } = page;
        let item = |record| Self {
            columns: Arc::clone(&columns),
            record,
            integers,
        };
        items.into_iter().map(item).collect()
    }

    /// Some columns of a complete row, with their names.
    pub fn chosen(columns: &Arc<[String]>, record: &RowRecord, chosen: &[usize], integers: Integers) -> Self {
        let values = chosen.iter().filter_map(|&position| record.values.get(position));
        Self {
            columns: Arc::clone(columns),
            record: RowRecord {
                rowid: record.rowid,
                values: values.cloned().collect(),
                id: record.id,
            },
            integers,
        }
    }

    /// Lower bound of the size of some columns of a row, in bytes.
    pub fn bytes(record: &RowRecord, chosen: &[usize]) -> usize {
        let values = chosen.iter().filter_map(|&position| record.values.get(position));
        values.map(Value::heap_bytes).sum()
    }

    /// One row with all columns.
    pub fn one(shape: &Shape, record: RowRecord, integers: Integers) -> Self {
        let columns = shape
            .columns
            .iter()
            .map(|column| column.name.to_string())
            .collect();
        Self {
            columns,
            record,
            integers,
        }
    }
}

/// The entries of a row that state its identity: its text and its three numbers.
pub fn identity(id: RowIdentity) -> (String, [(&'static str, Value); 3]) {
    let numbers = [
        ("_origin", id.origin),
        ("_sequence", id.sequence),
        ("_row", id.row),
    ];
    (
        id.to_string(),
        numbers.map(|(name, number)| (name, Value::Integer(number))),
    )
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (id, numbers) = identity(self.record.id);
        let mut map = serializer.serialize_map(Some(self.columns.len() + 1 + numbers.len()))?;
        for (name, value) in self.columns.iter().zip(&self.record.values) {
            map.serialize_entry(name, &JsonValue(value, self.integers))?;
        }
        map.serialize_entry("_id", &id)?;
        for (name, number) in &numbers {
            map.serialize_entry(name, &JsonValue(number, self.integers))?;
        }
        map.end()
    }
}

/// Logs the error and returns an internal error.
pub fn not_json(error: serde_json::Error) -> Problem {
    tracing::error!(%error, "failed to serialize a value as JSON");
    Problem::internal()
}
