//! Decisions about the streams that sources read.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as FromState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::State;
use crate::change::{AuditNote, Input};
use crate::gate::Operator;
use crate::problem::Problem;
use lantern_lifecycle::Actor;
use lantern_model::schema::{PluginName, SourceName};
use lantern_store::Accepted;

/// Whether the stream of a source is the one that was read.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceHistory {
    /// It is: the source continues behind its checkpoint. Where the stream ends before the checkpoint, it continues
    /// with the messages that are younger than the last one that was read, in a new epoch.
    Same,
    /// It is another stream: the source reads all of it, in a new epoch. Old rows stay.
    New,
}

/// A decision about the stream of a source.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceDecision {
    /// What the stream is.
    history: SourceHistory,
}

/// A decision that was stored.
#[derive(Serialize, ToSchema)]
pub struct SourceDecided {
    /// The plugin.
    plugin: String,
    /// The source.
    source: String,
    /// What the stream is.
    history: SourceHistory,
    /// When the stream was created that the decision is about (RFC 3339). It holds for no other one.
    stream_created: String,
}

pub async fn accept(
    FromState(state): FromState<State>,
    Operator(operator): Operator,
    path: Result<Path<(String, String)>, PathRejection>,
    note: AuditNote,
    Input(asked): Input<SourceDecision>,
) -> Result<Json<SourceDecided>, Problem> {
    let Path((plugin, source)) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let plugin = PluginName::parse(&plugin).map_err(Problem::bad_request)?;
    let source = SourceName::parse(&source).map_err(Problem::bad_request)?;
    let accepted = match asked.history {
        SourceHistory::Same => Accepted::Same,
        SourceHistory::New => Accepted::New,
    };
    note.detail(format!("source {source}: {} history", accepted.as_str()));
    let by = Actor(operator.name);
    let created = state
        .lifecycle
        .accept(plugin.as_str(), source.as_str(), accepted, &by)
        .await?;
    let stream_created = created.to_rfc3339();
    note.detail(format!(
        "source {source}: {} history, stream created at {stream_created}",
        accepted.as_str()
    ));
    Ok(Json(SourceDecided {
        plugin: plugin.to_string(),
        source: source.to_string(),
        history: asked.history,
        stream_created,
    }))
}
