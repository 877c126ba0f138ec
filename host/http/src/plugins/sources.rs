//! Decisions of operators about the streams of sources.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as FromState};

use crate::change::{AuditNote, Input};
use crate::gate::Operator;
use crate::problem::Problem;
use crate::state::State;
use lantern_api::{SourceDecided, SourceDecision, SourceHistory};
use lantern_model::schema::{PluginName, SourceName};
use lantern_store::Accepted;

pub async fn accept(
    FromState(state): FromState<State>,
    Operator(by): Operator,
    path: Result<Path<(String, String)>, PathRejection>,
    note: AuditNote,
    Input(decision): Input<SourceDecision>,
) -> Result<Json<SourceDecided>, Problem> {
    let Path((plugin, source)) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let plugin = PluginName::parse(&plugin).map_err(Problem::bad_request)?;
    let source = SourceName::parse(&source).map_err(Problem::bad_request)?;
    let accepted = match decision.history {
        SourceHistory::Same => Accepted::Same,
        SourceHistory::New => Accepted::New,
    };
    note.detail(format!("source {source}: {} history", accepted.as_str()));
    let created = state
        .lifecycle
        .accept(plugin.as_str(), source.as_str(), accepted, note.requester(&by))
        .await?;
    let stream_created = created.to_rfc3339();
    Ok(Json(SourceDecided {
        plugin: plugin.to_string(),
        source: source.to_string(),
        history: decision.history,
        stream_created,
    }))
}
