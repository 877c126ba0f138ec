//! Changes: limits of their bodies, execution to the end, and their audit entries.
//!
//! The body is read completely before the handler runs, within limits of size and time, so that handlers are safe from
//! slow, endless or malformed bodies. The handler runs in its own task: a client that disconnects does not leave a change
//! incomplete. The handler starts only after the audit entry of the change is committed.

mod passing;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::{self, HeaderMap};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::access::{Access, Principal};
use super::guard::content_length;
use super::problem::{self, Problem};
use passing::{Copy, as_stated, pass_on};

use lantern_lifecycle::Requester;
use lantern_model::actor::Actor;
use lantern_model::batch::clean_text;
use lantern_model::schema::PluginName;
use lantern_store::{AuditEntry, AuditId, AuditMark, AuditOutcome};

/// Maximum size of a JSON body. The largest ones contain the settings of a plugin.
const JSON_BYTES_MAX: u64 = 64 * 1024;

/// Maximum time for receiving a JSON body.
const JSON_TIME: Duration = Duration::from_secs(10);

/// Maximum time for receiving an upload: 64 MiB at half a megabyte per second.
const UPLOAD_TIME: Duration = Duration::from_secs(120);

/// Maximum time that an upload waits for another one to end.
const UPLOAD_WAIT: Duration = Duration::from_secs(30);

/// Maximum time that a client waits for a change; the change continues after it.
const CHANGE_TIME: Duration = Duration::from_secs(60);

/// Maximum length of a request URI in the audit, in bytes.
const REQUEST_BYTES_MAX: usize = 512;

/// A route that changes state. By default it accepts a JSON body or none, and clients wait one minute.
#[derive(Clone, Debug)]
pub struct Change {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) action: &'static str,
    body: BodyRule,
    time: Duration,
}

#[derive(Clone, Copy, Debug)]
enum BodyRule {
    /// No body.
    Nothing,
    /// `application/json`, or no body.
    Json,
    /// `application/wasm`.
    Component { bytes_max: u64 },
}

impl Change {
    /// `POST path` with a JSON body or none. `action` is its name in the audit, as `noun.verb`.
    pub fn post(path: &'static str, action: &'static str) -> Self {
        Self::new(Method::POST, path, action, BodyRule::Json)
    }

    /// `PUT path` with a JSON body or none.
    pub fn put(path: &'static str, action: &'static str) -> Self {
        Self::new(Method::PUT, path, action, BodyRule::Json)
    }

    /// `DELETE path` without a body.
    pub fn delete(path: &'static str, action: &'static str) -> Self {
        Self::new(Method::DELETE, path, action, BodyRule::Nothing)
    }

    fn new(method: Method, path: &'static str, action: &'static str, body: BodyRule) -> Self {
        Self {
            method,
            path,
            action,
            body,
            time: CHANGE_TIME,
        }
    }

    /// Accepts a component (`application/wasm`) of at most `bytes_max` bytes as the body. The handler takes [`Bytes`].
    pub fn with_component(self, bytes_max: u64) -> Self {
        Self {
            body: BodyRule::Component { bytes_max },
            ..self
        }
    }

    /// Sets the time that clients wait. A longer change continues, and the response is 503.
    pub fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }
}

/// The audit entry of the current request. A handler takes it as an argument and adds what the request affects. Cheap to
/// clone.
#[derive(Clone, Debug, Default)]
pub struct AuditNote(Arc<Mutex<Note>>);

#[derive(Debug, Default)]
struct Note {
    plugin: Option<String>,
    digest: Option<String>,
    detail: String,
    /// The entry from the start of the change, with actor and action.
    begun: Option<(AuditId, Actor, &'static str)>,
}

impl AuditNote {
    /// Sets the affected plugin. Routes with `{plugin}` set it automatically.
    pub fn plugin(&self, name: impl ToString) {
        self.change(|note| note.plugin = Some(name.to_string()));
    }

    /// Sets the affected version.
    pub fn digest(&self, digest: impl ToString) {
        self.change(|note| note.digest = Some(digest.to_string()));
    }

