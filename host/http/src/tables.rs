//! Tables of plugins; the modules below read their rows.

mod detail;
mod export;
pub(super) mod facets;
pub(super) mod histogram;
mod name;
mod rows;
pub(super) mod search;
pub(super) mod selection;
pub(super) mod series;
mod tail;

use axum::Json;
use axum::extract;
use axum::http::Uri;

pub use detail::detail;
pub use export::export;
pub use facets::{count, facets};
pub use histogram::histogram;
pub use rows::rows;
pub use series::series;
pub use tail::tail;

pub(super) use name::TablePath;

use super::parameters::Parameters;
use super::problem::Problem;
use super::state::State;
use lantern_api::{Measure, Table};
use lantern_model::schema::description::ColumnRole;
use lantern_store::reader::{ReadError, Reader, RowEstimate, Shape};

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Table>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let mut tables = Vec::new();
    for entry in state.reader.tables().await? {
        let shape = state.reader.shape_of(entry).await?;
        tables.push(table_view(&state.reader, shape).await?);
    }
    Ok(Json(tables))
}

pub async fn one(
    extract::State(state): extract::State<State>,
    name: TablePath,
    uri: Uri,
) -> Result<Json<Table>, Problem> {
    Parameters::parse(&uri, &[])?;
    let shape = name.shape(&state.reader).await?;
    Ok(Json(table_view(&state.reader, shape).await?))
}

async fn table_view(reader: &Reader, shape: Shape) -> Result<Table, ReadError> {
    let RowEstimate { rows, exact } = reader.row_estimate(&shape.entry.name).await?;
    let newest = reader.newest(&shape).await?;
    let search = search::view(reader, &shape).await?;
    let name = |position: usize| shape.columns[position].name.to_string();
    let measures = shape.entry.description.columns.iter();
    Ok(Table {
        name: shape.entry.name.to_string(),
        plugin: shape.entry.plugin.clone(),
        row_count: rows,
        row_count_exact: exact,
        expired: shape.entry.rows_expired,
        time_column: shape.time().map(name),
        entity_columns: shape.with_role(ColumnRole::Entity).map(name).collect(),
        facet_columns: shape.with_role(ColumnRole::Facet).map(name).collect(),
        measure_columns: measures
            .filter(|column| column.role == Some(ColumnRole::Measure))
            .map(|column| Measure {
                name: column.name.clone(),
                unit: column.unit.clone(),
            })
            .collect(),
        newest: newest.map(|time| time.to_rfc3339()),
        search,
        description: shape.entry.description,
    })
}
