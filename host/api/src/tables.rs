//! Tables and figures about their rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use lantern_model::schema::description::TableDescription;

/// A table, with what the host's faces need in order to show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The plugin that fills it.
    pub plugin: String,
    #[serde(flatten)]
    pub description: TableDescription,
    /// Counted when there are at most 10,000, else an estimate.
    pub rows: u64,
    /// Whether `rows` was counted.
    pub rows_exact: bool,
    /// Rows that have reached the end of their retention, ever.
    pub rows_expired: i64,
    /// The column that says when a row happened.
    pub time_column: Option<String>,
    /// The columns that say whom it happened to.
    pub entity_columns: Vec<String>,
    /// The columns that are worth filtering by.
    pub facet_columns: Vec<String>,
    /// The columns that are quantities.
    pub measure_columns: Vec<Measure>,
    /// When the newest row happened; none without a time column, or without rows.
    pub newest: Option<String>,
}

/// A quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Measure {
    /// The column.
    pub name: String,
    /// In the UCUM's letters.
    pub unit: Option<String>,
}

/// How many rows a selection has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// At most 10,000.
    pub rows: u64,
    /// Whether there are not more.
    pub exact: bool,
}

/// The frequent values of some columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Facets {
    /// In the order asked for.
    pub facets: Vec<Facet>,
}

/// The frequent values of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Facet {
    /// The column.
    pub column: String,
    /// The most frequent first.
    pub values: Vec<FacetValue>,
    /// Rows without a value.
    pub nulls: u64,
    /// Whether there are more values than are shown.
    pub more: bool,
    /// Whether all rows were counted; otherwise the newest ones stand for them.
    pub exact: bool,
}

/// A value, and how many rows have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FacetValue {
    /// The value, as rows have it.
    #[schema(schema_with = plain_value)]
    pub value: Value,
    /// Rows that have it.
    pub count: u64,
}

/// Rows over time, in buckets of one width that follow each other without a hole. Where the question leaves an end of the
/// range open, the range ends with the table's rows, without the few outliers that would make it many times as long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Histogram {
    /// RFC 3339; none where there is no row.
    pub from: Option<String>,
    /// The end of the last bucket; none where there is no row.
    pub to: Option<String>,
    /// Width of a bucket, in milliseconds.
    pub bucket_ms: i64,
    /// Rows of the selection before `from`, where the question leaves the beginning open.
    pub earlier: u64,
    /// Rows of the selection at `to` or later, where the question leaves the end open.
    pub later: u64,
    /// In the order of time.
    pub buckets: Vec<Bucket>,
    /// Whether all rows were counted.
    pub exact: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// RFC 3339.
    pub start: String,
    /// Rows in it.
    pub count: u64,
    /// Rows by value of the column that was asked for; rows with rarer values or none are only in `count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub by: Option<BTreeMap<String, u64>>,
}

/// Lines over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesAnswer {
    /// RFC 3339; none where there is no row.
    pub from: Option<String>,
    /// The end of the last bucket; none where there is no row.
    pub to: Option<String>,
    /// Width of a bucket, in milliseconds.
    pub bucket_ms: i64,
    /// The lines.
    pub series: Vec<Series>,
    /// Whether the column of `by` has more values than lines.
    pub more: bool,
    /// Whether all rows were looked at; otherwise the newest ones stand for them.
    pub exact: bool,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Series {
    /// The column; `rows` where rows are counted.
    pub measure: String,
    /// The value of the column of `by`.
    pub key: Option<String>,
    /// Milliseconds since 1970 and the number.
    pub points: Vec<(i64, Option<f64>)>,
}

/// What a cell is that is no document.
fn plain_value() -> Object {
    let types = SchemaType::from_iter([Type::String, Type::Number, Type::Boolean]);
    let description = "A value, as rows have it.";
    ObjectBuilder::new()
        .schema_type(types)
        .description(Some(description))
        .build()
}
