//! Calls that change something: what their body may be and how it is read, that they are carried out to the end, and
//! that the audit has every one of them.
//!
//! A body is read whole before its handler runs, within limits of bytes and time, so that no handler has to think of
//! clients that are slow, endless or lying. Then the handler runs in a task of its own: a client that hangs up does
//! not leave a change half done. The handler runs only after an entry of the audit was committed for it.

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
use lantern_model::batch::clean_text;
use lantern_model::schema::PluginName;
use lantern_store::{AuditEntry, AuditId, AuditMark, AuditOutcome};

/// Largest JSON body. The largest that is sent holds a plugin's settings.
const JSON_BYTES_MAX: u64 = 64 * 1024;

/// Longest time for a JSON body to arrive.
const JSON_TIME: Duration = Duration::from_secs(10);

/// Longest time for an upload to arrive: 64 MiB at half a megabyte a second.
const UPLOAD_TIME: Duration = Duration::from_secs(120);

/// Longest time that an upload waits for another one to end.
const UPLOAD_WAIT: Duration = Duration::from_secs(30);

/// Longest time that a client waits for a change; the change goes on after it.
const CHANGE_TIME: Duration = Duration::from_secs(60);

/// Longest part of a request's address that is written to the audit, in bytes.
const REQUEST_BYTES_MAX: usize = 512;

/// A route that changes something. What is not said is as most have it: a JSON body or none, a minute to be done.
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
    /// `POST path` with a JSON body or none. `action` is what the audit calls it, as `noun.verb`.
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

    /// The body is a component (`application/wasm`) of at most so many bytes instead. The handler takes [`Bytes`].
    pub fn with_component(self, bytes_max: u64) -> Self {
        Self {
            body: BodyRule::Component { bytes_max },
            ..self
        }
    }

    /// The client waits for this long instead of a minute. What is longer is answered with 503 and goes on.
    pub fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }
}

/// The audit entry of the call in hand. A handler takes it as an argument and says what the entry is about; the rest
/// of it is known. Cheap to clone, so that others may add to it.
#[derive(Clone, Debug, Default)]
pub struct AuditNote(Arc<Mutex<Note>>);

#[derive(Debug, Default)]
struct Note {
    plugin: Option<String>,
    digest: Option<String>,
    detail: String,
    /// The entry from before the change, with actor and action.
    begun: Option<(AuditId, String, &'static str)>,
}

impl AuditNote {
    /// The plugin that it is about. Where the route has `{plugin}` this is known already.
    pub fn plugin(&self, name: impl ToString) {
        self.change(|note| note.plugin = Some(name.to_string()));
    }

    /// The version that it is about.
    pub fn digest(&self, digest: impl ToString) {
        self.change(|note| note.digest = Some(digest.to_string()));
    }

    /// For people: what changed. The last one counts. A refusal's own words are added to it.
    pub fn detail(&self, detail: impl ToString) {
        self.change(|note| note.detail = detail.to_string());
    }

    /// The request, where nothing better is known.
    pub(super) fn request(&self, parts: &Parts) {
        let request = format!("{} {}", parts.method, parts.uri);
        self.detail(clean_text(&request, REQUEST_BYTES_MAX));
    }

    /// What a change that is one transaction writes in that transaction: that it is done. None where there is no entry to
    /// be ended, as in a read.
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

