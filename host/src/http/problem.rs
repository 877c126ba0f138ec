//! Answers that say no, as RFC 9457 has them. A handler returns a [`Problem`]; `guard::finish` adds the path.

use std::any::Any;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::batch::clean_text;
use crate::store::reader::ReadError;

/// Longest explanation; it may hold what somebody sent.
const DETAIL_BYTES_MAX: usize = 1024;

/// Why there is no other answer.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Stable, for programs: becomes `urn:lantern:problem:…`.
    kind: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: String,
    retry_after: Option<Duration>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl AsRef<str>) -> Self {
        let detail = clean_text(detail.as_ref(), DETAIL_BYTES_MAX);
        Self {
            kind,
            title,
            status,
            detail,
            retry_after: None,
        }
    }

    /// A parameter of the request cannot be used.
    pub fn bad_request(detail: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request cannot be understood",
            detail,
        )
    }

    /// There is nothing of this name.
    pub fn not_found(detail: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such thing",
            detail,
        )
    }

    /// Too much to do at the moment.
    pub fn busy(detail: impl AsRef<str>) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "The host is busy",
            detail,
        );
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..problem
        }
    }

    /// The host failed, and its log says why.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The host failed",
            "the host's log says why",
        )
    }

    /// The whole answer, for a request to `uri`.
    pub fn into_body(self, uri: &Uri) -> Response {
        let instance = clean_text(uri.path(), DETAIL_BYTES_MAX);
        let body = Body {
            kind: format!("urn:lantern:problem:{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: &instance,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, wait.as_secs().into());
        }
        response
    }
}

/// Leaves the problem in the response's extensions, where `guard::finish` finds it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Busy => Self::busy("all readers of the database are in use; try again"),
            ReadError::TimeLimit { time } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-slow",
                "The question takes too long",
                format!(
                    "no answer within {} ms; ask for fewer rows or a narrower filter",
                    time.as_millis()
                ),
            ),
            _ => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a read for the API failed"
                );
                Self::internal()
            }
        }
    }
}

pub async fn no_such_path() -> Problem {
    Problem::not_found("the API begins at /api/v1; / lists what there is")
}

/// Answers for a handler that panicked. The panic itself has been printed by the panic hook.
pub fn from_panic(_panic: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a request made its handler panic");
    Problem::internal().into_response()
}
