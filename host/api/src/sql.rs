//! Answers to SQL queries.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ObjectBuilder, SchemaType, Type};

/// What a question was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SqlAnswer {
    /// Their names, in order.
    pub columns: Vec<String>,
    /// Each with a value for every column.
    #[schema(schema_with = rows_of_values)]
    pub rows: Vec<Vec<Value>>,
    /// Whether there are more rows.
    pub truncated: bool,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

fn rows_of_values() -> Array {
    let value = SchemaType::from_iter([Type::String, Type::Number, Type::Null]);
    let value = ObjectBuilder::new().schema_type(value).description(Some(
        "A value: whole numbers beyond 2^53 and numbers that are not finite as text, bytes in base64.",
    ));
    Array::new(Array::new(value))
}