    fn change(&self, change: impl FnOnce(&mut Note)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The entry of a call that was answered.
    pub(super) fn answered(&self, actor: &str, action: &str, response: &Response) -> AuditEntry {
        let outcome = match response.status().as_u16() {
            ..400 => AuditOutcome::Done,
            400..500 => AuditOutcome::Refused,
            _ => AuditOutcome::Failed,
        };
        self.entry(actor, action, outcome, response.extensions().get::<Problem>())
    }

    pub(super) fn entry(
        &self,
        actor: &str,
        action: &str,
        outcome: AuditOutcome,
        refusal: Option<&Problem>,
    ) -> AuditEntry {
        let note = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = refusal.map(Problem::detail).unwrap_or_default();
        let parts = [note.detail.as_str(), refusal];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        AuditEntry {
            actor: actor.to_owned(),
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
        // A read that is not recorded has none; its notes are dropped.
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// A JSON body, parsed. What cannot be parsed is answered with where and why.
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

/// As [`Input`], for a call that makes sense without a body.
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
    // Serde would take a list for a struct, field by field: nobody can mean that.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::bad_request(
            "the body cannot be understood: it is a list, not an object",
        ));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::bad_request(format!("the body cannot be understood: {error}")))
}

/// The plugin that the route's `{plugin}` names, as an argument of a handler.
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

/// Carries out a call that `admitted` lets through, and records it in the audit.
pub(super) async fn carry_out(
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
            .map(|ready| (principal, ready)),
        Err(problem) => Err(problem),
    };
    let (principal, (bytes, permit)) = match ready {
        Ok(ready) => ready,
        Err(problem) => {
            let actor = access.actor(&parts.headers);
            let entry = note.entry(&actor, change.action, AuditOutcome::Refused, Some(&problem));
            access.record_refusal(entry).await;
            return problem.into_response();
        }
    };
    note.request(&parts);
    parts.extensions.insert(principal.clone());
    parts.extensions.insert(note.clone());
    let request = Request::from_parts(parts, Body::from(bytes));
    let (access, action) = (access.clone(), change.action);
    let task = tokio::spawn(async move {
        let response = record(&access, &principal.name, action, note, request, next).await;
        drop(permit);
        response
    });
    match tokio::time::timeout(change.time, task).await {
        Ok(Ok(response)) => response,
        // The task catches panics, so this is the end of the process.
        Ok(Err(_)) => Problem::internal().into_response(),
        Err(_) => Problem::busy("it takes longer than expected and goes on; the audit will say how it ended")
            .into_response(),
    }
}

/// Runs the handler between two rows of the audit. Without the first one the change does not begin.
async fn record(
    access: &Access,
    actor: &str,
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
        note.begun = Some((begun, actor.to_owned(), action));
        note.detail.clear();
    });
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => problem::from_panic(panic),
    };
    access.end(begun, note.answered(actor, action, &response)).await;
    response
}

/// The body, whole, and for an upload its place in memory.
async fn prepare(
    access: &Access,
    change: &Change,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || content_length(headers).is_some_and(|bytes| bytes > 0);
    let (content_type, bytes_max, time) = match change.body {
        BodyRule::Nothing if has_body => return Err(Problem::bad_request("this call has no body")),
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

/// A page of another site can send text, forms and files to anybody without asking first, but neither of our types.
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
        "The body is not of the right type",
        format!("the body has to be {expected}, not compressed, and say so in Content-Type"),
    ))
}

async fn place(access: &Access) -> Result<OwnedSemaphorePermit, Problem> {
    let waiting = access.uploads().acquire_owned();
    match tokio::time::timeout(UPLOAD_WAIT, waiting).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Problem::busy("other uploads are not done yet; try again")),
    }
}

async fn read(body: Body, bytes_max: u64, time: Duration) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(time, collect(body, bytes_max)).await;
    read.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow-body",
            "The request takes too long to arrive",
            format!("the body was not there within {} s", time.as_secs()),
        )
    })?
}

/// Whatever the client says of its length, what comes is counted.
async fn collect(body: Body, bytes_max: u64) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| Problem::bad_request(format!("the body did not arrive whole: {error}")))?;
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
        format!("the body may have {bytes_max} bytes"),
    )
}

/// The route's `{plugin}`, when it is a name.
pub(super) async fn plugin_of(parts: &mut Parts) -> Option<PluginName> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let (_, name) = params.iter().find(|(key, _)| *key == "plugin")?;
    PluginName::parse(name).ok()
}

#[cfg(test)]
mod tests;
