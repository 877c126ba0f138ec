//! The tables of plugins: what there is, and in the modules below what is in them.

mod cells;
pub(super) mod detail;
mod export;
pub(super) mod facets;
pub(super) mod histogram;
mod pieces;
pub(super) mod rows;
pub(super) mod selection;
pub(super) mod series;
mod tail;

use axum::Json;
use axum::extract::{self, FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;

pub(super) use cells::{Integers, Item};
pub use detail::detail;
pub use export::export;
pub use facets::{count, facets};
pub use histogram::histogram;
pub use rows::rows;
pub use series::series;
pub use tail::tail;

use super::State;
use super::parameters::Parameters;
use super::problem::Problem;
use crate::schema::TableName;
use crate::schema::description::RoleWord;
use crate::store::TableDescription;
use crate::store::reader::{ReadError, Reader, RowEstimate, Shape};

/// A table, with what the host's faces need in order to show it.
#[derive(Serialize, ToSchema)]
pub struct Table {
    /// Its name.
    name: String,
    /// The plugin that fills it.
    plugin: String,
    #[serde(flatten)]
    description: TableDescription,
    /// Counted when there are at most 10,000, else an estimate.
    rows: u64,
    /// Whether `rows` was counted.
    rows_exact: bool,
    /// Rows that have reached the end of their retention, ever.
    rows_expired: i64,
    /// The column that says when a row happened.
    time_column: Option<String>,
    /// The columns that say whom it happened to.
    entity_columns: Vec<String>,
    /// The columns that are worth filtering by.
    facet_columns: Vec<String>,
    /// The columns that are quantities.
    measure_columns: Vec<Measure>,
    /// When the newest row happened; none without a time column, or without rows.
    newest: Option<String>,
}

/// A quantity.
#[derive(Serialize, ToSchema)]
pub struct Measure {
    /// The column.
    name: String,
    /// In the UCUM's letters.
    unit: Option<String>,
}

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Table>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let mut tables = Vec::new();
    for entry in state.reader.tables().await? {
        let shape = state.reader.shape_of(entry).await?;
        tables.push(described(&state.reader, shape).await?);
    }
    Ok(Json(tables))
}

pub async fn one(
    extract::State(state): extract::State<State>,
    name: NameOfTable,
    uri: Uri,
) -> Result<Json<Table>, Problem> {
    Parameters::parse(&uri, &[])?;
    let shape = name.shape(&state.reader).await?;
    Ok(Json(described(&state.reader, shape).await?))
}

async fn described(reader: &Reader, shape: Shape) -> Result<Table, ReadError> {
    let RowEstimate { rows, exact } = reader.row_estimate(&shape.entry.name).await?;
    let newest = reader.newest(&shape).await?;
    let name = |position: usize| shape.columns[position].name.to_string();
    let measures = shape.entry.description.columns.iter();
    Ok(Table {
        name: shape.entry.name.to_string(),
        plugin: shape.entry.plugin.clone(),
        rows,
        rows_exact: exact,
        rows_expired: shape.entry.rows_expired,
        time_column: shape.time().map(name),
        entity_columns: shape.with_role(RoleWord::Entity).map(name).collect(),
        facet_columns: shape.with_role(RoleWord::Facet).map(name).collect(),
        measure_columns: measures
            .filter(|column| column.role == Some(RoleWord::Measure))
            .map(|column| Measure {
                name: column.name.clone(),
                unit: column.unit.clone(),
            })
            .collect(),
        newest: newest.map(|time| time.to_rfc3339()),
        description: shape.entry.description,
    })
}

/// The table that a path names.
pub struct NameOfTable(TableName);

impl NameOfTable {
    /// What is known of it; a problem where there is none.
    async fn shape(&self, reader: &Reader) -> Result<Shape, Problem> {
        let shape = reader.shape(&self.0).await?;
        shape.ok_or_else(|| Problem::not_found(format!("there is no table {}", self.0)))
    }

    fn parse(name: &str) -> Result<Self, Problem> {
        TableName::parse(name).map(Self).map_err(Problem::bad_request)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NameOfTable {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        Self::parse(&name)
    }
}
