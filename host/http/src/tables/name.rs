//! The table that a path names.

use std::time::Duration;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::budget::{Client, Share};
use crate::problem::Problem;
use crate::state::State;
use lantern_model::schema::TableName;
use lantern_store::reader::{Reader, Shape};

/// Maximum time that a query waits for other queries of the same client.
const WAIT: Duration = Duration::from_secs(2);

/// The table that a path names, and a permit for a query.
pub struct TablePath {
    name: TableName,
    /// Held until the response is complete: one client cannot use all readers of the database.
    _share: Share,
}

impl TablePath {
    /// Shape of the table; an error if it does not exist.
    pub async fn shape(&self, reader: &Reader) -> Result<Shape, Problem> {
        let shape = reader.shape(&self.name).await?;
        shape.ok_or_else(|| Problem::not_found(format!("there is no table {}", self.name)))
    }

    pub async fn of(name: &str, parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let name = TableName::parse(name).map_err(Problem::bad_request)?;
        let Ok(client) = Client::from_request_parts(parts, state).await;
        let share = state.access.questions().take(&client, 1, WAIT).await;
        let busy = || Problem::busy("too many concurrent queries of this client; retry");
        Ok(Self {
            name,
            _share: share.ok_or_else(busy)?,
        })
    }
}

impl FromRequestParts<State> for TablePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        Self::of(&name, parts, state).await
    }
}