    /// Sets the description of the change, for people; replaces an earlier one. The reason of a refusal is appended.
    pub fn detail(&self, detail: impl ToString) {
        self.change(|note| note.detail = detail.to_string());
    }

    /// Sets the request as the description until the handler sets a better one.
    pub(super) fn request(&self, parts: &Parts) {
        let request = format!("{} {}", parts.method, parts.uri);
        self.detail(clean_text(&request, REQUEST_BYTES_MAX));
    }

    /// The mark with which a change that is one transaction ends its entry in that transaction. None if there is no entry
    /// to end, as in a read.
    pub fn done(&self) -> Option<AuditMark> {
        let begun = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .begun
            .clone();
        let (id, actor, action) = begun?;
        Some(AuditMark::ending(
            id,
            self.entry(&actor, action, AuditOutcome::Done, None),
        ))
    }

    /// The operator, whose change ends the entry in its transaction, with what was noted so far.
    pub(super) fn requester(&self, operator: &Actor) -> Requester {
        Requester::with_entry(operator, self.done())
    }

    fn change(&self, change: impl FnOnce(&mut Note)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The entry of a completed request.
    pub(super) fn answered(&self, actor: &Actor, action: &str, response: &Response) -> AuditEntry {
        let outcome = match response.status().as_u16() {
            ..400 => AuditOutcome::Done,
            400..500 => AuditOutcome::Refused,
            _ => AuditOutcome::Failed,
        };
        self.entry(actor, action, outcome, response.extensions().get::<Problem>())
    }

    pub(super) fn entry(
        &self,
        actor: &Actor,
        action: &str,
        outcome: AuditOutcome,
        refusal: Option<&Problem>,
    ) -> AuditEntry {
        let note = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = refusal.map(Problem::detail).unwrap_or_default();
        let parts = [note.detail.as_str(), refusal];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        AuditEntry {
            actor: actor.clone(),
            action: action.to_owned(),
            plugin: note.plugin.clone(),
            digest: note.digest.clone(),
            outcome,
            detail: parts.join(": "),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AuditNote {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // A read that is not recorded has no entry; its notes are discarded.
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// A parsed JSON body. Parse errors have the position and the reason.
pub struct Input<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        parse(&bytes).map(Self)
    }
}

/// Like [`Input`], with a default for requests without a body.
pub struct OptionalInput<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalInput<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would deserialize a struct from an array field by field, which is never intended.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::bad_request(
            "invalid body: expected an object, not an array",
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| Problem::bad_request(format!("invalid body: {error}")))
}

/// The plugin in the path parameter `{plugin}`, as an argument of a handler.
pub struct OfPlugin(pub PluginName);

impl<S: Send + Sync> FromRequestParts<S> for OfPlugin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        let name = params.iter().find(|(key, _)| *key == "plugin");
        let (_, name) = name.ok_or_else(Problem::internal)?;
        PluginName::parse(name).map(Self).map_err(Problem::bad_request)
    }
}

/// Runs an admitted change and records it in the audit.
pub(super) async fn run_change(
    access: &Access,
    change: &Change,
    admitted: Result<Principal, Problem>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let note = AuditNote::default();
    if let Some(plugin) = plugin_of(&mut parts).await {
        note.plugin(plugin);
    }
    let ready = match admitted {
        Ok(principal) => prepare(access, change, &parts.headers, body)
            .await
            .and_then(|ready| as_stated(&parts, &ready.0).map(|()| (principal, ready))),
        Err(problem) => Err(problem),
    };
    let (principal, (bytes, permit)) = match ready {
        Ok(ready) => ready,
        Err(problem) => {
            let actor = access.actor(&parts.headers);
            let entry = note.entry(&actor, change.action, AuditOutcome::Refused, Some(&problem));
            access.record_rejection(entry).await;
            return problem.into_response();
        }
    };
    note.request(&parts);
    parts.extensions.insert(principal.clone());
    parts.extensions.insert(note.clone());
    let copy = Copy::of(&parts, &bytes);
    let request = Request::from_parts(parts, Body::from(bytes));
    let (access, action, time) = (access.clone(), change.action, change.time);
    let task = tokio::spawn(async move {
        let response = record(&access, &principal.actor(), action, note, request, next).await;
        let response = pass_on(&access, &principal, copy, response, time).await;
        drop(permit);
        response
    });
    match tokio::time::timeout(change.time, task).await {
        Ok(Ok(response)) => response,
        // The task catches panics, so the process is shutting down.
        Ok(Err(_)) => Problem::internal().into_response(),
        Err(_) => Problem::busy(
            "the change takes longer than expected and continues; the audit will record its outcome",
        )
        .into_response(),
    }
}

/// Runs the handler between two audit writes. If the first one fails, the change does not start.
async fn record(
    access: &Access,
    actor: &Actor,
    action: &'static str,
    note: AuditNote,
    request: Request,
    next: Next,
) -> Response {
    let begun = match access
        .begin(note.entry(actor, action, AuditOutcome::Started, None))
        .await
    {
        Ok(begun) => begun,
        Err(problem) => return problem.into_response(),
    };
    note.change(|note| {
        note.begun = Some((begun, actor.clone(), action));
        note.detail.clear();
    });
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => problem::from_panic(panic),
    };
    access.end(begun, note.answered(actor, action, &response)).await;
    response
}

