//! Starts, lists, follows and cancels rebuilds. Progress is available as a response or as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract;
use axum::http::{StatusCode, Uri};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;

use super::change::{AuditNote, Input, OfPlugin};
use super::gate::Operator;
use super::parameters::Parameters;
use super::problem::Problem;
use super::state::State;
use lantern_api::{NewRebuild, Rebuild, RebuildState};
use lantern_lifecycle::{Lifecycle, RebuildRequest};
use lantern_store::RebuildId;

/// Interval of progress events.
const EVENT_INTERVAL: Duration = Duration::from_millis(500);

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Rebuild>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let all = state.lifecycle.rebuilds().await?;
    Ok(Json(all))
}

pub async fn begin(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    OfPlugin(plugin): OfPlugin,
    note: AuditNote,
    Input(new): Input<NewRebuild>,
) -> Result<(StatusCode, Json<Rebuild>), Problem> {
    if new.rate == Some(0) {
        return Err(Problem::bad_request("rate must be at least 1 message per second"));
    }
    let digest = match &new.version {
        Some(text) => Some(state.lifecycle.resolve_version(plugin.as_str(), text).await?),
        None => None,
    };
    if let Some(digest) = digest {
        note.digest(digest);
    }
    let request = RebuildRequest {
        digest: digest.map(|digest| digest.to_string()),
        from_sequence: new.from_sequence,
        from_time: new.from_time,
        rate: new.rate,
        carry_over: new.carry_over,
        drop_undeclared: new.drop_undeclared,
        accept_differences: new.accept_differences,
        keep_old_s: new.keep_old_s,
    };
    let by = note.requester(&by);
    let id = state.lifecycle.rebuild(plugin.as_str(), request, by).await?;
    Ok((StatusCode::ACCEPTED, Json(find(&state.lifecycle, id.0).await?)))
}

pub async fn cancel(
    extract::State(state): extract::State<State>,
    Operator(by): Operator,
    extract::Path(id): extract::Path<String>,
    note: AuditNote,
) -> Result<Json<Rebuild>, Problem> {
    let id = parse(&id)?;
    note.detail(format!("rebuild {id}"));
    let view = find(&state.lifecycle, id).await?;
    note.plugin(&view.plugin);
    let by = note.requester(&by);
    state.lifecycle.cancel_rebuild(RebuildId(id), by).await?;
    Ok(Json(find(&state.lifecycle, id).await?))
}

pub async fn show(
    extract::State(state): extract::State<State>,
    extract::Path(id): extract::Path<String>,
    uri: Uri,
) -> Result<Json<Rebuild>, Problem> {
    Parameters::parse(&uri, &[])?;
    Ok(Json(find(&state.lifecycle, parse(&id)?).await?))
}

/// Sends the rebuild at once and every half second; the stream ends with the rebuild.
pub async fn events(
    extract::State(state): extract::State<State>,
    extract::Path(id): extract::Path<String>,
    uri: Uri,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let id = parse(&id)?;
    let first = find(&state.lifecycle, id).await?;
    let events = futures_util::stream::unfold(
        (state.lifecycle, Some(first), true),
        move |(lifecycle, next, now)| async move {
            let view = next?;
            if !now {
                tokio::time::sleep(EVENT_INTERVAL).await;
            }
            let view = match now {
                true => view,
                false => find(&lifecycle, id).await.ok()?,
            };
            let more = (view.state == RebuildState::Running).then(|| view.clone());
            let event = Event::default().json_data(&view).ok()?;
            Some((Ok(event), (lifecycle, more, false)))
        },
    );
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn parse(id: &str) -> Result<i64, Problem> {
    id.parse()
        .map_err(|_| Problem::bad_request("the identifier of a rebuild is an integer"))
}

async fn find(lifecycle: &Lifecycle, id: i64) -> Result<Rebuild, Problem> {
    let all = lifecycle.rebuilds().await?;
    all.into_iter()
        .find(|view| view.id == id)
        .ok_or_else(|| Problem::not_found(format!("there is no rebuild {id}")))
}
