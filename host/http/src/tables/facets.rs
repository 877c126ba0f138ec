//! How many rows there are, and which values are frequent.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::NameOfTable;
use super::cells::{self, Integers, Shown};
use super::selection;
use crate::State;
use crate::parameters::Parameters;
use crate::problem::Problem;
use lantern_model::schema::ColumnType;
use lantern_store::reader::{Cell, Shape};

/// Columns in one question; each is a look at all rows.
pub const COLUMNS_MAX: usize = 20;

/// Values of a column when nothing is said.
pub const VALUES_DEFAULT: u32 = 20;

/// How many rows a selection has.
#[derive(Serialize, ToSchema)]
pub struct Count {
    /// At most 10,000.
    rows: u64,
    /// Whether there are not more.
    exact: bool,
}

pub async fn count(
    extract::State(state): extract::State<State>,
    table: NameOfTable,
    uri: Uri,
) -> Result<Json<Count>, Problem> {
    let parameters = selection::read(&uri, &[])?;
    let shape = table.shape(&state.reader).await?;
    let selection = selection::parse(&shape, &parameters)?;
    let count = state.reader.count(&shape, &selection).await?;
    Ok(Json(Count {
        rows: count.rows,
        exact: count.exact,
    }))
}

/// The frequent values of some columns.
#[derive(Serialize, ToSchema)]
pub struct Facets {
    /// In the order asked for.
    facets: Vec<Facet>,
}

/// The frequent values of one column.
#[derive(Serialize, ToSchema)]
pub struct Facet {
    /// The column.
    column: String,
    /// The most frequent first.
    values: Vec<FacetValue>,
    /// Rows without a value.
    nulls: u64,
    /// Whether there are more values than are shown.
    more: bool,
    /// Whether all rows were counted; otherwise the newest ones stand for them.
    exact: bool,
}

/// A value, and how many rows have it.
#[derive(Serialize, ToSchema)]
pub struct FacetValue {
    /// The value, as rows have it.
    #[schema(schema_with = cells::plain_value)]
    value: OneValue,
    /// Rows that have it.
    count: u64,
}

struct OneValue(Cell, Integers);

impl Serialize for OneValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shown(&self.0, self.1).serialize(serializer)
    }
}

pub async fn facets(
    extract::State(state): extract::State<State>,
    table: NameOfTable,
    uri: Uri,
) -> Result<Json<Facets>, Problem> {
    let parameters = selection::read(&uri, &["columns", "limit"])?;
    let limit = parameters.number("limit", 1, 1_000)?.unwrap_or(VALUES_DEFAULT);
    let shape = table.shape(&state.reader).await?;
    let selection = selection::parse(&shape, &parameters)?;
    let integers = selection::integers(&parameters)?;
    let columns = selection::columns(&shape, &parameters, "columns")?
        .ok_or_else(|| Problem::bad_request("columns is missing: the columns whose values are wanted"))?;
    if columns.len() > COLUMNS_MAX {
        return Err(Problem::bad_request(format!(
            "columns: there are more than {COLUMNS_MAX}"
        )));
    }
    for &column in &columns {
        has_values(&shape, "columns", column)?;
    }
    let mut facets = Vec::with_capacity(columns.len());
    for column in columns {
        let selection = selection.without_choice_of(column);
        let facet = state.reader.facet(&shape, &selection, column, limit).await?;
        let value = |(value, count)| FacetValue {
            value: OneValue(value, integers),
            count,
        };
        facets.push(Facet {
            column: shape.columns[column].name.to_string(),
            values: facet.values.into_iter().map(value).collect(),
            nulls: facet.nulls,
            more: facet.more,
            exact: facet.exact,
        });
    }
    Ok(Json(Facets { facets }))
}

/// The column that the parameter `by` names: rows are told apart by its values.
pub fn grouping(shape: &Shape, parameters: &Parameters) -> Result<Option<usize>, Problem> {
    let Some(name) = parameters.get("by") else {
        return Ok(None);
    };
    let column = selection::column(shape, "by", name)?;
    has_values(shape, "by", column)?;
    Ok(Some(column))
}

/// Whether rows can be told apart by the values of a column.
fn has_values(shape: &Shape, parameter: &str, column: usize) -> Result<(), Problem> {
    let column = &shape.columns[column];
    match column.column_type {
        ColumnType::Json | ColumnType::Blob => Err(Problem::bad_request(format!(
            "{parameter}: {} is {}, and rows cannot be counted by it",
            column.name, column.column_type
        ))),
        _ => Ok(()),
    }
}
