//! Streams new rows of a table as server-sent events.

use axum::body::Body;
use axum::extract;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use super::name::TablePath;
use super::rows;
use super::selection;
use crate::budget::Client;
use crate::cursor;
use crate::live::{FollowError, Follower, ViewOptions};
use crate::problem::Problem;
use crate::state::State;

/// Events from now on, or after `Last-Event-ID` or `after`. Browsers send `Last-Event-ID` when they reconnect, so it
/// takes precedence.
pub async fn tail(
    extract::State(state): extract::State<State>,
    table: TablePath,
    client: Client,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let parameters = selection::read(&uri, &["columns", "after"])?;
    let shape = table.shape(&state.reader).await?;
    let options = ViewOptions {
        selection: selection::parse(&shape, &parameters)?,
        columns: rows::columns(&shape, &parameters)?,
        integers: selection::integers(&parameters)?,
    };
    let last = headers
        .get("last-event-id")
        .map(|value| value.to_str().unwrap_or("!"));
    let after = last.or(parameters.get("after")).filter(|text| !text.is_empty());
    let after = after
        .map(|text| cursor::places(shape.entry.name.as_str(), text))
        .transpose()?;
    let follower = state
        .live
        .tails
        .follow(shape, options, after, &client)
        .await
        .map_err(|error| match error {
            FollowError::Full => Problem::busy("too many clients follow tables at the moment"),
            FollowError::Read(error) => error.into(),
        })?;
    let events = stream::unfold(follower, async |mut follower: Follower| {
        let block = follower.next().await?;
        Some((Ok::<_, std::convert::Infallible>(block), follower))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((headers, Body::from_stream(events)).into_response())
}
