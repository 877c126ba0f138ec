//! Serializes rows and values as JSON without loss.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Serialize, ser};

use super::problem::Problem;
use lantern_store::reader::{Cell, RowOrigin, RowPage, RowRecord, Shape};

/// Format of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// JSON numbers, which JavaScript reads exactly up to 2^53.
    Numbers,
    /// JSON strings.
    Text,
}

/// Serializes as `api::Row`: an object of the columns, `_row` and `_origin`.
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
                row: record.row,
                cells: cells.cloned().collect(),
                origin: record.origin.clone(),
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

/// Serializes as `api::RowOrigin`.
#[derive(Serialize)]
pub struct Origin<'a> {
    source: Option<&'a str>,
    epoch: Option<i64>,
    sequence: i64,
}

impl<'a> From<&'a RowOrigin> for Origin<'a> {
    fn from(origin: &'a RowOrigin) -> Self {
        Self {
            source: origin.source.as_deref(),
            epoch: origin.epoch,
            sequence: origin.sequence,
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len() + 2))?;
        for (name, cell) in self.columns.iter().zip(&self.record.cells) {
            map.serialize_entry(name, &CellJson(cell, self.integers))?;
        }
        map.serialize_entry("_row", &self.record.row.to_string())?;
        map.serialize_entry("_origin", &Origin::from(&self.record.origin))?;
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
