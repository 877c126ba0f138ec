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

use std::time::Duration;

use axum::Json;
use axum::extract::{self, FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;

pub(super) use cells::{Integers, Item};
pub use detail::detail;
pub use export::export;
pub use facets::{count, facets};
pub use histogram::histogram;
pub use rows::rows;
pub use series::series;
pub use tail::tail;

use super::State;
use super::budget::{Client, Share};
use super::parameters::Parameters;
use super::problem::Problem;
use lantern_api::{Measure, Table};
use lantern_model::schema::TableName;
use lantern_model::schema::description::RoleWord;
use lantern_store::reader::{ReadError, Reader, RowEstimate, Shape};

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

/// How long a question waits for others of the same client.
const WAIT: Duration = Duration::from_secs(2);

/// The table that a path names, and the right to ask about it.
pub struct NameOfTable {
    name: TableName,
    /// Held until the question is answered: one client leaves a reader of the database for others.
    _share: Share,
}

impl NameOfTable {
    /// What is known of it; a problem where there is none.
    async fn shape(&self, reader: &Reader) -> Result<Shape, Problem> {
        let shape = reader.shape(&self.name).await?;
        shape.ok_or_else(|| Problem::not_found(format!("there is no table {}", self.name)))
    }

    async fn of(name: &str, parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let name = TableName::parse(name).map_err(Problem::bad_request)?;
        let Ok(client) = Client::from_request_parts(parts, state).await;
        let share = state.access.questions().take(&client, 1, WAIT).await;
        let busy = || Problem::busy("this client asks as many questions as are answered at once; try again");
        Ok(Self {
            name,
            _share: share.ok_or_else(busy)?,
        })
    }
}

impl FromRequestParts<State> for NameOfTable {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        Self::of(&name, parts, state).await
    }
}
