//! Passes a change on to the host that has to do it.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{self, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::Response;

use crate::access::{Access, Principal};
use crate::forward::{ExpectedBody, Outgoing};
use crate::problem::Problem;

/// Checks that a request that another host passed on has the body that this host stated.
pub(super) fn as_stated(parts: &Parts, body: &[u8]) -> Result<(), Problem> {
    match parts.extensions.get::<ExpectedBody>() {
        Some(expected) if !expected.is_of(body) => Err(Problem::unauthorized(
            "the body is not the one that the other host stated",
        )),
        _ => Ok(()),
    }
}

/// What is needed to send a change to another host; none if another host sent it.
pub(super) struct Copy {
    method: Method,
    uri: Uri,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

impl Copy {
    pub(super) fn of(parts: &Parts, body: &Bytes) -> Option<Self> {
        let is_forwarded = parts.extensions.get::<ExpectedBody>().is_some();
        (!is_forwarded).then(|| Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            content_type: parts.headers.get(header::CONTENT_TYPE).cloned(),
            body: body.clone(),
        })
    }
}

/// Passes a change on to the host that runs its plugin, if that is what the response says.
pub(super) async fn pass_on(
    access: &Access,
    principal: &Principal,
    copy: Option<Copy>,
    response: Response,
    time: Duration,
) -> Response {
    let host = response
        .extensions()
        .get::<Problem>()
        .and_then(Problem::host)
        .map(str::to_owned);
    let (Some(host), Some(forwarding), Some(copy)) = (host, access.forwarding(), copy) else {
        return response;
    };
    let outgoing = Outgoing {
        name: principal.name.as_str(),
        role: principal.role,
        method: copy.method,
        uri: &copy.uri,
        content_type: copy.content_type,
        body: copy.body,
        time,
    };
    forwarding.send(&host, outgoing).await
}
