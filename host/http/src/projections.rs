//! The projections: how far they are, and how they have done in the last hour.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::State;
use super::live::{INTERVAL, Sample};
use super::parameters::Parameters;
use super::problem::Problem;
use lantern_model::status::Status;

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Status>>, Problem> {
    Parameters::parse(&uri, &[])?;
    Ok(Json(state.projections.snapshot()))
}

/// The last hour, as long as the host has run.
#[derive(Serialize, ToSchema)]
#[schema(as = History)]
pub struct Histories {
    /// Between two samples.
    interval_ms: u64,
    /// Each with its samples.
    projections: Vec<OneHistory>,
}

/// One projection.
#[derive(Serialize, ToSchema)]
#[schema(as = ProjectionHistory)]
pub struct OneHistory {
    /// The plugin.
    plugin: String,
    /// The source.
    source: String,
    /// The oldest first.
    samples: Vec<OneSample>,
}

/// How it stood at one time.
#[derive(Serialize, ToSchema)]
#[schema(as = Sample)]
pub struct OneSample {
    /// RFC 3339.
    at: String,
    /// Messages that became rows, since the beginning of its epoch.
    messages: u64,
    /// Rows written in this epoch.
    rows: u64,
    /// Dead letters that are open.
    dead_letters: u64,
    /// Messages that wait, as the broker said last.
    lag: Option<u64>,
}

pub async fn history(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Histories>, Problem> {
    Parameters::parse(&uri, &[])?;
    let shown = |sample: Sample| OneSample {
        at: sample.at.to_rfc3339(),
        messages: sample.messages,
        rows: sample.rows,
        dead_letters: sample.dead_letters,
        lag: sample.lag,
    };
    let all = state.live.history.all().into_iter();
    let projections = all.map(|((plugin, source), samples)| OneHistory {
        plugin,
        source,
        samples: samples.into_iter().map(shown).collect(),
    });
    Ok(Json(Histories {
        interval_ms: INTERVAL.as_millis() as u64,
        projections: projections.collect(),
    }))
}
