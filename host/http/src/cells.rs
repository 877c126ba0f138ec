//! Serializes rows and values as JSON without loss.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Serialize, ser};

use super::problem::Problem;
use lantern_model::identity::RowIdentity;
use lantern_store::reader::{Cell, RowPage, RowRecord, Shape};

/// Format of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// JSON numbers, which JavaScript reads exactly up to 2^53.
    Numbers,
    /// JSON strings.
    Text,
}

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
        let cells = chosen.iter().filter_map(|&position| record.cells.get(position));
        Self {
            columns: Arc::clone(columns),
            record: RowRecord {
                rowid: record.rowid,
                cells: cells.cloned().collect(),
                id: record.id,
            },
            integers,
        }
    }

    /// Lower bound of the size of some columns of a row, in bytes.
    pub fn bytes(record: &RowRecord, chosen: &[usize]) -> usize {
        let cells = chosen.iter().filter_map(|&position| record.cells.get(position));
        cells.map(bytes_of_cell).sum()
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
pub fn identity(id: RowIdentity) -> (String, [(&'static str, Cell); 3]) {
    let numbers = [
        ("_origin", id.origin),
        ("_sequence", id.sequence),
        ("_row", id.row),
    ];
    (
        id.to_string(),
        numbers.map(|(name, number)| (name, Cell::Integer(number))),
    )
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (id, numbers) = identity(self.record.id);
        let mut map = serializer.serialize_map(Some(self.columns.len() + 1 + numbers.len()))?;
        for (name, cell) in self.columns.iter().zip(&self.record.cells) {
            map.serialize_entry(name, &CellJson(cell, self.integers))?;
        }
        map.serialize_entry("_id", &id)?;
        for (name, number) in &numbers {
            map.serialize_entry(name, &CellJson(number, self.integers))?;
        }
        map.end()
    }
}

/// Serializes a cell: times as RFC 3339, bytes as base64, JSON documents embedded.
pub struct CellJson<'a>(pub &'a Cell, pub Integers);

impl Serialize for CellJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Cell::Null => serializer.serialize_none(),
            Cell::Boolean(yes) => serializer.serialize_bool(*yes),
            Cell::Integer(number) if self.1 == Integers::Text => serializer.collect_str(number),
            Cell::Integer(number) => serializer.serialize_i64(*number),
            Cell::Real(number) if number.is_finite() => serializer.serialize_f64(*number),
            // JSON has no representation of it, and null would be wrong.
            Cell::Real(number) => Err(ser::Error::custom(format!("{number} is not finite"))),
            Cell::Text(text) => serializer.serialize_str(text),
            Cell::Blob(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Cell::Timestamp(time) => serializer.serialize_str(&time.to_rfc3339()),
            Cell::Json(document) => document.serialize(serializer),
        }
    }
}

/// Logs the error and returns an internal error.
pub fn not_json(error: serde_json::Error) -> Problem {
    tracing::error!(%error, "failed to serialize a value as JSON");
    Problem::internal()
}

/// A value as a label: its JSON text, strings without quotes.
pub fn word(cell: &Cell) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Boolean(yes) => yes.to_string(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Blob(bytes) => STANDARD.encode(bytes),
        Cell::Timestamp(time) => time.to_rfc3339(),
        Cell::Json(document) => document.get().to_owned(),
    }
}

/// Heap size of a value in bytes.
pub fn bytes_of_cell(cell: &Cell) -> usize {
    match cell {
        Cell::Text(text) => text.len(),
        Cell::Blob(bytes) => bytes.len(),
        Cell::Json(document) => document.get().len(),
        _ => 0,
    }
}
