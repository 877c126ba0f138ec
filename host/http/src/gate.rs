//! Admission of requests: host name, origin, token and limits. `Routes` puts the gate in front of every route and of the
//! fallbacks, so no handler can be reached without it.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{self, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::TryStreamExt as _;

use super::access::{Access, Principal, Role};
use super::budget::{Client, Peer};
use super::change::{self, AuditNote, Change};
use super::forward::{ExpectedBody, statement};
use super::guard;
use super::problem::Problem;
use super::room::{self, Slot};
use lantern_model::actor::Actor;
use lantern_store::AuditOutcome;

/// Maximum time of a read. One read of the database ends after two seconds, and a page takes a few of them.
const READ_TIME: Duration = Duration::from_secs(10);

/// Maximum body of a read, which has none.
const READ_BYTES_MAX: u64 = 64 * 1024;

/// Role that a route requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// No token.
    Nothing,
    /// The role viewer; no token over loopback, unless `http.reads_need_token` is set.
    Viewer,
    /// The role operator, also over loopback.
    Operator,
}

/// The gate of one route.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) access: Access,
    pub(super) needs: Needs,
    /// Set for changes.
    pub(super) change: Option<Change>,
    /// Action of recorded reads in the audit.
    pub(super) recorded: Option<&'static str>,
}

pub(super) async fn pass(
    extract::State(gate): extract::State<Gate>,
    mut request: Request,
    next: Next,
) -> Response {
    let forwarded = match &gate.change {
        Some(_) => forwarded(&gate.access, &request),
        None => Ok(None),
    };
    let admitted = forwarded.and_then(|forwarded| {
        let (principal, body) = forwarded.unzip();
        if let Some(body) = body {
            request.extensions_mut().insert(body);
        }
        gate.admit(&request, principal)
    });
    if let Some(change) = &gate.change {
        let operator = admitted.and_then(|principal| principal.ok_or_else(token_needed));
        return change::run_change(&gate.access, change, operator, request, next).await;
    }
    let note = AuditNote::default();
    if gate.recorded.is_some() {
        request = note_request(&note, request).await;
    }
    let principal = match admitted {
        Ok(principal) => principal,
        Err(problem) => {
            gate.record_refused(&note, request.headers(), &problem).await;
            return problem.into_response();
        }
    };
    let client = Client::of(
        principal.as_ref().map(|principal| principal.name.as_str()),
        request.extensions().get::<Peer>(),
    );
    let slot = Slot::default();
    request.extensions_mut().insert(Asks(principal.clone()));
    request.extensions_mut().insert(client.clone());
    request.extensions_mut().insert(slot.clone());
    request.extensions_mut().insert(note.clone());
    let headers = authorization(request.headers());
    let answered = tokio::time::timeout(READ_TIME, next.run(request)).await;
    let response = answered.unwrap_or_else(|_| Problem::busy("the request timed out").into_response());
    if let (Some(action), Some(principal)) = (gate.recorded, principal) {
        let entry = note.answered(&principal.actor(), action, &response);
        gate.access.record_read(entry).await;
    }
    let response = while_good(gate.access.clone(), headers, response);
    room::counted(gate.access.budget(), &client, &slot, response)
}

/// Adds the request and the plugin in its path to the note.
async fn note_request(note: &AuditNote, request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    note.request(&parts);
    if let Some(plugin) = change::plugin_of(&mut parts).await {
        note.plugin(plugin);
    }
    Request::from_parts(parts, body)
}

/// The `Authorization` headers of a request.
fn authorization(headers: &HeaderMap) -> HeaderMap {
    let all = headers.get_all(header::AUTHORIZATION).iter();
    all.map(|value| (header::AUTHORIZATION, value.clone())).collect()
}

/// Streaming responses (such as a table tail) end when the token is revoked or expires. Complete responses are sent.
fn while_good(access: Access, headers: HeaderMap, response: Response) -> Response {
    if headers.is_empty() || response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let parts = body.into_data_stream().and_then(move |part| {
            let good = access.is_still_good(&headers);
            let part = good.then_some(part);
            std::future::ready(part.ok_or_else(|| axum::Error::new("the token is no longer valid")))
        });
        Body::from_stream(parts)
    })
}

impl Gate {
    /// Records the refusal of a read with a valid token. Requests without a valid token are not recorded: anyone can send
    /// them, and they reveal nothing.
    async fn record_refused(&self, note: &AuditNote, headers: &HeaderMap, problem: &Problem) {
        let actor = self.access.actor(headers);
        if let Some(action) = self.recorded
            && actor != Actor::Anonymous
        {
            let entry = note.entry(&actor, action, AuditOutcome::Refused, Some(problem));
            self.access.record_rejection(entry).await;
        }
    }

    /// Admits the request and identifies the client, unless another host has (`forwarded`); the error is the first failed check.
    fn admit(&self, request: &Request, forwarded: Option<Principal>) -> Result<Option<Principal>, Problem> {
        let config = self.access.config();
        let named = guard::named(request, &config.hosts)?;
        guard::own_page(request, named)?;
        if self.change.is_none() {
            small_enough(request)?;
        }
        let is_near = config.is_near(named);
        let least = match self.needs {
            Needs::Nothing => return Ok(None),
            Needs::Viewer if is_near => None,
            Needs::Viewer => Some(Role::Viewer),
            Needs::Operator => Some(Role::Operator),
        };
        let principal = match forwarded {
            Some(principal) => Some(principal),
            None => self.access.authenticate(request.headers())?,
        };
        match (&principal, least) {
            (None, Some(_)) => Err(token_needed()),
            (Some(principal), Some(least)) if principal.role < least => Err(Problem::forbidden(format!(
                "this requires the role {}; the token {} has the role {}",
                least.as_str(),
                principal.name,
                principal.role.as_str()
            ))),
            _ => Ok(principal),
        }
    }
}

/// The client of a change that another host passed on, and the body that it has to have.
fn forwarded(access: &Access, request: &Request) -> Result<Option<(Principal, ExpectedBody)>, Problem> {
    let Some(value) = statement(request.headers()) else {
        return Ok(None);
    };
    let forwarding = access.forwarding();
    forwarding
        .and_then(|forwarding| forwarding.accept(value, request.method(), request.uri()))
        .map(|(name, role, body)| Some((Principal { name, role }, body)))
        .ok_or_else(|| Problem::unauthorized("the statement of another host is not valid"))
}

fn token_needed() -> Problem {
    Problem::unauthorized("the request has no token")
}

fn small_enough(request: &Request) -> Result<(), Problem> {
    match guard::content_length(request.headers()) {
        Some(bytes) if bytes > READ_BYTES_MAX => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "The request is too large",
            "reads have no body",
        )),
        _ => Ok(()),
    }
}

/// The client of a read; none without a token over loopback.
#[derive(Clone, Debug)]
pub struct Asks(pub Option<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Asks {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or(Self(None)))
    }
}

/// The operator of a change, as its actor. On a route that is not a change, the extractor fails.
#[derive(Clone, Debug)]
pub struct Operator(pub Actor);

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.extensions.get::<Principal>() {
            Some(principal) if principal.role >= Role::Operator => Ok(Self(principal.actor())),
            _ => Err(token_needed()),
        }
    }
}
