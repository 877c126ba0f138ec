//! Looking closer: a version on trial, where a row comes from, what a version has made, and making that again.

use std::time::Duration;

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::change::{AuditNote, Input, OfPlugin};
use super::gate::Operator;
use super::parameters::Parameters;
use super::problem::Problem;
use super::room::Room;
use super::state::State;
use lantern_api::{NewCanary, Reproject};
use lantern_lifecycle::{Actor, CanaryReport, CanaryRequest, Reprojected, Trace, VersionWork};
use lantern_store::RowKey;

/// How long a client waits for a trial: a quarter of an hour of listening, and the work.
pub const TRIAL_TIME: Duration = Duration::from_secs(20 * 60);

pub async fn canary(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    Input(asked): Input<NewCanary>,
) -> Result<Json<CanaryReport>, Problem> {
    let digest = state
        .lifecycle
        .resolve_version(plugin.as_str(), &asked.version)
        .await?;
    note.digest(digest);
    let request = CanaryRequest {
        messages: asked.messages,
        live: asked.live_seconds.map(Duration::from_secs),
    };
    let by = Actor(operator.name);
    let report = state
        .lifecycle
        .canary(plugin.as_str(), digest, request, &by)
        .await?;
    Ok(Json(report))
}

pub async fn reproject(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    Input(bad): Input<Reproject>,
) -> Result<Json<Reprojected>, Problem> {
    let digest = state
        .lifecycle
        .resolve_version(plugin.as_str(), &bad.version)
        .await?;
    note.digest(digest);
    let by = Actor(operator.name);
    let done = state.lifecycle.reproject(plugin.as_str(), digest, &by).await?;
    note.detail(format!(
        "version {} did again {} messages of version {}",
        done.to, done.done.messages, done.from
    ));
    Ok(Json(done))
}

pub async fn written(
    extract::State(state): extract::State<State>,
    OfPlugin(plugin): OfPlugin,
    uri: Uri,
) -> Result<Json<VersionWork>, Problem> {
    let parameters = Parameters::parse(&uri, &["version"])?;
    let Some(version) = parameters.get("version") else {
        return Err(Problem::bad_request(
            "version is missing: a digest, eight digits or more of one, or a version number",
        ));
    };
    let digest = state.lifecycle.resolve_version(plugin.as_str(), version).await?;
    Ok(Json(state.lifecycle.work_of(plugin.as_str(), digest).await?))
}

pub async fn trace(
    extract::State(state): extract::State<State>,
    _room: Room,
    uri: Uri,
) -> Result<Json<Trace>, Problem> {
    let parameters = Parameters::parse(&uri, &["table", "key"])?;
    let (Some(table), Some(key)) = (parameters.get("table"), parameters.get("key")) else {
        return Err(Problem::bad_request(
            "table and key are needed; a key of several columns is a JSON array of texts",
        ));
    };
    let words = match key.starts_with('[') {
        true => serde_json::from_str::<Vec<String>>(key)
            .map_err(|error| Problem::bad_request(format!("key is no JSON array of texts: {error}")))?,
        false => vec![key.to_owned()],
    };
    Ok(Json(state.lifecycle.trace(table, RowKey::parse(&words)).await?))
}
