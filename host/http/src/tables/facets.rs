//! Counts rows and finds frequent values.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::name::TablePath;
use super::selection;
use crate::items::not_json;
use crate::parameters::Parameters;
use crate::problem::Problem;
use crate::state::State;
use lantern_api::{Count, Facet, FacetValue, Facets};
use lantern_model::value::JsonValue;
use lantern_store::reader::Shape;

/// Maximum number of columns per request; each needs a scan.
pub const COLUMNS_MAX: usize = 20;

/// Default number of values per column.
pub const VALUES_DEFAULT: u32 = 20;

pub async fn count(
    extract::State(state): extract::State<State>,
    table: TablePath,
    uri: Uri,
) -> Result<Json<Count>, Problem> {
    let parameters = selection::read(&uri, &[])?;
    let shape = table.shape(&state.reader).await?;
    let selection = selection::parse(&shape, &parameters)?;
    let count = state.reader.count(&shape, &selection).await?;
    Ok(Json(Count {
        count: count.rows,
        exact: count.exact,
    }))
}

pub async fn facets(
    extract::State(state): extract::State<State>,
    table: TablePath,
    uri: Uri,
) -> Result<Json<Facets>, Problem> {
    let parameters = selection::read(&uri, &["columns", "limit"])?;
    let limit = parameters.number("limit", 1, 1_000)?.unwrap_or(VALUES_DEFAULT);
    let shape = table.shape(&state.reader).await?;
    let selection = selection::parse(&shape, &parameters)?;
    let integers = selection::integers(&parameters)?;
    let columns = selection::columns(&shape, &parameters, "columns")?
        .ok_or_else(|| Problem::bad_request("columns is required"))?;
    if columns.len() > COLUMNS_MAX {
        return Err(Problem::bad_request(format!(
            "columns: at most {COLUMNS_MAX} are allowed"
        )));
    }
    for &column in &columns {
        require_groupable(&shape, "columns", column)?;
    }
    let mut facets = Vec::with_capacity(columns.len());
    for column in columns {
        let selection = selection.without_choice_of(column);
        let facet = state.reader.facet(&shape, &selection, column, limit).await?;
        let value = |(value, count)| -> Result<FacetValue, serde_json::Error> {
            let value = serde_json::to_value(JsonValue(&value, integers))?;
            Ok(FacetValue { value, count })
        };
        let values: Result<_, serde_json::Error> = facet.values.into_iter().map(value).collect();
        facets.push(Facet {
            column: shape.columns[column].name.to_string(),
            values: values.map_err(not_json)?,
            nulls: facet.nulls,
            more: facet.more,
            exact: facet.exact,
        });
    }
    Ok(Json(Facets { facets }))
}

/// The parameter `by`: the column to group by.
pub fn grouping(shape: &Shape, parameters: &Parameters) -> Result<Option<usize>, Problem> {
    let Some(name) = parameters.get("by") else {
        return Ok(None);
    };
    let column = selection::column(shape, "by", name)?;
    require_groupable(shape, "by", column)?;
    Ok(Some(column))
}

/// Requires a column whose values can be grouped.
fn require_groupable(shape: &Shape, parameter: &str, column: usize) -> Result<(), Problem> {
    let column = &shape.columns[column];
    if !column.column_type.is_sortable() {
        return Err(Problem::bad_request(format!(
            "{parameter}: {} has the type {}, which cannot be grouped",
            column.name, column.column_type
        )));
    }
    Ok(())
}
