//! The types of columns and their properties. How a database stores them is decided by the store.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// True or false.
    Boolean,
    /// A signed 64-bit integer.
    Integer,
    /// A finite double.
    Real,
    /// Unicode text.
    Text,
    /// Bytes.
    Blob,
    /// A point in time, to the microsecond.
    Timestamp,
    /// A JSON document.
    Json,
}

impl ColumnType {
    /// All types.
    pub const ALL: [Self; 7] = [
        Self::Boolean,
        Self::Integer,
        Self::Real,
        Self::Text,
        Self::Blob,
        Self::Timestamp,
        Self::Json,
    ];

    /// The name in the contract, the API and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Text => "text",
            Self::Blob => "blob",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
        }
    }

    /// Whether the size of values varies.
    pub fn has_variable_size(self) -> bool {
        matches!(self, Self::Text | Self::Blob | Self::Json)
    }

    /// Whether values are text that can be searched.
    pub fn is_searchable(self) -> bool {
        matches!(self, Self::Text | Self::Json)
    }

    /// Whether values are numbers that can be added.
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Real)
    }

    /// Whether rows can be sorted and grouped by values. Documents and bytes may be large, and their order means nothing.
    pub fn is_sortable(self) -> bool {
        !matches!(self, Self::Json | Self::Blob)
    }

    /// Whether filters can compare values by order.
    pub fn has_order(self) -> bool {
        self.is_sortable() && self != Self::Boolean
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serialized_name_is_the_name_in_the_contract() {
        for column_type in ColumnType::ALL {
            let name = serde_json::to_string(&column_type).unwrap();
            assert_eq!(name, format!("\"{column_type}\""));
        }
    }
}
