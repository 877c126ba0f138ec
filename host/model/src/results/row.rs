//! A row for display.

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::batch::Value;
use crate::value::{Integers, JsonValue};

/// A row as a JSON object, with its columns in the order of the table: times in RFC 3339, bytes in base64. The text keeps
/// the values exactly as they are stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowView(Box<RawValue>);

impl RowView {
    /// The row with these columns.
    ///
    /// # Errors
    /// If JSON cannot represent a value.
    pub fn new(columns: &[(String, Value)]) -> Result<Self, serde_json::Error> {
        to_raw_value(&Columns(columns)).map(Self)
    }

    /// The JSON text.
    pub fn json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for RowView {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

struct Columns<'a>(&'a [(String, Value)]);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, &JsonValue(value, Integers::Numbers))?;
        }
        map.end()
    }
}
