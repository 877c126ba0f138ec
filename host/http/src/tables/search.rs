//! Full-text search in tables: turned on and off, and its progress.

use axum::Json;
use axum::extract;

use super::name::TablePath;
use crate::change::{AuditNote, Input};
use crate::gate::Operator;
use crate::problem::Problem;
use crate::state::State;
use lantern_api::{SetTableSearch, TableSearch};
use lantern_store::reader::{ReadError, Reader, Shape};

pub async fn change(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    table: TablePath,
    note: AuditNote,
    Input(SetTableSearch { enabled }): Input<SetTableSearch>,
) -> Result<Json<TableSearch>, Problem> {
    let shape = table.shape(&state.reader).await?;
    let word = if enabled { "on" } else { "off" };
    note.plugin(&shape.entry.plugin);
    note.detail(format!("search in table {} {word}", shape.entry.name));
    state
        .lifecycle
        .set_search(&shape.entry.name, enabled, note.requester(&by))
        .await?;
    Ok(Json(view(&state.reader, &shape).await?))
}

/// The full-text search in a table.
pub async fn view(reader: &Reader, shape: &Shape) -> Result<TableSearch, ReadError> {
    let progress = reader.search_progress(shape).await?;
    Ok(TableSearch {
        enabled: progress.is_some(),
        rows_behind: progress.map_or(0, |progress| progress.rows_behind),
    })
}