/// Reads the complete body; for an upload, with its memory permit.
async fn prepare(
    access: &Access,
    change: &Change,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || content_length(headers).is_some_and(|bytes| bytes > 0);
    let (content_type, bytes_max, time) = match change.body {
        BodyRule::Nothing if has_body => {
            return Err(Problem::bad_request("this request must not have a body"));
        }
        BodyRule::Nothing => return Ok((Bytes::new(), None)),
        BodyRule::Json => ("application/json", JSON_BYTES_MAX, JSON_TIME),
        BodyRule::Component { bytes_max } => ("application/wasm", bytes_max, UPLOAD_TIME),
    };
    if has_body {
        check_type(headers, content_type)?;
    }
    if content_length(headers).is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let permit = match change.body {
        BodyRule::Component { .. } => Some(place(access).await?),
        _ => None,
    };
    let bytes = read(body, bytes_max, time).await?;
    Ok((bytes, permit))
}

/// Requires the media type: pages of other sites can send text, forms and files without a CORS preflight, but not JSON or
/// WebAssembly.
fn check_type(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_expected = text(header::CONTENT_TYPE).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(expected)
    });
    let is_plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_expected && is_plain {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "body-type",
        "Unsupported media type",
        format!("the body must be uncompressed {expected}, with that Content-Type"),
    ))
}

async fn place(access: &Access) -> Result<OwnedSemaphorePermit, Problem> {
    let waiting = access.uploads().acquire_owned();
    match tokio::time::timeout(UPLOAD_WAIT, waiting).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Problem::busy("too many concurrent uploads; retry")),
    }
}

async fn read(body: Body, bytes_max: u64, time: Duration) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(time, collect(body, bytes_max)).await;
    read.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow-body",
            "The request was not received in time",
            format!("the body was not received within {} s", time.as_secs()),
        )
    })?
}

/// Counts the received bytes, regardless of the declared length.
async fn collect(body: Body, bytes_max: u64) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| Problem::bad_request(format!("the body is incomplete: {error}")))?;
        if (whole.len() + chunk.len()) as u64 > bytes_max {
            return Err(too_large(bytes_max));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

fn too_large(bytes_max: u64) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        "The request is too large",
        format!("the body exceeds {bytes_max} bytes"),
    )
}

/// The path parameter `{plugin}`, if it is a valid name.
pub(super) async fn plugin_of(parts: &mut Parts) -> Option<PluginName> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let (_, name) = params.iter().find(|(key, _)| *key == "plugin")?;
    PluginName::parse(name).ok()
}

#[cfg(test)]
mod tests;
