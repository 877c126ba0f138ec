//! Canaries, traces, the work of a version, and reprojections.

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
use lantern_api::{CanaryReport, NewCanary, Reproject, Reprojected, Trace, VersionWork};
use lantern_lifecycle::CanaryRequest;
use lantern_store::RowKey;

/// Maximum time that a client waits for a canary or a reprojection: a quarter of an hour of live messages, and the work.
pub const TRIAL_TIME: Duration = Duration::from_secs(20 * 60);

pub async fn canary(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    Input(canary): Input<NewCanary>,
) -> Result<Json<CanaryReport>, Problem> {
    let digest = state
        .lifecycle
        .resolve_version(plugin.as_str(), &canary.version)
        .await?;
    note.digest(digest);
    let request = CanaryRequest {
        messages: canary.messages,
        live: canary.live_seconds.map(Duration::from_secs),
    };
    let report = state.lifecycle.canary(plugin.as_str(), digest, request, &by);
    Ok(Json(report.await?))
}

pub async fn reproject(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    Input(reproject): Input<Reproject>,
) -> Result<Json<Reprojected>, Problem> {
    let digest = state
        .lifecycle
        .resolve_version(plugin.as_str(), &reproject.version)
        .await?;
    note.digest(digest);
    let done = state.lifecycle.reproject(plugin.as_str(), digest, &by).await?;
    note.detail(format!(
        "version {} reprojected {} messages of version {}",
        done.to, done.messages, done.from
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
            "version is required: a digest, a digest prefix of at least eight digits, or a version number",
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
            "table and key are required; a key with several columns is a JSON array of strings",
        ));
    };
    let parts = match key.starts_with('[') {
        true => serde_json::from_str::<Vec<String>>(key)
            .map_err(|error| Problem::bad_request(format!("key is not a JSON array of strings: {error}")))?,
        false => vec![key.to_owned()],
    };
    Ok(Json(state.lifecycle.trace(table, RowKey::parse(&parts)).await?))
}
