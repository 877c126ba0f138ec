//! Changes that another host of the database has to do: the host that runs the plugin. This host passes the request on and
//! returns the answer, so that clients may send a change to any host.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::problem::Problem;
use lantern_model::actor::Role;
use lantern_model::batch::Timestamp;
use lantern_model::schema::TokenName;
use lantern_trust::forwarded::{ForwardKey, SCHEME, Statement, VALID_US, body_digest};

/// Maximum size of the answer of another host.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Passes requests on, and accepts those of other hosts.
pub struct Forwarding {
    key: ForwardKey,
    agent: ureq::Agent,
    /// Accepted statements until they expire.
    seen: Mutex<BTreeMap<String, i64>>,
}

/// The digest of the body of a request that another host passed on.
#[derive(Clone, Debug)]
pub(super) struct ExpectedBody(String);

impl ExpectedBody {
    /// Whether the request has this body.
    pub(super) fn is_of(&self, body: &[u8]) -> bool {
        self.0 == body_digest(body)
    }
}

/// A change in the form in which it is passed on.
pub(super) struct Outgoing<'r> {
    /// The name and the role of the client's token.
    pub(super) name: &'r str,
    pub(super) role: Role,
    pub(super) method: Method,
    pub(super) uri: &'r Uri,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) body: Bytes,
    /// Time that the client waits.
    pub(super) time: Duration,
}

impl fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarding").finish_non_exhaustive()
    }
}

impl Forwarding {
    /// Forwarding between the hosts that know this key.
    pub fn new(key: ForwardKey) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None);
        Self {
            key,
            agent: config.build().into(),
            seen: Mutex::default(),
        }
    }

    /// The client of a request that another host passed on; `None` if the request has no valid statement.
    pub(super) fn accept(
        &self,
        value: &str,
        method: &Method,
        uri: &Uri,
    ) -> Option<(TokenName, Role, ExpectedBody)> {
        let statement = self.key.verify(value)?;
        let now = Timestamp::now().0;
        let is_meant = statement.method == method.as_str() && statement.path == path(uri);
        if !is_meant || statement.expires_at < now || statement.expires_at > now + 2 * VALID_US {
            return None;
        }
        let name = TokenName::parse(&statement.name).ok()?;
        let role = Role::parse(&statement.role).ok()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, expires_at| *expires_at >= now);
        let is_new = seen.insert(statement.nonce, statement.expires_at).is_none();
        is_new.then_some((name, role, ExpectedBody(statement.body)))
    }

    /// Passes a change on to the host at `url`, and returns its answer.
    pub(super) async fn send(&self, url: &str, outgoing: Outgoing<'_>) -> Response {
        let statement = Statement {
            name: outgoing.name.to_owned(),
            role: outgoing.role.as_str().to_owned(),
            method: outgoing.method.to_string(),
            path: path(outgoing.uri),
            body: body_digest(&outgoing.body),
            expires_at: Timestamp::now().0 + VALID_US,
            nonce: nonce(),
        };
        let target = format!("{url}{}", statement.path);
        let Some(authorization) = self.key.header(&statement) else {
            return Problem::internal().into_response();
        };
        let mut request = ureq::http::Request::builder()
            .method(outgoing.method)
            .uri(&target)
            .header(header::AUTHORIZATION, authorization);
        if let Some(content_type) = outgoing.content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let Ok(request) = request.body(outgoing.body.to_vec()) else {
            return unreachable_host(url, "the request cannot be sent");
        };
        let (agent, time) = (self.agent.clone(), outgoing.time);
        let sent = tokio::task::spawn_blocking(move || exchange(&agent, request, time));
        match sent.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => unreachable_host(url, &error.to_string()),
            Err(error) => unreachable_host(url, &error.to_string()),
        }
    }
}

/// Sends a request and reads the answer. Blocks.
fn exchange(
    agent: &ureq::Agent,
    request: ureq::http::Request<Vec<u8>>,
    time: Duration,
) -> Result<Response, ureq::Error> {
    let request = agent
        .configure_request(request)
        .timeout_global(Some(time))
        .build();
    let mut answer = agent.run(request)?;
    let body = answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_vec()?;
    let mut headers = HeaderMap::new();
    if let Some(content_type) = answer.headers().get(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, content_type.clone());
    }
    Ok((answer.status(), headers, Body::from(body)).into_response())
}

fn path(uri: &Uri) -> String {
    uri.path_and_query()
        .map_or_else(|| uri.path().to_owned(), ToString::to_string)
}

/// 128 random bits. Without random numbers the time still makes statements of one host different.
fn nonce() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return Timestamp::now().0.to_string();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unreachable_host(url: &str, reason: &str) -> Response {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "another-host",
        "The host that runs the plugin does not answer",
        format!("{url}: {reason}; the change may have taken effect there"),
    )
    .into_response()
}

/// The statement in the header of a request; none if the header has another scheme.
pub(super) fn statement(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix(SCHEME)?.strip_prefix(' ')
}
