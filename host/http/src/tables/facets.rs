//! How many rows there are, and which values are frequent.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::name::NameOfTable;
use super::selection;
use crate::cells::{self, Shown};
use crate::parameters::Parameters;
use crate::problem::Problem;
use crate::state::State;
use lantern_api::{Count, Facet, FacetValue, Facets};
use lantern_model::schema::ColumnType;
use lantern_store::reader::Shape;

/// Columns in one question; each is a look at all rows.
pub const COLUMNS_MAX: usize = 20;

/// Values of a column when nothing is said.
pub const VALUES_DEFAULT: u32 = 20;

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
        let value = |(value, count)| {
            let value = serde_json::to_value(Shown(&value, integers))?;
            Ok(FacetValue { value, count })
        };
        let values: Result<_, serde_json::Error> = facet.values.into_iter().map(value).collect();
        facets.push(Facet {
            column: shape.columns[column].name.to_string(),
            values: values.map_err(cells::not_json)?,
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
