//! Results of SQL queries.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ObjectBuilder, SchemaType, Type};

/// Result of an SQL query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SqlAnswer {
    /// Column names.
    pub columns: Vec<String>,
    /// Rows, each with one value per column.
    #[schema(schema_with = rows_schema)]
    pub rows: Vec<Vec<Value>>,
    /// Whether the result was truncated at the row limit.
    pub truncated: bool,
    /// Execution time in milliseconds.
    pub elapsed_ms: u64,
}

fn rows_schema() -> Array {
    let value = SchemaType::from_iter([Type::String, Type::Number, Type::Null]);
    let value = ObjectBuilder::new().schema_type(value).description(Some(
        "A value. Integers beyond 2^53 and non-finite numbers are strings, bytes are base64.",
    ));
    Array::new(Array::new(value))
}
