//! Tables and statistics about their rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use lantern_model::schema::description::TableDescription;

/// A table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Table {
    /// Table name.
    pub name: String,
    /// Plugin that writes the table.
    pub plugin: String,
    /// Description that the plugin declares.
    #[serde(flatten)]
    pub description: TableDescription,
    /// Number of rows in the table: exact for a table that only grows and up to 10,000, estimated otherwise.
    pub row_count: u64,
    /// Whether `row_count` is exact.
    pub row_count_exact: bool,
    /// Rows that retention has removed so far.
    pub expired: i64,
    /// Column with the role `time`.
    pub time_column: Option<String>,
    /// Columns with the role `entity`.
    pub entity_columns: Vec<String>,
    /// Columns with the role `facet`.
    pub facet_columns: Vec<String>,
    /// Columns with the role `measure`.
    pub measure_columns: Vec<Measure>,
    /// Time of the newest row (RFC 3339); null without a time column or without rows.
    pub newest: Option<String>,
    /// Full-text search.
    pub search: TableSearch,
}

/// Full-text search in a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TableSearch {
    /// Whether an operator turned the full-text index on. Without it, searches read the rows of the table.
    pub enabled: bool,
    /// Rows that the index does not contain yet, approximately. Searches read them one by one; 0 without an index.
    pub rows_behind: u64,
}

/// Turns full-text search in a table on or off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTableSearch {
    /// Whether the table has a full-text index.
    pub enabled: bool,
}

/// A column with the role `measure`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Measure {
    /// Column.
    pub name: String,
    /// Unit as a UCUM code.
    pub unit: Option<String>,
}

/// Number of rows of a selection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// Number of rows.
    pub count: u64,
    /// Whether the number is exact; otherwise there are more rows.
    pub exact: bool,
}

/// Frequent values of columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Facets {
    /// One facet per requested column, in the requested order.
    pub facets: Vec<Facet>,
}

/// Frequent values of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Facet {
    /// Column.
    pub column: String,
    /// Values, most frequent first.
    pub values: Vec<FacetValue>,
    /// Rows without a value.
    pub nulls: u64,
    /// Whether the column has more values.
    pub more: bool,
    /// Whether all rows were counted; otherwise only the newest.
    pub exact: bool,
}

/// A value and its frequency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FacetValue {
    /// The value, formatted as in rows.
    #[schema(schema_with = scalar_schema)]
    pub value: Value,
    /// Number of rows with this value.
    pub count: u64,
}

/// Rows over time, in contiguous buckets of equal width. If the request leaves an end of the range open, the range ends
/// with the rows of the table, without the few outliers that would make it many times as long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Histogram {
    /// Start of the first bucket (RFC 3339); null without rows.
    pub from: Option<String>,
    /// End of the last bucket (RFC 3339); null without rows.
    pub to: Option<String>,
    /// Width of a bucket in milliseconds.
    pub bucket_ms: i64,
    /// Rows of the selection before `from`, if the request leaves the start open.
    pub earlier: u64,
    /// Rows of the selection at or after `to`, if the request leaves the end open.
    pub later: u64,
    /// The buckets in order of time.
    pub buckets: Vec<Bucket>,
    /// Whether all rows were counted.
    pub exact: bool,
}

/// A bucket of a histogram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// Start of the bucket (RFC 3339).
    pub start: String,
    /// Number of rows.
    pub count: u64,
    /// Number of rows per value of the column `by`; rows with other values or without one are only in `count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub by: Option<BTreeMap<String, u64>>,
}

/// Aggregated measures over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesAnswer {
    /// Start of the first bucket (RFC 3339); null without rows.
    pub from: Option<String>,
    /// End of the last bucket (RFC 3339); null without rows.
    pub to: Option<String>,
    /// Width of a bucket in milliseconds.
    pub bucket_ms: i64,
    /// The series.
    pub series: Vec<Series>,
    /// Whether the column `by` has values without a series.
    pub more: bool,
    /// Whether all rows were aggregated; otherwise only the newest.
    pub exact: bool,
}

/// One series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Series {
    /// Aggregated column; `rows` if rows are counted.
    pub measure: String,
    /// Value of the column `by`.
    pub key: Option<String>,
    /// Points: milliseconds since 1970, and the aggregated value.
    pub points: Vec<(i64, Option<f64>)>,
}

/// Schema of a cell that is not a JSON document.
fn scalar_schema() -> Object {
    let types = SchemaType::from_iter([Type::String, Type::Number, Type::Boolean]);
    let description = "A value, formatted as in rows.";
    ObjectBuilder::new()
        .schema_type(types)
        .description(Some(description))
        .build()
}
