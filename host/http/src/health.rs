//! Liveness, readiness and metrics.

use axum::extract::{self, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::guard;
use super::problem::Problem;
use super::state::State;
use lantern_api::{Check, Readiness};
use lantern_model::batch::Timestamp;
use lantern_model::status;

/// Grace period for a stream that never existed: it may be about to be created; later its name is probably wrong.
const STREAM_GRACE_MS: i64 = 10_000;

/// A source without progress for this long although messages are waiting is stalled, and the host is not ready.
const STALLED_MS: i64 = 10_000;

/// One check for each kind, which passes if all checks of the kind pass.
fn without_details(readiness: Readiness) -> Readiness {
    let mut checks: Vec<Check> = Vec::new();
    for check in readiness.checks {
        let kind = check.name.split(':').next().unwrap_or_default();
        match checks.iter_mut().find(|known| known.name == kind) {
            Some(known) => known.ok &= check.ok,
            None => checks.push(Check {
                name: kind.to_owned(),
                ok: check.ok,
                detail: "details require a token".to_owned(),
            }),
        }
    }
    Readiness { checks, ..readiness }
}

/// Liveness. Independent of broker and database: an orchestrator must not restart a host that waits for its broker.
pub async fn live() -> &'static str {
    "ok\n"
}

/// Readiness, without a token. Details require read access, because they name plugins, streams and addresses.
pub async fn ready(extract::State(state): extract::State<State>, request: Request) -> Response {
    let config = state.access.config();
    let is_near = guard::named(&request, &config.hosts).is_ok_and(|named| config.is_near(named));
    let readiness = readiness(&state);
    if is_near || state.access.is_of_holder(request.headers()) {
        answer(readiness)
    } else {
        answer(without_details(readiness))
    }
}

/// Readiness with details.
pub async fn health(extract::State(state): extract::State<State>) -> Response {
    answer(readiness(&state))
}

fn answer(readiness: Readiness) -> Response {
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(readiness)).into_response()
}

pub async fn metrics(extract::State(state): extract::State<State>) -> Result<Response, Problem> {
    state.metrics.ready(readiness(&state).ready);
    let text = state.metrics.encode().map_err(|error| {
        tracing::error!(%error, "failed to encode metrics");
        Problem::internal()
    })?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

fn readiness(state: &State) -> Readiness {
    let mut checks = (state.health)();
    let now_ms = Timestamp::now().0 / 1_000;
    checks.extend(
        state
            .projections
            .snapshot()
            .iter()
            .map(|status| projection_check(status, now_ms)),
    );
    Readiness {
        ready: checks.iter().all(|check| check.ok),
        checks,
    }
}

fn projection_check(status: &status::Status, now_ms: i64) -> Check {
    use status::ProjectionState;
    let or_unknown = |reason: &Option<String>| reason.clone().unwrap_or_else(|| "no reason given".into());
    let last_error = || or_unknown(&status.last_error);
    let stalled_ms = status.stalled_since_ms.map(|since| now_ms.saturating_sub(since));
    let (ok, detail) = match status.state {
        ProjectionState::Starting => (false, "starting".to_owned()),
        ProjectionState::WaitingForStream => {
            let stream = status.stream.as_deref().unwrap_or("?");
            let for_ms = now_ms.saturating_sub(status.state_since_ms);
            (
                status.epoch == 0 && for_ms < STREAM_GRACE_MS,
                format!(
                    "the broker has had no stream {stream} for {} s; create the stream, or correct its name in the plugin",
                    for_ms / 1_000
                ),
            )
        }
        ProjectionState::Paused => (true, format!("paused: {}", or_unknown(&status.paused))),
        ProjectionState::Retrying => (false, format!("retrying: {}", last_error())),
        ProjectionState::Failed => (false, format!("halted: {}", last_error())),
        ProjectionState::Undecided => (false, format!("undecided: {}", last_error())),
        ProjectionState::Stopped => (false, "stopped".to_owned()),
        // How long a plugin may be without a host is checked for the plugin.
        ProjectionState::Standby => (true, format!("standby: {}", or_unknown(&status.paused))),
        ProjectionState::Running => match stalled_ms {
            Some(for_ms) if for_ms >= STALLED_MS => (false, stalled(status, for_ms)),
            _ => match status.warnings.iter().find(|warning| warning.not_ready) {
                Some(warning) => (false, warning.detail.clone()),
                None => (true, running(status)),
            },
        },
    };
    Check {
        name: format!("projection:{}/{}", status.plugin, status.source),
        ok,
        detail,
    }
}

/// Only an error that occurred after the source stalled can be the cause.
fn stalled(status: &status::Status, for_ms: i64) -> String {
    let why = status.last_error.as_deref().filter(|_| {
        let (since, at) = (status.stalled_since_ms, status.last_error_at_ms);
        at >= since
    });
    format!(
        "no progress for {} s although messages are waiting: {}",
        for_ms / 1_000,
        why.unwrap_or("no error reported")
    )
}

fn running(status: &status::Status) -> String {
    match status.lag {
        Some(lag) => format!("running at sequence {}, {lag} behind", status.checkpoint),
        None => format!("running at sequence {}", status.checkpoint),
    }
}
