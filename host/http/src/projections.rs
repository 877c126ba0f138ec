//! Status and history of projections.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::live::{self, INTERVAL};
use super::parameters::Parameters;
use super::problem::Problem;
use super::state::State;
use lantern_api::{History, ProjectionHistory, Sample};
use lantern_model::status::Status;

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Status>>, Problem> {
    Parameters::parse(&uri, &[])?;
    Ok(Json(state.projections.snapshot()))
}

pub async fn history(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<History>, Problem> {
    Parameters::parse(&uri, &[])?;
    let view = |sample: live::Sample| Sample {
        at: sample.at.to_rfc3339(),
        messages: sample.messages,
        rows: sample.rows,
        dead_letters: sample.dead_letters,
        lag: sample.lag,
    };
    let all = state.live.history.all().into_iter();
    let projections = all.map(|((plugin, source), samples)| ProjectionHistory {
        plugin,
        source,
        samples: samples.into_iter().map(view).collect(),
    });
    Ok(Json(History {
        interval_ms: INTERVAL.as_millis() as u64,
        projections: projections.collect(),
    }))
}
